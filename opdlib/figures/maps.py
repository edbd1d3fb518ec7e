"""Maps: of layer and module, and of every two of several checkpoints."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.ticker import MaxNLocator

from opdlib.errors import ParameterError
from opdlib.figures.theme import figure, of_pairs, panels, plain_axis
from opdlib.quantities import quantity, short, written

DRAWN = ("jaccard", "latent_cosine", "subspace.right")
"""What is drawn, from above; the cosine stands in for the latent one where it is known of all pairs."""
WRITTEN_UP_TO = 8
"""Checkpoints up to which a cell has its number written in it."""


@figure
def layer_module(table: pd.DataFrame, ax: Axes) -> None:
    """Share of weights that count as unchanged, in percent, for every layer and module: the paper's Figure 2 as a map.

    Table: `tables.sparsity(..., by="layer and module")` at one threshold. Raises ParameterError for several pairs: each
    needs a map of its own.
    """
    if len(pairs := of_pairs(table)) > 1:
        raise ParameterError(f"a map shows one pair, the table has {', '.join(pairs)}; draw them one by one")
    draw_map(ax, table, "share", f"weights within {short(table['threshold'].iloc[0])} of the source (%)", 100)


def draw_map(
    ax: Axes, table: pd.DataFrame, column: str, label: str, most: float | None = None, logarithmic: bool = False
) -> None:
    """A share in percent for every layer and module, by columns part, layer and module.

    Colours end at `most`, or are of the logarithm; then what is zero is white.

    A module outside the stack (embedding, final norm, head) has a row of its own, over the whole width; where a layer
    has no such module the map is white.
    """
    stack = table["layer"].notna()
    parts, modules = (list(table[column].cat.categories) for column in ("part", "module"))
    keys = sorted(  # by the categories of the table; modules outside the stack come last in their part
        set(zip(table["part"], ~stack, table["module"], strict=True)),
        key=lambda key: (parts.index(key[0]), key[1], modules.index(key[2])),
    )
    layers = int(table["layer"].max()) + 1 if table["layer"].notna().any() else 1
    cells = np.full((len(keys), layers), np.nan)
    for part, module, layer, share in zip(table["part"], table["module"], table["layer"], table[column], strict=True):
        outside = pd.isna(layer)
        cells[keys.index((part, outside, module)), slice(None) if outside else int(layer)] = 100 * share
    positive = cells[cells > 0]
    scale = LogNorm(positive.min(), positive.max()) if logarithmic and len(positive) else Normalize(vmax=most)
    edges = np.arange(layers + 1) - 0.5, np.arange(len(keys) + 1) - 0.5
    mesh = ax.pcolormesh(*edges, cells, cmap="cividis", norm=scale)
    ax.hlines(np.arange(1, len(keys)) - 0.5, -0.5, layers - 0.5, color="white", lw=1)
    narrow = logarithmic and len(positive) and positive.max() < 10 * positive.min()  # at most one power of ten
    bar = ax.figure.colorbar(mesh, ax=ax, label=label, ticks=MaxNLocator(5) if narrow else None)
    if logarithmic:
        plain_axis(bar.ax.yaxis, minor=False)
    bar.outline.set_visible(False)
    ax.set_yticks(range(len(keys)), [_name(*key) for key in keys])
    ax.invert_yaxis()
    ax.grid(False)
    ax.set(xlabel="layer", ylabel="module")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))


def _name(part: str, outside: bool, module: str) -> str:
    name = module if part == "language" else f"{part}: {module}"
    return f"{name} (no layer)" if outside else name


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
