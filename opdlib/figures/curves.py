"""Curves: sparsity against its threshold, and change against the size of the weight."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from opdlib.figures.theme import DOTTED, GREY, WHOLE, figure, legend_above, of_pairs, of_paper, of_views, power_of_two
from opdlib.quantities import short
from opdlib.tables.measured import WELL_POPULATED

SMALLEST_THRESHOLD = 1e-9
"""Below it the axis is linear, so that the threshold 0, the exact zero, has a place."""


@figure
def threshold_curve(table: pd.DataFrame, ax: Axes) -> None:
    """Share of weights that count as unchanged, in percent, against the threshold from exact zero up.

    Table: rows of `tables.curve` for each view (lines) and of `tables.paper.sparsity` (points, joined for each pair).
    """
    for paper, look in of_paper(table):
        for _, own in paper.groupby("pair", sort=False):
            line = own.sort_values("threshold")
            ax.plot(line["threshold"], 100 * line["share"], ".-", lw=0.8, **look)
            look["label"] = ""
    for own, style, look in of_views(table[table["origin"] == "here"]):
        ax.plot(own["threshold"], 100 * own["share"], style, **look)
    ax.set_xscale("symlog", linthresh=SMALLEST_THRESHOLD, linscale=0.4)
    ticks = [0, 1e-8, 1e-6, 1e-4, 1e-2]
    ax.set_xticks(ticks, ["0", *map(short, ticks[1:])])
    ax.set_xticks([], minor=True)
    ax.axvline(1e-5, **{**DOTTED, "lw": 0.8})
    ax.set(xlim=(-SMALLEST_THRESHOLD / 4, 1.6e-2), ylim=WHOLE)
    ax.set(xlabel="threshold on abs(delta), in units of a weight", ylabel="weights below the threshold (%)")
    legend_above(ax)


@figure
def magnitude(table: pd.DataFrame, ax: Axes) -> None:
    """Share of weights that changed, in percent, by binade of abs(source). Table: `tables.magnitude`, of any pairs.

    Hollow points are binades that are not well populated. `expected`, where it is known, is a dashed line. The axis on
    top gives half a bf16 ULP of each binade: a smaller change leaves the stored weight as it is. Weights that are zero
    have their place at the left end.
    """
    place, pairs = _binade(table["magnitude"]), of_pairs(table)
    for pair, own in table.groupby("pair", sort=False):
        at, colour = place[own.index], pairs[str(pair)]
        name = "measured" if len(pairs) < 2 else str(pair)
        if own["expected"].notna().any():
            expected = GREY if len(pairs) < 2 else colour
            ax.plot(at, 100 * own["expected"], "--", color=expected, label="expected" if len(pairs) < 2 else None)
        else:
            ax.plot(at, 100 * own["share"], "-", color=colour, lw=1)
        full = own["coordinate_share"] >= WELL_POPULATED
        for rows, fill, label in ((full, colour, name), (~full, "white", f"{name}, few weights")):
            ax.plot(at[rows], 100 * own["share"][rows], "o", color=colour, mfc=fill, label=label)
    every = [p for p in sorted(place) if p != place.min() or table["magnitude"].min() > 0]
    ticks = every[:: max(1, round(len(every) / 5))]
    names = [power_of_two(round(t)) for t in ticks]
    zero = [place.min()] if table["magnitude"].min() == 0 else []
    ax.set_xticks([*zero, *ticks], [*("0" for _ in zero), *names])
    ax.set(ylim=WHOLE, xlabel="abs(weight) in the source, by binade", ylabel="weights that changed (%)")
    top = ax.secondary_xaxis("top")
    top.set_xticks(ticks, [power_of_two(round(t) - 8) for t in ticks])
    top.set_xlabel("smallest visible change, half a bf16 ULP", color=GREY)
    top.tick_params(colors=GREY)
    legend_above(ax, columns=3, over=1.2)


def _binade(magnitudes: pd.Series) -> pd.Series:
    """Binary exponent of each magnitude; zero is put two steps below the smallest."""
    positive = magnitudes[magnitudes > 0]
    lowest = np.log2(positive.min()) - 2 if len(positive) else 0.0
    return pd.Series(np.log2(magnitudes.where(magnitudes > 0)), index=magnitudes.index).fillna(lowest)
