"""Every two of several checkpoints as a matrix of cells."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from opdlib.figures.theme import panels
from opdlib.quantities import quantity, written

DRAWN = ("jaccard", "latent_cosine", "subspace.right")
"""What is drawn, from above; the cosine stands in for the latent one where it is known of all pairs."""
WRITTEN_UP_TO = 8
"""Checkpoints up to which a cell has its number written in it."""


def matrix(table: pd.DataFrame) -> Axes:
    """A panel a number, a row and a column a checkpoint; the numbers are symmetric, and the diagonal is left white.

    Table: `opdlib.results.several.compare`. Axes run from 0 to 1, for cosines from -1.
    """
    names = list(dict.fromkeys([*table["a"], *table["b"]]))
    keys = [("cosine" if key == "latent_cosine" and table["cosine"].notna().all() else key) for key in DRAWN]
    axes = panels(len(keys), (1.6 + 0.34 * max(len(names), 4)) * len(keys))
    for ax, key in zip(axes, keys, strict=True):
        cells = np.full((len(names), len(names)), np.nan)
        for a, b, value in zip(table["a"], table["b"], table[key], strict=True):
            cells[names.index(a), names.index(b)] = cells[names.index(b), names.index(a)] = value
        signed = "cosine" in key
        colours, least = ("PuOr_r", -1.0) if signed else ("cividis", 0.0)
        edges = np.arange(len(names) + 1) - 0.5
        mesh = ax.pcolormesh(edges, edges, cells, cmap=colours, vmin=least, vmax=1.0)
        _write(ax, key, cells, 0.5 if signed else 0.6)
        ax.figure.colorbar(mesh, ax=ax, label=quantity(key).label).outline.set_visible(False)
        ax.set_yticks(range(len(names)), names)
        ax.set_xticks(range(len(names)), names if ax is axes[-1] else [], rotation=90)
        ax.invert_yaxis()
        ax.grid(False)
    return axes[0]


def _write(ax: Axes, key: str, cells: np.ndarray[tuple[int, ...], np.dtype[np.float64]], bright: float) -> None:
    if len(cells) > WRITTEN_UP_TO:
        return
    for row, column in np.argwhere(~np.isnan(cells)):
        value = float(cells[row, column])
        colour = "white" if ("cosine" in key) == (abs(value) > bright) else "black"
        ax.text(column, row, written(key, value), ha="center", va="center", fontsize=9, color=colour)
