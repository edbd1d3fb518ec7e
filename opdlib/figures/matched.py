"""Matched arms: differences in units of what seeds make, numbers against the norm, and the paper's contrast."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator

from opdlib.figures.theme import GREY, INKS, OFFLINE, OPD, RLVR, figure, legend_above, named_rows, panels, plain_axis
from opdlib.quantities import label, quantity

GROUPS = {"opd": (OPD, "o"), "opd-ce": (OPD, "v"), "offline-rkl": (OFFLINE, "s"), "offline": (OFFLINE, "^")}
GROUPS |= {"OPD, any rate": (OPD, "o"), "other regimes": (RLVR, "s")}
GROUPS |= {"offline-1e-4": (OFFLINE, "P"), "offline-long": (OFFLINE, "D"), "paper": ("black", "+")}
"""Arm, or group of arms -> colour and marker: the student's samples have OPD's colour, the teacher's that of offline
distillation, and the marker says which loss."""
CHANGES = {"data and loss": (INKS[1], "^"), "rate and length": (INKS[2], "D")}
CHANGES |= {"all of it": (INKS[0], "o"), "paper": (GREY, "s")}
"""What changes between OPD and offline distillation -> colour and marker."""


def rows(count: int) -> Axes:
    """Axes that are high enough for `count` rows of names, 0.42 inches each."""
    return panels(1, 1.5 + 0.42 * count)[0]


@figure
def against_norm(table: pd.DataFrame, ax: Axes) -> None:
    """One number against the relative norm of the update (logarithmic), along training.

    Table: `opdlib.tables.matched.norm.drawn` or `drawn_together`. A line is a run, a point a step whose weights were
    measured; the paper's pairs are single points.
    """
    drawn = quantity(str(table["quantity"].iloc[0])) if len(table) else None
    scale = drawn.scale if drawn else 1.0
    for group, own in table.groupby("group", sort=False):
        colour, marker = GROUPS.get(str(group), (GREY, "o"))
        if group == "paper":
            ax.plot(100 * own["rel_norm"], scale * own["value"], marker, color=colour, mew=2, label="paper's pairs")
            continue
        for number, (_, run) in enumerate(own.groupby(["arm", "seed"], sort=False)):
            line = run.sort_values("step")
            at, value, name = 100 * line["rel_norm"], scale * line["value"], "" if number else str(group)
            ax.plot(at, value, f"{marker}-", color=colour, label=name, lw=0.8, ms=5, alpha=0.75)
    ax.set_xscale("log")
    norms = 100 * table["rel_norm"].astype(float)
    wide = len(norms) > 0 and norms.max() > 8 * norms.min()
    ax.xaxis.set_major_locator(LogLocator(subs=[1.0] if wide else [1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0]))
    plain_axis(ax.xaxis, minor=False)
    ax.set(xlabel=quantity("rel_norm").axis, ylabel=f"{drawn.label}{drawn.unit}" if drawn else "number")
    legend_above(ax)


@figure
def contrast(table: pd.DataFrame, ax: Axes) -> None:
    """By which factor each step from OPD to offline distillation multiplies each number, on a logarithmic axis.

    Table: `opdlib.tables.matched.paper.factors`. Bars: 95% intervals over seeds; for the paper the span over its
    OPD-style pairs.
    """
    place = {key: row for row, key in enumerate(dict.fromkeys(table["quantity"]))}
    named_rows(ax, [*map(label, place)])
    ax.axvline(1, color="black", lw=0.8)
    for number, (change, (colour, marker)) in enumerate(CHANGES.items()):
        own = table[table["change"] == change].dropna(subset=["value"])
        height = own["quantity"].map(place).astype(float) + 0.2 * (number - 1.5)
        ax.hlines(height, own["low"], own["high"], color=colour, lw=1.6)
        ax.plot(own["value"], height, marker, color=colour, ms=6, label=change if len(own) else "")
    ax.set_xscale("log")
    ends = table[["value", "low", "high"]].to_numpy(dtype=float)
    if np.isfinite(ends).any():
        ax.set_xlim(min(np.nanmin(ends), 0.5) / 1.3, max(np.nanmax(ends), 2) * 1.3)
    plain_axis(ax.xaxis, minor=False)
    ax.set(xlabel="factor", ylabel="number")
    legend_above(ax)
