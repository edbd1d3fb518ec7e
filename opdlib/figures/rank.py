"""Spectra: the energy of single singular values, what the first k of them hold, and both among the paper's pairs."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from opdlib.figures.dots import dots
from opdlib.figures.theme import DOTTED, GREY, WHOLE, band, figure, legend_above, of_paper, of_views, plain_axis

MARKED = (1, 8, 16)
"""Numbers of singular values that the paper tabulates (Table 9)."""
FAINTEST = 1e-6
"""Share of the energy at the foot of the axis."""


@figure
def spectrum(table: pd.DataFrame, ax: Axes) -> None:
    """Share of the energy in single singular values, in percent, by index; both axes logarithmic.

    Table: `geometry.spectrum` of each view. Median and quartiles over the matrices of the commonest size, a thin line
    for every other size. Dotted: the paper's numbers of leading values.
    """
    for own, style, look in of_views(table):
        for number, (_, size) in enumerate(own.groupby("rank", sort=False)):
            ax.plot(size["index"], 100 * size["value"], style, lw=0.8 if number else 2, **look)
            if not number:
                band(ax, size["index"], size, color=look["color"], alpha=0.2)
            look["label"] = ""
    index_axis(ax, max(table["index"].max(), MARKED[-1]) if len(table) else MARKED[-1])
    ax.set_yscale("log")
    plain_axis(ax.yaxis, minor=False)
    ax.set(ylim=(100 * FAINTEST, 100), ylabel="energy of one singular value (%)")
    legend_above(ax)


@figure
def leading(table: pd.DataFrame, ax: Axes) -> None:
    """Share of the energy in the k largest singular values together, in percent, by k.

    Table: `geometry.spread` of `svd_energy` for each view (median and quartiles over matrices) and
    `paper.numbers` (grey bars: the span of the six OPD-style rows, where the paper has one).
    """
    counts = table["quantity"].str.extract(r"^svd_energy\.(\d+)$", expand=False).dropna().astype(int)
    tops = table.loc[counts.index]
    (paper, _), _ = of_paper(tops)
    for number, (count, values) in enumerate(paper.groupby(counts)["value"]):
        label = "" if number else "paper, OPD-style pairs"
        span = [100 * values.min(), 100 * values.max()]
        ax.plot([count] * 2, span, "-", color=GREY, lw=7, alpha=0.6, solid_capstyle="butt", label=label)
    for own, style, look in of_views(tops[tops["origin"] == "here"]):
        at = counts[own.index]
        ax.plot(at, 100 * own["value"], f"o{style}", ms=4, **look)
        band(ax, at, own, color=look["color"], alpha=0.2)
    index_axis(ax, max(counts.max(), MARKED[-1]))
    ax.set(ylim=WHOLE, xlabel="number of leading singular values, k", ylabel="energy in the first k (%)")
    legend_above(ax)


@figure
def pair_top(table: pd.DataFrame, ax: Axes) -> None:
    """Energy in the 16 largest singular values of every pair, in percent. Table: overviews, the paper's and ours."""
    dots(ax, table, "pair", "svd_energy.16", "svd_energy.16")
    legend_above(ax, right=True)


@figure
def pair_stable_rank(table: pd.DataFrame, ax: Axes) -> None:
    """Stable rank of every pair, on a logarithmic axis. Table: as for `pair_top`."""
    dots(ax, table, "pair", "stable_rank", "stable_rank")
    _doubling_axis(ax, max(table["stable_rank"].max(), 2))


def index_axis(ax: Axes, last: float) -> None:
    """Indices of singular values from 1 to `last`, logarithmic; dotted at those that the paper tabulates."""
    for count in MARKED:
        ax.axvline(count, **{**DOTTED, "lw": 0.8})
    _doubling_axis(ax, last)
    ax.set_xlabel("index of the singular value")


def _doubling_axis(ax: Axes, last: float) -> None:
    """A logarithmic axis from 1, with every second power of two written out."""
    ax.set_xscale("log", base=2)
    ticks = [4**i for i in range(int(np.log2(max(last, 1)) / 2) + 1)]
    ax.set_xticks(ticks, [str(tick) for tick in ticks])
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xlim(0.9, 1.15 * last)
