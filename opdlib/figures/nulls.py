"""What null models expect, drawn with what is observed."""

import pandas as pd
from matplotlib.axes import Axes

from opdlib.figures.rank import FAINTEST, MARKED, index_axis
from opdlib.figures.theme import GREY, HERE, INKS, WHOLE, band, figure, legend_above, of_pairs, of_regimes, plain_axis
from opdlib.tables.nulls import KINDS

LOOKS = dict(zip(KINDS, ((GREY, "--"), ("black", "-"), (INKS[1], ":")), strict=True))
"""Whose spectrum -> colour and style."""


@figure
def low_coverage(table: pd.DataFrame, ax: Axes) -> None:
    """Coverage of the smallest tenth against the density, in percent: the paper's pairs, ours, and noise as a line.

    Table: `paper_nulls.coverage`, ours in its columns, and `paper_nulls.curve` as origin `noise`. Grey: the ceiling,
    beyond which no mask of this size can go.
    """
    key = "coverage.low.0.1"
    noise = table[table["origin"] == "noise"].sort_values("density")
    ceiling = (0.1 / noise["density"]).clip(upper=1)
    ax.plot(100 * noise["density"], 100 * ceiling, "-", color=GREY, lw=1, label="ceiling")
    ax.plot(100 * noise["density"], 100 * noise[key], "--", color=INKS[1], label="noise, rounded")
    for own, marker, look in of_regimes(table):
        ax.plot(100 * own["density"], 100 * own[key], marker, **look)
    here = table[table["origin"] == "here"].dropna(subset=[key])
    colours = of_pairs(here)
    for pair, own in here.groupby("pair", sort=False):
        label, colour = ("measured here", HERE[0]) if len(colours) < 2 else (str(pair), colours[str(pair)])
        ax.plot(100 * own["density"], 100 * own[key], HERE[1], color=colour, ms=9, label=label)
    ax.set(xlim=WHOLE, ylim=WHOLE, xlabel="weights that changed (%)", ylabel="of these, in the smallest tenth (%)")
    legend_above(ax, columns=3)


@figure
def spectra(table: pd.DataFrame, ax: Axes) -> None:
    """Share of the energy in single singular values, in percent, by index; both axes logarithmic.

    Table: `nulls.spectra`. Median and quartiles over the matrices of the commonest size. Dotted: the paper's numbers of
    leading values.
    """
    colours = of_pairs(table)
    for (pair, kind), own in table.groupby(["pair", "kind"], sort=False):
        colour, style = LOOKS[str(kind)]
        colour, label = (colour, kind) if len(colours) < 2 else (colours[str(pair)], f"{pair}, {kind}")
        size = own[own["rank"] == own["rank"].iloc[0]]
        ax.plot(size["index"], 100 * size["value"], style, color=colour, lw=2, label=label)
        band(ax, size["index"], size, color=colour, alpha=0.15)
    index_axis(ax, max(table["index"].max(), MARKED[-1]) if len(table) else MARKED[-1])
    ax.set_yscale("log")
    plain_axis(ax.yaxis, minor=False)
    ax.set(ylim=(100 * FAINTEST, 100), ylabel="energy of one singular value (%)")
    legend_above(ax, columns=3)
