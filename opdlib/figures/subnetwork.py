"""Training inside a mask, over seeds and per distance; and what two runs changed in common, beside chance."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from opdlib.figures.theme import BLUE, GREEN, GREY, ORANGE, SKY, figure, legend_above, named_rows
from opdlib.registry.study import FULL
from opdlib.stats import mean_interval
from opdlib.tables.subnetwork.masked import TRAINS
from opdlib.tables.subnetwork.overlap import NAMES, OTHER_SEED, SAME_SEED

MARKS = {
    FULL: ("black", "D"),
    "mask-own": (BLUE, "o"),
    "mask-rlvr": (ORANGE, "s"),
    "mask-random": (GREY, "^"),
    "mask-magnitude": (GREEN, "v"),
    "mask-smallest": (SKY, "P"),
}
"""Arm -> colour and marker."""
PAPER = {"DS-Qwen OPD": "<", "Qwen2.5-VL OPD": ">"}
"""Setting of the paper -> marker, hollow."""
CHANCE = {"global": (GREY, "s"), "tensor": (SKY, "^"), "magnitude": (GREEN, "v")}
"""Baseline -> colour and marker."""
SEEDS = {OTHER_SEED: (BLUE, "o"), SAME_SEED: (ORANGE, "D")}
"""Whether two runs share their seed -> colour and marker."""


@figure
def accuracy(table: pd.DataFrame, ax: Axes) -> None:
    """Accuracy of full OPD and of each mask, in percent: every seed, their mean and its 95% interval.

    Table: `tables.subnetwork.runs`. The dotted line is the source before training. An arm without runs has no row.
    """
    arms = [arm for arm in TRAINS if (table["arm"] == arm).any()]
    for place, arm in enumerate(arms):
        own = table[table["arm"] == arm]["accuracy"]
        colour, marker = MARKS[arm]
        mean, low, high = mean_interval(own)
        ax.plot(100 * own, [place + 0.22] * len(own), ".", color=colour, alpha=0.6, ms=5)
        if low == low:
            ax.plot([100 * low, 100 * high], [place] * 2, "-", color=colour, lw=2)
        ax.plot(100 * mean, place, marker, color=colour)
    for number, source in enumerate(sorted(set(table["source_accuracy"]))):
        ax.axvline(100 * source, color="black", lw=1, ls=":", label="source" if number == 0 else None)
    named_rows(ax, [TRAINS[arm] for arm in arms])
    ax.set_xlabel("held-out problems solved (%)")
    _legend(ax)


@figure
def difference(table: pd.DataFrame, ax: Axes) -> None:
    """Accuracy of each mask minus that of full OPD, in points: mean over seeds with its 95% interval, beside the paper.

    Table: `tables.subnetwork.written.differences`: arm, setting (`here` or the paper's), density (drawn beside the
    paper's), difference, low, high, span. The grey band is full OPD's own range from seed to seed, within which an
    interval counts as the same.
    """
    arms = [arm for arm in TRAINS if arm != FULL and (table["arm"] == arm).any()]
    place = {arm: number for number, arm in enumerate(arms)}
    here = table[table["setting"] == "here"]
    if here["span"].notna().any():
        span = 100 * float(here["span"].max())
        ax.axvspan(-span, span, color="#dddddd", lw=0, label="full OPD, seed to seed")
    ax.axvline(0, color="black", lw=1, ls=":")
    for number, row in enumerate(here.to_dict("records")):
        at = place[row["arm"]]
        colour, marker = MARKS[row["arm"]]
        if row["low"] == row["low"]:
            ax.plot([100 * row["low"], 100 * row["high"]], [at] * 2, "-", color=colour, lw=2)
        ax.plot(100 * row["difference"], at, marker, color=colour, label="here" if number == 0 else None)
    for number, (setting, marker) in enumerate(PAPER.items()):
        own = table[table["setting"] == setting]
        height = own["arm"].map(place) + 0.22 + 0.2 * number
        name = f"paper, {setting.removesuffix(' OPD')}"
        ax.plot(100 * own["difference"], height, marker, color="black", mfc="white", ms=6, label=name)
        for x, y, density in zip(100 * own["difference"], height, own["density"], strict=True):
            ax.annotate(f"{100 * density:.3g}%", (x, y), (-6, 0), textcoords="offset points", **BESIDE)
    named_rows(ax, [TRAINS[arm] for arm in arms])
    ax.margins(x=0.12)
    ax.set_xlabel("accuracy minus that of full OPD (points)")
    _legend(ax)


@figure
def distance(table: pd.DataFrame, ax: Axes) -> None:
    """Accuracy in percent against the distance travelled, mean over seeds at every evaluation, the source first.

    Table: `tables.subnetwork.along`.
    """
    for arm, trains in TRAINS.items():
        own = table[table["arm"] == arm].groupby("step")[["distance", "accuracy"]].mean()
        if len(own):
            colour, marker = MARKS[arm]
            ax.plot(own["distance"], 100 * own["accuracy"], marker, ls="-", color=colour, ms=6, lw=1.5, label=trains)
    ax.set(xlabel="distance from the source, fp32", ylabel="held-out problems solved (%)")
    legend_above(ax)


@figure
def overlap(table: pd.DataFrame, ax: Axes) -> None:
    """Share of full OPD's changed weights that the other run changed too, in percent.

    Mean and range over pairs of runs, with the share that each kind of chance gives (pairs of other seeds).

    Table: rows of `tables.subnetwork.overlap.by_comparison` at one threshold, below them those of the paper, which have
    a `pair`.
    """
    places = _places(ax, table)
    for seed, (colour, marker) in SEEDS.items():
        own = table[table["seed"] == seed] if "seed" in table else table[:0]
        for row in own.to_dict("records"):
            ax.plot([100 * row["o1_low"], 100 * row["o1_high"]], [places[row["arm"]]] * 2, "-", color=colour, lw=2)
        label = f"here, {seed}" if len(own) else None
        ax.plot(100 * own["o1"], own["arm"].map(places), marker, color=colour, label=label)
    _paper(ax, table, places, "o1", 100)
    for baseline, (colour, _) in CHANCE.items():
        known = _one_a_row(table).dropna(subset=[f"{baseline}_o1"])
        height = [places[name] for name in known.index]
        ax.plot(100 * known[f"{baseline}_o1"], height, "|", color=colour, ms=13, mew=3, label=f"chance, {baseline}")
    ax.set(xlim=(-2, 102), xlabel="share of full OPD's changes (%)")
    _legend(ax)


@figure
def ratio(table: pd.DataFrame, ax: Axes) -> None:
    """How many times as many changes two runs share as each kind of chance gives; at the dotted line no more than that.

    Table: as for `overlap`. Means over pairs of runs of other seeds; the paper's are hollow, over its own baseline.
    """
    places = _places(ax, table)
    ax.axvline(1, color="black", lw=1, ls=":")
    rows = _one_a_row(table)
    rows = rows[rows.index.isin(list(NAMES))]
    for number, (baseline, (colour, marker)) in enumerate(CHANCE.items()):
        height = [places[name] + 0.2 * (number - 1) for name in rows.index]
        ax.plot(rows[f"ratio_{baseline}"], height, marker, color=colour, ms=6, label=f"over {baseline}")
    _paper(ax, table, places, "ratio_global", 1)
    ax.set_xlim(left=0.8)
    ax.set_xlabel("shared changes over those of chance")
    _legend(ax)


BESIDE: dict[str, Any] = {"ha": "right", "va": "center", "fontsize": 9}
"""Where the density of a mask of the paper's stands."""


def _one_a_row(table: pd.DataFrame) -> pd.DataFrame:
    """One row an arm, of other seeds where there is one, and the paper's rows, by name, in their order."""
    named = table.reindex(columns=[*table.columns, *{"pair", "with", "seed"}.difference(table.columns)])
    named["name"] = named["arm"].where(named["pair"].isna(), "paper: " + named["with"].astype(str))
    chosen = named.sort_values("seed", key=lambda seed: seed != OTHER_SEED, kind="stable").drop_duplicates("name")
    return chosen.sort_index().set_index("name")


def _places(ax: Axes, table: pd.DataFrame) -> dict[str, int]:
    """Arm, or the paper's comparison -> its row."""
    names = list(_one_a_row(table).index)
    named_rows(ax, [f"{NAMES[name]}, another seed" if name == FULL else NAMES.get(name, name) for name in names])
    return {name: place for place, name in enumerate(names)}


def _paper(ax: Axes, table: pd.DataFrame, places: dict[str, int], column: str, scale: float) -> None:
    own = _one_a_row(table)
    own = own[~own.index.isin(list(NAMES))]
    height = [places[name] for name in own.index]
    ax.plot(scale * own[column], height, "o", color="black", mfc="white", label="paper" if len(own) else None)


def _legend(ax: Axes) -> None:
    """Above the axes, to the right edge, so that the room over the names of the rows is used too."""
    if ax.get_legend_handles_labels()[0]:
        ax.legend(loc="lower right", bbox_to_anchor=(1.02, 1.0), ncols=2, frameon=False, borderaxespad=0.3)
