"""Where an update points and which weights it reaches, always beside chance."""

from collections.abc import Hashable
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from opdlib.figures.dots import dots
from opdlib.figures.theme import DOTTED, GREY, INKS, WHOLE, figure, legend_above, of_paper, of_views, plain_axis
from opdlib.quantities import quantity, short_percent
from opdlib.tables.paper_geometry import SIZES

SIDES = {"joint": (INKS[0], "o"), "left": (INKS[1], "s"), "right": (INKS[2], "^")}
MASKS = {"principal": (INKS[0], "s"), "low": (INKS[1], "o")}
"""Side, or mask -> colour and marker."""


@figure
def pair_projection(table: pd.DataFrame, ax: Axes) -> None:
    """Joint projection of every pair at 10% of rank, in percent, logarithmic, with a bar where chance would put it.

    Table: `paper_geometry.projection`, and ours in the same columns.
    """
    places = dots(ax, table, "pair", "value", "projection.joint.0.1")
    known = table.dropna(subset=["expected"]).drop_duplicates("pair")
    height = known["pair"].map(places)
    ax.plot(100 * known["expected"], height, "|", color="black", ms=14, mew=2.5, label="chance")
    ax.set_xscale("log")
    drawn = 100 * pd.concat([table["value"], known["expected"]])
    low, high = drawn[drawn > 0].min() / 1.4, 1.4 * drawn.max()
    ticks = [digit * 10.0**power for power in range(-6, 3) for digit in (1, 2, 5)]
    ax.set_xticks([t for t in ticks if low <= t <= high])
    plain_axis(ax.xaxis)
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xlim(low, high)
    legend_above(ax, right=True)


@figure
def projection_ratio(table: pd.DataFrame, ax: Axes) -> None:
    """Projection over its isotropic expectation, by share of rank: median and quartiles over matrices, logarithmic.

    Table: `subspace.projection` of each view; filled points are view bf16, hollow ones any other. Markers are sides,
    and so are colours unless there are several pairs.
    """
    shares = sorted(set(table["share"]))
    groups = [(side, *which) for side in SIDES for which in of_views(table)]
    several = len(set(table["pair"])) > 1
    for number, (side, rows, _, look) in enumerate(groups):
        own, view = rows[rows["side"] == side], rows["view"].iloc[0]
        at = own["share"].map(shares.index) + 0.7 * ((number + 0.5) / len(groups) - 0.5)
        colour, marker = SIDES[side]
        colour, which = (look["color"], look["label"]) if several else (colour, view)
        reach = [own["ratio"] - own["ratio_low"], own["ratio_high"] - own["ratio"]]
        fill = colour if view == "bf16" else "white"
        style: dict[str, Any] = {"color": colour, "mfc": fill, "ms": 6, "elinewidth": 1.5}
        ax.errorbar(at, own["ratio"], reach, fmt=marker, label=f"{side}, {which}", **style)
    ax.axhline(1, **DOTTED)
    ax.set_yscale("log", base=2)
    low, high = table["ratio_low"].min(), table["ratio_high"].max()
    exponents = range(
        int(np.floor(np.log2(low))) if low > 0 else -1, (int(np.ceil(np.log2(high))) if high > 0 else 1) + 1
    )
    ax.set_yticks([2.0**e for e in exponents], [f"{2.0**e:g}" for e in exponents])
    ax.set_xticks(range(len(shares)), [short_percent(share) for share in shares])
    ax.set(xlabel="leading directions, share of rank", ylabel="projection over chance")
    legend_above(ax, columns=3)


@figure
def pair_principal(table: pd.DataFrame, ax: Axes) -> None:
    """Share of every pair's changed weights that lie in the principal mask of a tenth, in percent.

    Table: `paper_geometry.coverage` and `geometry.overview` of the same columns. Dotted: the size of the mask, which is
    what chance would give.
    """
    _pair_coverage(ax, table, "coverage.principal.0.1")
    reach = max(12, 110 * table["coverage.principal.0.1"].max())
    ax.set_xlim(-reach / 60, reach)


@figure
def pair_low(table: pd.DataFrame, ax: Axes) -> None:
    """Share of every pair's changed weights that are among the smallest tenth, in percent, below its ceiling (a bar).

    Table: as for `pair_principal`.
    """
    places = _pair_coverage(ax, table, "coverage.low.0.1")
    bf16 = table[table["view"] == "bf16"]
    ceilings = bf16.set_index("pair")["coverage_ceiling.0.1"].dropna()
    ax.plot(100 * ceilings, ceilings.index.map(places), "|", color="black", ms=14, mew=2.5, label="ceiling")
    ax.set_xlabel("low-magnitude coverage at 10% (%)", loc="right")
    legend_above(ax, right=True)


@figure
def coverage(table: pd.DataFrame, ax: Axes) -> None:
    """Coverage of both masks in percent, by their size, between chance (dotted) and ceiling (grey).

    Table: `subspace.coverage` of each view, at one atol. Markers are masks, and so are colours unless there are several
    pairs.
    """
    reach = max(table["share"].max(), 0.01)
    ax.plot([0, 100 * reach], [0, 100 * reach], label="chance", **DOTTED)
    several = len(set(table["pair"])) > 1
    for own, style, look in of_views(table):
        which = look["label"] if several else own["view"].iloc[0]
        one = own[own["mask"] == "low"]
        ax.plot(100 * one["share"], 100 * one["ceiling"], style, color=GREY, label=f"ceiling, {which}")
        for mask, (ink, marker) in MASKS.items():
            one, colour = own[own["mask"] == mask], look["color"] if several else ink
            label = f"{mask}, {which}"
            ax.plot(100 * one["share"], 100 * one["coverage"], f"{marker}{style}", color=colour, ms=6, label=label)
    ax.set(xlim=(0, 104 * reach), ylim=WHOLE, xticks=[100 * share for share in sorted(set(table["share"]))])
    ax.set(xlabel="size of the mask (% of the weights)", ylabel="changed weights in the mask (%)")
    legend_above(ax)


@figure
def changed_by_size(table: pd.DataFrame, ax: Axes) -> None:
    """P(changed) in percent, by size of the weight, and in the principal mask.

    Table: `paper_geometry.changed` and `subspace.changed` of each view.
    """
    sizes, principal = [*SIZES][1:-1], [*SIZES][-1]
    place = range(len(sizes))
    for paper, look in of_paper(table):
        for _, row in paper.iterrows():
            ax.plot(place, 100 * row[sizes].astype(float), ".-", lw=0.8, **look)
            ax.plot(len(sizes), 100 * row[principal], ".", color=look["color"])
            look["label"] = ""
    for own, style, look in of_views(table[table["origin"] == "here"]):
        fill = look["color"] if own["view"].iloc[0] == "bf16" else "white"
        for _, row in own.iterrows():
            ax.plot(place, 100 * row[sizes].astype(float), f"o{style}", mfc=fill, **look)
            ax.plot(len(sizes), 100 * row[principal], "o", mfc=fill, color=look["color"])
    ax.axvline(len(sizes) - 0.5, color="black", lw=0.8)
    ax.set_xticks(range(len(sizes) + 1), [SIZES[key].replace(" ", "\n") for key in [*sizes, principal]])
    ax.set(ylim=WHOLE, xlabel="weights, by absolute value in the source", ylabel="weights that changed (%)")
    legend_above(ax)


def _pair_coverage(ax: Axes, table: pd.DataFrame, key: str) -> dict[Hashable, int]:
    places = dots(ax, table, "pair", key, key)
    ax.axvline(100 * float(quantity(key).chance), label="chance", **DOTTED)
    legend_above(ax, right=True)
    return places
