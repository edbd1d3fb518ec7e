"""A training on its way: how large and how concentrated its update is, and when its directions are those of the end."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from opdlib.figures.theme import DOTTED, GREY, LIGHT, REGIMES, VIEWS, WHOLE, legend_above, panels
from opdlib.quantities import quantity

DRAWN = ("rel_norm", "exact_zero", "stable_rank", "svd_energy.16")
"""What `size` draws, from above."""
FULL = ("exact_zero", "svd_energy.16")
"""Shares whose axis is drawn from none to all."""
CONTROLS = {"locking_norms": ("same norms", LIGHT, ":"), "locking_spectra": ("same spectra", GREY, "-.")}
"""Control -> its name, colour and style."""


def size(table: pd.DataFrame, keys: Sequence[str] = DRAWN) -> Axes:
    """Norm, share unchanged, stable rank and energy of the first 16 against the step; a colour a run, a style a view.

    Table: `opdlib.tables.trajectory.steps`, or `opdlib.tables.trajectory.followed`. Other numbers by their `keys`.
    """
    axes = panels(len(keys), 2.7 * len(keys) + 0.6)
    for ax, key in zip(axes, keys, strict=True):
        drawn = quantity(key)
        for (arm, regime, _, view), run in table.groupby(["arm", "regime", "seed", "view"], sort=False):
            colour, marker = REGIMES.get(str(regime), (GREY, "o"))
            look: dict[str, Any] = {"color": colour, "marker": marker, "ms": 4, "lw": 1.4, "label": f"{arm}, {view}"}
            ax.plot(run["step"], drawn.scale * run[key], ls=VIEWS[str(view)][1], **look)
        ax.set(ylabel=drawn.axis)
        ax.set_xlim(left=0)
        ax.set_ylim(bottom=0)
        if key in FULL:
            ax.set_ylim(WHOLE)
    axes[-1].set_xlabel("update")
    legend_above(axes[0], columns=2)
    return axes[0]


def locking(table: pd.DataFrame) -> Axes:
    """Similarity of the right subspace to that of the end, a panel a run: every view, and the controls where there are
    any; last, the cosine of successive strides of every run, in view `stored` where it has one.

    Table: `opdlib.tables.trajectory.steps`, or `opdlib.tables.trajectory.followed`.
    """
    runs = [*table.groupby(["arm", "seed"], sort=False)]
    axes = panels(len(runs) + 1, 2.7 * (len(runs) + 1) + 0.6)
    for ax, ((arm, _), run) in zip(axes, runs, strict=False):
        for view, own in run.groupby("view", sort=False):
            colour, style = VIEWS[str(view)]
            ax.plot(own["step"], 100 * own["locking.right"], ls=style, color=colour, label=f"measured, {view}")
        for key, (name, colour, style) in CONTROLS.items():
            drawn = run.dropna(subset=[column]) if (column := f"{key}.right") in run else run[:0]
            if len(drawn):
                ax.plot(drawn["step"], 100 * drawn[column], ls=style, color=colour, lw=2, label=name)
        ax.set(xlim=(0, None), ylim=WHOLE, ylabel=f"{arm}: similarity (%)")
    for (arm, regime, _), run in table.groupby(["arm", "regime", "seed"], sort=False):
        view = "stored" if "stored" in set(run["view"]) else run["view"].iloc[0]
        colour, marker = REGIMES.get(str(regime), (GREY, "o"))
        own = run[run["view"] == view]
        axes[-1].plot(own["step"], own["step_cosine"], color=colour, marker=marker, ms=4, lw=1.4, label=str(arm))
    axes[-1].axhline(0, **DOTTED)
    axes[-1].set(xlabel="update", ylabel="cosine of strides", xlim=(0, None))
    legend_above(axes[0], columns=2)
    legend_above(axes[-1], columns=3)
    return axes[0]
