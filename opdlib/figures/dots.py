"""One number a row, as dots: the paper's pairs by regime, and the pair that was measured here."""

from collections.abc import Hashable

import pandas as pd
from matplotlib.axes import Axes

from opdlib.checkpoints.names import BLOCKS
from opdlib.figures.theme import HERE, WHOLE, figure, legend_above, named_rows, of_regimes, of_views, plain_axis
from opdlib.quantities import quantity

SMALLEST_NORM, SMALLEST_BLOCK_NORM = 1e-2, 1e-4
"""Percent; below it the axis of norms is linear, so that a zero can be drawn."""


@figure
def pair_sparsity(table: pd.DataFrame, ax: Axes) -> None:
    """Share of weights with abs(delta) <= atol of every pair, in percent. Table: `overview`, the paper's and ours."""
    dots(ax, table, "pair", "sparsity", f"sparsity.{table['atol'].iloc[0]:.0e}")
    legend_above(ax, right=True)


@figure
def pair_norm(table: pd.DataFrame, ax: Axes) -> None:
    """Relative norm of every pair's update in percent, on a logarithmic axis. Table as for `pair_sparsity`."""
    dots(ax, table, "pair", "rel_norm", "rel_norm")
    _norm_axis(ax, SMALLEST_NORM, table)


@figure
def block_norm(table: pd.DataFrame, ax: Axes) -> None:
    """Relative norm of each block in percent, beside the paper's Table 3 of v2. Table: `paper.blocks`, `movement`."""
    dots(ax, table, "block", "rel_norm", "blocks.mlp.rel_norm", shift=0.22)
    _norm_axis(ax, SMALLEST_BLOCK_NORM, table)
    legend_above(ax, right=True)


@figure
def block_energy(table: pd.DataFrame, ax: Axes) -> None:
    """Share of each block in the squared delta in percent, beside the paper's Table 3 of v1. Table: as `block_norm`."""
    dots(ax, table, "block", "energy_share", "blocks.mlp.energy_share", shift=0.22)


def _norm_axis(ax: Axes, smallest: float, table: pd.DataFrame) -> None:
    ax.set_xscale("symlog", linthresh=smallest, linscale=0.5)
    plain_axis(ax.xaxis)
    ax.set_xlim(-smallest / 4, 1.6 * max(100 * table["rel_norm"].max(), smallest))


def dots(ax: Axes, table: pd.DataFrame, rows: str, column: str, key: str, shift: float = 0.0) -> dict[Hashable, int]:
    """One column against the rows, pairs as they come or blocks in their order; returns the place of each row.

    `key` is that of the column's quantity, which says what the axis is called and how the values are scaled. What was
    measured here is `shift` below the paper's, hollow in another view than bf16; several pairs in one row have a colour
    each. A number that is NaN has no dot.
    """
    given = dict.fromkeys(table[rows])
    order = [block for block in BLOCKS if block in given] if rows == "block" else list(given)
    place: dict[Hashable, int] = {row: number for number, row in enumerate(order)}
    drawn = quantity(key)
    for own, marker, look in of_regimes(table.dropna(subset=[column])):
        ax.plot(drawn.scale * own[column], own[rows].map(place), marker, **look)
    here = table[table["origin"] == "here"].dropna(subset=[column])
    several = rows != "pair" and len(set(here["pair"])) > 1
    groups = [(view, own, HERE[0]) for view, own in here.groupby("view", sort=False)]
    if several:
        groups = [(own["view"].iloc[0], own, look["color"]) for own, _, look in of_views(here)]
    for view, own, colour in groups:
        height = own[rows].astype(object).map(place) + shift
        fill, label = (colour, "measured here") if view == "bf16" else ("white", f"here, {view}")
        label = str(own["pair"].iloc[0]) if several and view == "bf16" else label
        ax.plot(drawn.scale * own[column], height, HERE[1], color=colour, mfc=fill, ms=9, label=label, zorder=3)
    named_rows(ax, [str(row).replace("_", " ") for row in order])
    ax.set_xlabel(drawn.axis, loc="right")  # beside long names the axes are narrower than their label
    ax.set_ylabel(rows)
    if drawn.kind == "share":
        ax.set_xlim(*WHOLE)
    return place
