"""One number a row, as dots: the paper's pairs by regime, and the pair that was measured here."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import pandas as pd
from matplotlib.axes import Axes

from opdlib.checkpoints.names import BLOCKS
from opdlib.figures.theme import HERE, REGIMES, figure, legend_above, plain_percent
from opdlib.tables.text import short

SMALLEST_NORM, SMALLEST_BLOCK_NORM = 1e-2, 1e-4
"""Percent; below it the axis of norms is linear, so that a zero can be drawn."""


@figure
def pair_sparsity(table: pd.DataFrame, ax: Axes) -> None:
    """Share of weights with abs(delta) <= atol of every pair, in percent. Table: `overview`, the paper's and ours."""
    dots(ax, table, "pair", "sparsity", pairs_of(table))
    ax.set(xlim=(-2, 102), xlabel=f"weights within {short(table['atol'].iloc[0])} of the source (%)", ylabel="pair")
    legend_above(ax)


@figure
def pair_norm(table: pd.DataFrame, ax: Axes) -> None:
    """Relative norm of every pair's update in percent, on a logarithmic axis. Table as for `pair_sparsity`."""
    dots(ax, table, "pair", "rel_norm", pairs_of(table))
    _norm_axis(ax, SMALLEST_NORM, table)
    ax.set(xlabel="relative norm of the update (%)", ylabel="pair")


@figure
def block_norm(table: pd.DataFrame, ax: Axes) -> None:
    """Relative norm of each block in percent, beside the paper's Table 3 of v2. Table: `blocks`, the paper's, ours."""
    dots(ax, table, "block", "rel_norm", _blocks(table), shift=0.22)
    _norm_axis(ax, SMALLEST_BLOCK_NORM, table)
    ax.set(xlabel="relative norm of the block's update (%)", ylabel="block")
    legend_above(ax)


@figure
def block_energy(table: pd.DataFrame, ax: Axes) -> None:
    """Share of each block in the squared delta in percent, beside the paper's Table 3 of v1. Table: as `block_norm`."""
    dots(ax, table, "block", "energy_share", _blocks(table), shift=0.22)
    ax.set(xlim=(-2, 102), xlabel="share of the update's energy (%)", ylabel="block")


def pairs_of(table: pd.DataFrame) -> list[Hashable]:
    """The pairs of a table, each once, in its order."""
    return list(dict.fromkeys(table["pair"]))


def _blocks(table: pd.DataFrame) -> list[Hashable]:
    return [block for block in BLOCKS if (table["block"] == block).any()]


def _norm_axis(ax: Axes, smallest: float, table: pd.DataFrame) -> None:
    ax.set_xscale("symlog", linthresh=smallest, linscale=0.5)
    ax.xaxis.set_major_formatter(plain_percent)
    ax.set_xlim(-smallest / 4, 1.6 * max(100 * table["rel_norm"].max(), smallest))


def dots(
    ax: Axes,
    table: pd.DataFrame,
    rows: str,
    value: str,
    order: Sequence[Hashable],
    shift: float = 0.0,
    scale: float = 100.0,
) -> None:
    """First row on top; what was measured here is `shift` below the paper's, hollow in another view than bf16.

    Values are multiplied by `scale`, which makes percent of fractions. A number that is NaN has no dot.
    """
    place = {row: number for number, row in enumerate(order)}
    for regime, (colour, marker) in REGIMES.items():
        own = table[(table["origin"] == "paper") & (table["regime"] == regime)].dropna(subset=[value])
        if len(own):
            label = f"paper, {regime.split()[0]}"
            ax.plot(scale * own[value], own[rows].map(place), marker, color=colour, mec="white", label=label)
    colour, marker = HERE
    for view, own in table[table["origin"] == "here"].dropna(subset=[value]).groupby("view", sort=False):
        height = own[rows].astype(object).map(place) + shift
        fill, label = (colour, "measured here") if view == "bf16" else ("white", f"here, {view}")
        ax.plot(scale * own[value], height, marker, color=colour, mfc=fill, ms=9, label=label, zorder=3)
    ax.set_yticks(range(len(order)), [str(row).replace("_", " ") for row in order])
    ax.set_ylim(len(order) - 0.4, -0.6)
