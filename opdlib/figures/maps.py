"""Maps of layer and module."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.ticker import MaxNLocator

from opdlib.errors import ParameterError
from opdlib.figures.theme import figure, of_pairs, plain_axis
from opdlib.quantities import short


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
    keys = sorted(set(zip(table["part"], ~stack, table["module"], strict=True)), key=lambda key: _order(table, *key))
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


def _order(table: pd.DataFrame, part: str, outside: bool, module: str) -> tuple[int, bool, int]:
    """The table's categories give the order; modules outside the stack come last in their part."""
    parts, modules = list(table["part"].cat.categories), list(table["module"].cat.categories)
    return parts.index(part), outside, modules.index(module)


def _name(part: str, outside: bool, module: str) -> str:
    name = module if part == "language" else f"{part}: {module}"
    return f"{name} (no layer)" if outside else name
