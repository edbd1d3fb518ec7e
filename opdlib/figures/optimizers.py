"""The optimizer ablation: learning, the state of AdamW, and what each optimizer gets for the way it goes.

Colour and marker say which optimizer, the shade says which of its rates, light being the smallest. A band goes
from the lowest to the highest seed; a bar is a 95% interval over seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator

from opdlib.figures.theme import OPD, WHOLE, band, figure, legend_above, panels, plain_axis, ramp
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
ALONG = {"accuracy": "accuracy (%)", "exact_zero": "unchanged weights, bf16 (%)"}
ALONG |= {"svd_energy.16": "energy in the first 16 (%)"}
"""What `path` draws -> its axis."""


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
        bars = {"color": colour, "capsize": 3, "lw": 1.4, "label": OPTIMIZERS[optimizer]}
        ax.errorbar(own["learning_rate"], middle, error, **look, **bars)
    for number, row in enumerate(published().to_dict("records")):
        colour, marker = STYLES[row["optimizer"].split()[0].lower()]
        name = "" if number else "paper, its own task"
        ax.plot(row["learning_rate"], 100 * row["final"], marker, mfc="white", color=colour, ms=9, ls="", label=name)
    if len(source):
        ax.axhline(100 * source["value"].mean(), color="black", ls="--", lw=1, label="source")
    ax.set_xscale("log")
    plain_axis(ax.xaxis, minor=False)
    ax.set(ylim=(0, 100), xlabel="learning rate", ylabel="accuracy at the end (%)")
    legend_above(ax, columns=3)


def accuracy(table: pd.DataFrame) -> Axes:
    """Accuracy against the step, one panel an optimizer: mean and band. Table: `sweep.learning`."""
    return _by_optimizer(table, "accuracy (%)", 100)


def loss(table: pd.DataFrame) -> Axes:
    """Loss against the step, in means of ten steps, one panel an optimizer. Table: `sweep.learning`."""
    return _by_optimizer(table, "loss (nats per token)", 1)


def state(cosine: pd.DataFrame, variation: pd.DataFrame) -> Axes:
    """AdamW's momentum cosine (above) and variation of sqrt(v) (below) against the step, mean and band over seeds.

    Tables: `sweep.learning` of each. The paper's first and last value are hollow diamonds at the ends of the run, its
    mean a dotted line. Dash-dotted in black: the cosine of unrelated gradients.
    """
    axes = panels(2)
    for ax, table, quantity in zip(axes, (cosine, variation), STATES, strict=True):
        _lines(table[table["optimizer"] == "adamw"], ax, 1, marker=False)
        last = float(table["step"].max()) if len(table) else 150.0
        paper = published_state(quantity)
        ends = [1, last], [paper["first"], paper["last"]]
        ax.plot(*ends, "D", color="black", mfc="white", ls="", label="paper, first and last", zorder=4, clip_on=False)
        ax.axhline(paper["mean"], color="black", ls=":", lw=1.2, label="paper, mean")
        if quantity == "momentum_cosine":
            steps = range(1, int(last) + 1)
            ax.plot(steps, [*map(unrelated_cosine, steps)], "-.", color="black", lw=1.2, label="unrelated gradients")
        ax.set(xlabel="update", ylabel=label(quantity))
        legend_above(ax, columns=2)
    return axes[0]


def path(table: pd.DataFrame) -> Axes:
    """Accuracy, unchanged weights and top-16 energy against the relative norm, one line a rate along its updates.

    Table: `sweep.path_means`. The larger point is the end of the run.
    """
    axes = panels(len(ALONG), 2.9 * len(ALONG) + 0.6)
    for ax, (column, title) in zip(axes, ALONG.items(), strict=True):
        names = dict(OPTIMIZERS)
        for (optimizer, _), line in table.groupby(["optimizer", "learning_rate"], sort=False):
            (colour, marker), name = STYLES[optimizer], names.pop(optimizer, "")
            at, value = 100 * line["rel_norm"], 100 * line[column]
            ax.plot(at, value, marker, ls="-", lw=1, ms=4, color=colour, mec="white", mew=0.5)
            ax.plot(at.iloc[-1:], value.iloc[-1:], marker, color=colour, ms=8, mec="white", ls="", label=name)
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        plain_axis(ax.xaxis, minor=False)
        ax.set(xlabel="relative norm of the change (%)", ylabel=title, ylim=WHOLE)
    legend_above(axes[0], columns=2)
    return axes[0]


def _by_optimizer(table: pd.DataFrame, title: str, scale: float) -> Axes:
    count = max(table["optimizer"].nunique(), 1)
    axes = panels(count, 2.9 * count + 0.6)
    top = scale * table["high"].max() if len(table) else scale
    for ax, (_, own) in zip(axes, table.groupby("optimizer", sort=False), strict=False):
        _lines(own, ax, scale)
        ax.set(ylim=(0, 1.08 * top), ylabel=title)
        legend_above(ax, columns=2)
    axes[-1].set_xlabel("update")
    return axes[0]


def _lines(table: pd.DataFrame, ax: Axes, scale: float, marker: bool = True) -> None:
    """One line a rate of a single optimizer."""
    rated = [*table.groupby(["optimizer", "learning_rate"], sort=False)]
    for number, ((optimizer, _), line) in enumerate(rated):
        sign = STYLES[optimizer][1]
        colour, dashes = ramp(STYLES[optimizer][0], len(rated))[number], DASHES[number % len(DASHES)]
        called = f"{OPTIMIZERS[optimizer]} {short(line['learning_rate'].iloc[0])}"
        few = sign if marker and len(line) < 8 else ""
        ax.plot(line["step"], scale * line["value"], ls=dashes, marker=few, ms=5, color=colour, label=called, lw=1.6)
        band(ax, line["step"], line, scale, color=colour, alpha=0.12)
