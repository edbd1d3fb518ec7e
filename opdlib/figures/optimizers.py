"""The optimizer ablation: learning, the state of AdamW, and what each optimizer gets for the way it goes.

Colour and marker say which optimizer, the line style says which of its rates, dotted being the smallest. A band goes
from the lowest to the highest seed; a bar is a 95% interval over seeds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator

from opdlib.figures.theme import BLUE, GREEN, GREY, ORANGE, WHOLE, band, figure, legend_above, panels, plain_axis
from opdlib.quantities import short
from opdlib.tables.optimizers.state import published_state, unrelated_cosine
from opdlib.tables.optimizers.sweep import OPTIMIZERS, published

STYLES = {"adamw": (BLUE, "o"), "rmsprop": (GREEN, "^"), "sgd": (ORANGE, "s"), "sgdm": (GREY, "D")}
"""Optimizer -> colour and marker."""
DASHES: Sequence[Any] = (":", "-.", "--", "-", (0, (3, 1, 1, 1, 1, 1)), (0, (1, 4)))
"""Line styles of the rates of an optimizer, from the smallest."""
SIZES, LINES = {"adamw": 10, "rmsprop": 5}, {"rmsprop": "--"}
"""Markers and lines where RMSProp may lie on AdamW."""
HEIGHT = 2.9
"""Inches of one of several panels."""


@figure
def rates(table: pd.DataFrame, ax: Axes) -> None:
    """Accuracy at the end against the learning rate (logarithmic), in percent: mean and interval over seeds.

    Table: `optimizers.wide` of accuracy and source_accuracy. Dashed: the source. Hollow: the paper's two scores, which
    are of another task.
    """
    ours, source = (table[table["quantity"] == q] for q in ("accuracy", "source_accuracy"))
    for optimizer, own in _each(ours):
        colour, marker = STYLES[optimizer]
        middle, at = 100 * own["value"], own["learning_rate"]
        error = np.nan_to_num([middle - 100 * own["low"], 100 * own["high"] - middle])
        style: dict[str, Any] = {"marker": marker, "ms": SIZES.get(optimizer, 7), "ls": LINES.get(optimizer, "-")}
        ax.errorbar(at, middle, error, color=colour, capsize=3, lw=1.4, label=OPTIMIZERS[optimizer], **style)
    for number, row in enumerate(published().to_dict("records")):
        colour, marker = STYLES[row["optimizer"].split()[0].lower()]
        label = "" if number else "paper, its own task"
        score = [float(row["learning_rate"])], [100 * row["final"]]
        ax.plot(*score, marker, mfc="white", mec=colour, color=colour, ms=9, ls="", label=label)
    if len(source):
        ax.axhline(100 * source["value"].mean(), color="black", ls="--", lw=1, label="source")
    ax.set_xscale("log")
    ax.set(ylim=(0, 100), xlabel="learning rate", ylabel="accuracy at the end (%)")
    legend_above(ax, columns=3)


def accuracy(table: pd.DataFrame) -> Axes:
    """Accuracy against the step, one panel an optimizer: mean and band. Table: `optimizers.learning`, labelled."""
    return _by_optimizer(table, "accuracy (%)", 100)


def loss(table: pd.DataFrame) -> Axes:
    """Loss against the step, in means of ten steps, one panel an optimizer. Table: `optimizers.learning`, labelled."""
    return _by_optimizer(table, "loss (nats per token)", 1)


def state(cosine: pd.DataFrame, variation: pd.DataFrame) -> Axes:
    """AdamW's momentum cosine (above) and variation of sqrt(v) (below) against the step, mean and band over seeds.

    Tables: `optimizers.learning` of each, labelled. The paper's first and last value are hollow diamonds at the ends of
    the run, its mean a dotted line. Dash-dotted in black: the cosine of unrelated gradients.
    """
    upper, lower = panels(2)
    drawn = (cosine, "momentum_cosine", "momentum cosine"), (variation, "second_moment_cv", "CV of sqrt(v)")
    for ax, (table, quantity, title) in zip((upper, lower), drawn, strict=True):
        _lines(table[table["optimizer"] == "adamw"], ax, 1, marker=False)
        last = float(table["step"].max()) if len(table) else 150.0
        paper = published_state(quantity)
        ends = [1, last], [paper["first"], paper["last"]]
        ax.plot(*ends, "D", color="black", mfc="white", ls="", label="paper, first and last", zorder=4, clip_on=False)
        ax.axhline(paper["mean"], color="black", ls=":", lw=1.2, label="paper, mean")
        if quantity == "momentum_cosine":
            steps = np.arange(1, int(last) + 1)
            null = [unrelated_cosine(float(step)) for step in steps]
            ax.plot(steps, null, "-.", color="black", lw=1.2, label="unrelated gradients")
        ax.set(xlabel="update", ylabel=title)
        legend_above(ax, columns=2)
    return upper


def path(table: pd.DataFrame) -> Axes:
    """Accuracy, unchanged weights and top-16 energy against the relative norm, one line a rate along its updates.

    Table: `study.over_seeds` of the numbers of `optimizers.paths` by arm and step, labelled, wide: columns optimizer,
    learning_rate, step, rel_norm, accuracy, exact_zero, svd_energy.16. The larger point is the end of the run.
    """
    columns = {
        "accuracy": "accuracy (%)",
        "exact_zero": "unchanged weights, bf16 (%)",
        "svd_energy.16": "energy in the first 16 (%)",
    }
    axes = _panels(len(columns))
    for number, (ax, (column, title)) in enumerate(zip(axes, columns.items(), strict=True)):
        for optimizer, own in _each(table):
            colour, marker = STYLES[optimizer]
            for place, (_, run) in enumerate(own.groupby("learning_rate", sort=True)):
                line = run.sort_values("step")
                at, value = 100 * line["rel_norm"], 100 * line[column]
                label = "" if place or number else OPTIMIZERS[optimizer]
                ax.plot(at, value, marker, ls="-", lw=1, ms=4, color=colour, mec="white", mew=0.5)
                ax.plot(at.iloc[-1:], value.iloc[-1:], marker, color=colour, ms=8, mec="white", ls="", label=label)
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        plain_axis(ax.xaxis, minor=False)
        ax.set(xlabel="relative norm of the change (%)", ylabel=title, ylim=WHOLE)
    legend_above(axes[0], columns=2)
    return axes[0]


def _by_optimizer(table: pd.DataFrame, title: str, scale: float) -> Axes:
    present = [optimizer for optimizer, _ in _each(table)]
    axes = _panels(max(len(present), 1))
    top = scale * table["high"].max() if len(table) else scale
    for ax, optimizer in zip(axes, present, strict=False):
        _lines(table[table["optimizer"] == optimizer], ax, scale)
        ax.set(ylim=(0, 1.08 * top), ylabel=title)
        legend_above(ax, columns=2)
    axes[-1].set_xlabel("update")
    return axes[0]


def _lines(table: pd.DataFrame, ax: Axes, scale: float, marker: bool = True) -> None:
    for optimizer, own in _each(table):
        colour, sign = STYLES[optimizer]
        for dashes, (rate, run) in zip(DASHES, own.groupby("learning_rate", sort=True), strict=False):
            line = run.sort_values("step")
            label = f"{OPTIMIZERS[optimizer]} {short(float(str(rate)))}"
            few = sign if marker and len(line) < 8 else ""
            ax.plot(line["step"], scale * line["value"], ls=dashes, marker=few, ms=5, color=colour, label=label, lw=1.6)
            band(ax, line["step"], line, scale, color=colour, alpha=0.12)


def _each(table: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """The optimizers of a table in the order of the page, with their rows."""
    for optimizer in OPTIMIZERS:
        own = table[table["optimizer"] == optimizer]
        if len(own):
            yield optimizer, own


def _panels(count: int) -> list[Axes]:
    axes = panels(count)
    canvas = axes[0].get_figure()
    if canvas is not None:
        canvas.set_size_inches(canvas.get_figwidth(), HEIGHT * count + 0.6)  # type: ignore[union-attr]
    return axes
