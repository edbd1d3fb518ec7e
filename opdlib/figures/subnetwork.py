"""Training inside a mask, over seeds and per distance; and what two runs changed in common, beside chance."""

import pandas as pd
from matplotlib.axes import Axes

from opdlib.figures.theme import DOTTED, GREY, INKS, OPD, PALE, RLVR, figure, legend_above, named_rows
from opdlib.registry.study import FULL
from opdlib.stats import mean_interval
from opdlib.tables.subnetwork.masked import TRAINS
from opdlib.tables.subnetwork.overlap import NAMES, OTHER_SEED, SAME_SEED

COLOURS = (OPD, "black", RLVR, GREY, INKS[1], INKS[2])
MARKS = {arm: (colour, marker) for arm, colour, marker in zip(TRAINS, COLOURS, "Dos^vP", strict=True)}
"""Arm -> colour and marker."""
PAPER = {"DS-Qwen OPD": "<", "Qwen2.5-VL OPD": ">"}
"""Setting of the paper -> marker, hollow."""
CHANCE = {"global": (GREY, "s"), "tensor": (INKS[2], "^"), "magnitude": (INKS[1], "v")}
"""Baseline -> colour and marker."""
SEEDS = {OTHER_SEED: (OPD, "o"), SAME_SEED: ("black", "D")}
"""Whether two runs share their seed -> colour and marker."""


@figure
def accuracy(table: pd.DataFrame, ax: Axes) -> None:
    """Accuracy of full OPD and of each mask with runs, in percent: every seed, their mean and its 95% interval.

    Table: `tables.subnetwork.masked.runs`. The dotted line is the source before training.
    """
    places = _arms(ax, table, [*TRAINS])
    for arm, place in places.items():
        own = table[table["arm"] == arm]["accuracy"]
        ax.plot(100 * own, [place + 0.22] * len(own), ".", color=MARKS[arm][0], alpha=0.6, ms=5)
        _mean(ax, place, arm, *mean_interval(own))
    for source in sorted(set(table["source_accuracy"])):
        ax.axvline(100 * source, **DOTTED)
        ax.annotate("source", (100 * source, 1), xycoords=("data", "axes fraction"), ha="center", va="bottom")
    _finish(ax, "held-out problems solved (%)")


@figure
def difference(table: pd.DataFrame, ax: Axes) -> None:
    """Accuracy of each mask minus that of full OPD, in points: mean over seeds with its 95% interval, beside the paper.

    Table: `tables.subnetwork.compared.differences`; the density is drawn beside the paper's. The grey band is full
    OPD's own range from seed to seed, within which an interval counts as the same.
    """
    places = _arms(ax, table, [*TRAINS][1:])
    here = table[table["setting"] == "here"]
    if here["span"].notna().any():
        span = 100 * float(here["span"].max())
        ax.axvspan(-span, span, color=PALE, lw=0, label="full OPD, seed to seed")
    ax.axvline(0, **DOTTED)
    for number, (arm, mean, low, high) in enumerate(here[["arm", "difference", "low", "high"]].to_numpy()):
        _mean(ax, places[arm], arm, mean, low, high, "here" if number == 0 else None)
    for number, (setting, marker) in enumerate(PAPER.items()):
        own = table[table["setting"] == setting]
        x, y = 100 * own["difference"], own["arm"].map(places) + 0.22 + 0.2 * number
        ax.plot(x, y, marker, color="black", mfc="white", ms=6, label=f"paper, {setting.removesuffix(' OPD')}")
        for place, density in zip(zip(x, y, strict=True), own["density"], strict=True):
            text = f"{100 * density:.3g}%"
            ax.annotate(text, place, (-6, 0), textcoords="offset points", ha="right", va="center", fontsize=11)
    ax.margins(x=0.12)
    _finish(ax, "accuracy minus full OPD's (points)")


@figure
def distance(table: pd.DataFrame, ax: Axes) -> None:
    """Accuracy in percent against the distance travelled, mean over seeds at every evaluation, the source first.

    Table: `tables.subnetwork.masked.along`.
    """
    for arm in [arm for arm in TRAINS if (table["arm"] == arm).any()]:
        own, (colour, marker) = table[table["arm"] == arm].groupby("step")[["distance", "accuracy"]].mean(), MARKS[arm]
        ax.plot(own["distance"], 100 * own["accuracy"], marker, ls="-", color=colour, ms=6, lw=1.5, label=TRAINS[arm])
    ax.set(xlabel="distance from the source, fp32", ylabel="held-out problems solved (%)")
    legend_above(ax)


@figure
def overlap(table: pd.DataFrame, ax: Axes) -> None:
    """Share of full OPD's changed weights that the other run changed too, in percent: mean and range over pairs of
    runs, with the share that each kind of chance gives (pairs of other seeds).

    Table: rows of `tables.subnetwork.overlap.by_comparison` at one threshold, and of its `published`.
    """
    table = _comparisons(ax, table)
    for seed, (colour, marker) in SEEDS.items():
        own = table[table["seed"] == seed]
        ax.plot(100 * own[["o1_low", "o1_high"]].to_numpy(float).T, [own["place"]] * 2, "-", color=colour, lw=2)
        label = f"here, {seed}" if len(own) else None
        ax.plot(100 * own["o1"], own["place"], marker, color=colour, label=label)
    rows = table[table["shown"]]
    paper = rows[rows["pair"].notna()]
    ax.plot(100 * paper["o1"], paper["place"], "o", color="black", mfc="white", label="paper" if len(paper) else None)
    for baseline, (colour, _) in CHANCE.items():
        at, label = 100 * rows[f"{baseline}_o1"], f"chance, {baseline}"
        ax.plot(at, rows["place"], "|", color=colour, ms=13, mew=3, label=label)
    ax.set_xlim(-2, 102)
    _finish(ax, "share of full OPD's changes (%)")


def _arms(ax: Axes, table: pd.DataFrame, arms: list[str]) -> dict[str, int]:
    """A row for each of these arms that the table has: arm -> place."""
    known = [arm for arm in arms if (table["arm"] == arm).any()]
    named_rows(ax, [TRAINS[arm] for arm in known])
    return {arm: place for place, arm in enumerate(known)}


def _mean(ax: Axes, place: int, arm: str, mean: float, low: float, high: float, label: str | None = None) -> None:
    colour, marker = MARKS[arm]
    ax.plot([100 * low, 100 * high], [place] * 2, "-", color=colour, lw=2)
    ax.plot(100 * mean, place, marker, color=colour, label=label)


def _comparisons(ax: Axes, table: pd.DataFrame) -> pd.DataFrame:
    """The table with a place for each name, and whether the row is shown alone: that of other seeds if there is one."""
    rows = table.sort_values("seed", key=lambda seed: seed != OTHER_SEED, kind="stable")
    own = rows.drop_duplicates("name").sort_index()
    names = list(own["name"])
    named_rows(ax, [f"{name}, another seed" if name == NAMES[FULL] else name for name in names])
    return rows.assign(place=rows["name"].map(names.index), shown=rows.index.isin(own.index)).sort_index()


def _finish(ax: Axes, label: str) -> None:
    ax.set_xlabel(label)
    legend_above(ax, right=True)
