"""The optimizer ablation: learning, the state of AdamW, and what each optimizer gets for the way it goes.

Colour and marker say which optimizer, the shade says which of its rates, light being the smallest. A band goes
from the lowest to the highest seed; a bar is a 95% interval over seeds.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator

from opdlib.figures.theme import AT_EDGE, OPD, WHOLE, band, figure, legend_above, named, plain_axis, ramp
from opdlib.quantities import label, short
from opdlib.tables.optimizers.state import STATES, published_state, unrelated_cosine
from opdlib.tables.optimizers.sweep import OPTIMIZERS, published

STYLES: Mapping[Any, Any] = {
    "adamw": (OPD, "o"),
    "rmsprop": ("#5B4FA2", "^"),
    "sgd": ("#B07C00", "s"),
    "sgdm": ("#6B5A3E", "D"),
}
"""Optimizer -> colour and marker: OPD trains with AdamW, so that has its colour."""
DASHES: Sequence[Any] = ("-", "-.", "--")
"""Line styles of the rates of an optimizer, in turn."""
SIZES: Mapping[Any, int] = {"adamw": 10, "rmsprop": 5}
"""Of markers, where RMSProp may lie on AdamW."""
UNDER = ("rmsprop", "sgd")
"""Optimizers whose name stands under their largest rate; the others have it over their best."""


@figure
def rates(table: pd.DataFrame, ax: Axes) -> None:
    """Accuracy at the end against the learning rate (logarithmic), in percent: mean and interval over seeds.

    Table: `sweep.wide` of accuracy and source_accuracy. Dashed: the source. Hollow: the paper's two scores, which are
    of another task.
    """
    ours, source = (table[table["quantity"] == q] for q in ("accuracy", "source_accuracy"))
    for optimizer, own in ours.groupby("optimizer", sort=False):
        colour, marker = STYLES[optimizer]
        middle = 100 * own["value"]
        error = np.nan_to_num([middle - 100 * own["low"], 100 * own["high"] - middle])
        look = {"marker": marker, "ms": SIZES.get(optimizer, 7), "ls": "--" if optimizer == "rmsprop" else "-"}
        ax.errorbar(own["learning_rate"], middle, error, **look, color=colour, capsize=3, lw=1.4)
        if optimizer in UNDER:
            at, foot, above = middle.index[-1], middle - error[0], -15
        else:
            at, foot, above = middle.idxmax(), middle + error[1], 7
        named(ax, OPTIMIZERS[optimizer], own["learning_rate"][at], foot[at], above, colour)
    for row in published().to_dict("records"):
        colour, marker = STYLES[row["optimizer"].split()[0].lower()]
        ax.plot(row["learning_rate"], 100 * row["final"], marker, mfc="white", color=colour, ms=9, ls="")
        named(ax, "paper", row["learning_rate"], 100 * row["final"], 8, colour)
    if len(source):
        ax.axhline(100 * source["value"].mean(), color="black", ls="--", lw=1)
        ax.annotate("source", (1, 100 * source["value"].mean()), (0, 3), xycoords=("axes fraction", "data"), **AT_EDGE)
    ax.set_xscale("log")
    ax.margins(x=0.1)
    plain_axis(ax.xaxis, minor=False)
    ax.set(ylim=(0, 100), xlabel="learning rate", ylabel="accuracy at the end (%)")


@figure
def state(table: pd.DataFrame, ax: Axes) -> None:
    """One of `STATES` of AdamW, in the column quantity, against the update: mean and band over seeds.

    Table: `sweep.learning`. The paper's first and last value are hollow diamonds at the ends of the run, its mean a
    dotted line. Dash-dotted in black: the cosine of unrelated gradients.
    """
    quantity = str(table["quantity"].iloc[0]) if len(table) else STATES[0]
    _lines(table[table["optimizer"] == "adamw"], ax)
    last = float(table["step"].max()) if len(table) else 150.0
    paper = published_state(quantity)
    ends = [1, last], [paper["first"], paper["last"]]
    ax.plot(*ends, "D", color="black", mfc="white", ls="", label="paper, first and last", zorder=4, clip_on=False)
    ax.axhline(paper["mean"], color="black", ls=":", lw=1.2, label="paper, mean")
    if quantity == "momentum_cosine":
        steps = range(1, int(last) + 1)
        ax.plot(steps, [*map(unrelated_cosine, steps)], "-.", color="black", lw=1.2, label="unrelated gradients")
    ax.set(xlabel="update", ylabel=label(quantity))
    legend_above(ax)


@figure
def path(table: pd.DataFrame, ax: Axes) -> None:
    """One number, in the column quantity, against the relative norm in percent, one line a rate along its updates.

    Table: `sweep.path_means`, with value. The larger point is the end of the run.
    """
    names = dict(OPTIMIZERS)
    for (optimizer, _), line in table.groupby(["optimizer", "learning_rate"], sort=False):
        (colour, marker), name = STYLES[optimizer], names.pop(optimizer, "")
        at, value = 100 * line["rel_norm"], 100 * line["value"]
        ax.plot(at, value, marker, ls="-", lw=1, ms=4, color=colour, mec="white", mew=0.5)
        ax.plot(at.iloc[-1:], value.iloc[-1:], marker, color=colour, ms=8, mec="white", ls="", label=name)
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    plain_axis(ax.xaxis, minor=False)
    drawn = str(table["quantity"].iloc[0]) if len(table) else "accuracy"
    ax.set(xlabel="relative norm of the change (%)", ylabel=f"{label(drawn)} (%)", ylim=WHOLE)
    legend_above(ax)


def _lines(table: pd.DataFrame, ax: Axes) -> None:
    """One line a rate of a single optimizer, light for the smallest."""
    rated = [*table.groupby(["optimizer", "learning_rate"], sort=False)]
    ends = " to ".join(dict.fromkeys(short(rate) for (_, rate), _ in (*rated[:1], *rated[-1:])))
    called = f"{OPTIMIZERS[rated[0][0][0]]}, {ends}" if rated else ""
    for number, ((optimizer, _), line) in enumerate(rated):
        colour, dashes = ramp(STYLES[optimizer][0], len(rated))[number], DASHES[number % len(DASHES)]
        ax.plot(line["step"], line["value"], ls=dashes, color=colour, label="" if number else called, lw=1.6)
        band(ax, line["step"], line, 1.0, color=colour, alpha=0.12)
