"""What a part of an update solves, against what was kept of it, with its controls beside it."""

from collections.abc import Callable

import pandas as pd
from matplotlib.axes import Axes

from opdlib.figures.theme import DOTTED, GREY, INKS, OPD, figure, legend_above, named_rows, plain_axis
from opdlib.results.study import ENERGY, PART, REST, SHORT, SIZE
from opdlib.tables.surgery import KINDS, NOTHING, WHOLE

LOOK = {PART: (OPD, "o"), REST: (INKS[2], "v"), SIZE: (GREY, "s"), ENERGY: (INKS[1], "D")}
"""Kind -> colour and marker."""
SOLVED = "held-out problems solved (%)"
SETS = {"largest": (OPD, "o", "largest steps"), "visible": (OPD, "P", "visible in bf16")}
SETS |= {"mask:low": (INKS[2], "<", "small weights"), "mask:principal": (INKS[0], ">", "principal weights")}
"""Set of coordinates -> colour, marker and name."""
ASIDE = 1.07
"""By which factor each set of coordinates is drawn aside of the next."""


@figure
def directions(table: pd.DataFrame, ax: Axes) -> None:
    """Accuracy in percent against the energy kept, for leading singular directions and for the whole update made
    shorter. Table: `tables.surgery.over_seeds`, of one arm; bars span the intervals of its seeds."""
    leading = table["part"].str.startswith("singular")
    shorter = table["part"].str.startswith("scale") & (table["kind"] == PART) & (table["energy"] <= 1)
    line = table[leading & (table["kind"] == PART)].sort_values("energy")
    _points(ax, line, "energy", *LOOK[PART], "leading directions", "-")
    for energy, accuracy, part in line[["energy", "accuracy", "part"]].to_numpy():
        place = (100 * energy, 100 * accuracy)
        ax.annotate(part.partition(":")[2], place, (-7, 3), textcoords="offset points", ha="right")
    _points(ax, table[leading & (table["kind"] == REST)], "energy", *LOOK[REST], "without the leading 16")
    shrunk = pd.concat([table[shorter], table[leading & table["kind"].isin((ENERGY, SHORT))]]).sort_values("energy")
    _points(ax, shrunk, "energy", GREY, "s", "whole update, shorter", "--")
    _ends(table, ax.axhline)
    ax.set(xlabel="energy of the update that is kept (%)", ylabel=SOLVED, xlim=(-2, 104))
    legend_above(ax)


@figure
def coordinates(table: pd.DataFrame, ax: Axes) -> None:
    """Accuracy in percent against the share of coordinates kept (logarithmic), beside random ones. Each kind of set is
    drawn a little aside of the others, so that none hides another.

    Table: `tables.surgery.over_seeds`, of one arm; bars span the intervals of its seeds.
    """
    drawn = table["part"].str.startswith(("largest", "visible"))
    series = [(table["part"].str.startswith(name) & (table["kind"] == PART), look) for name, look in SETS.items()] + [
        (drawn & (table["kind"] == kind), (*LOOK[kind], KINDS[kind])) for kind in (SIZE, ENERGY)
    ]
    for number, (chosen, (colour, marker, called)) in enumerate(series):
        own = table[chosen].sort_values("kept")
        own = own.assign(kept=own["kept"] * ASIDE ** (number - (len(series) - 1) / 2))
        _points(ax, own, "kept", colour, marker, called, "-" if called == "largest steps" else "none")
    _ends(table, ax.axhline)
    ax.set_xscale("log")
    plain_axis(ax.xaxis, minor=False)
    ax.set(xlabel="coordinates that are kept (%)", ylabel=SOLVED, xlim=(0.7, 140))
    legend_above(ax)


@figure
def blocks(table: pd.DataFrame, ax: Axes) -> None:
    """Accuracy in percent of each block and third of the layers alone, and of random coordinates instead.

    Table: `tables.surgery.over_seeds`, of one arm; bars span the intervals of its seeds.
    """
    own = table[table["part"].str.startswith(("block", "layers"))]
    places = {part: place for place, part in enumerate(dict.fromkeys(own["part"]))}
    named_rows(ax, [f"{part.replace(':', ' ')}" for part in places])
    for number, kind in enumerate((PART, SIZE, ENERGY)):
        rows, (colour, marker) = own[own["kind"] == kind], LOOK[kind]
        height = rows["part"].map(places).astype(float) + 0.22 * number
        ax.hlines(height, 100 * rows["low"], 100 * rows["high"], color=colour, lw=1.6)
        ax.plot(100 * rows["accuracy"], height, marker, color=colour, ms=7, label=KINDS[kind] if len(rows) else None)
    _ends(table, ax.axvline)
    ax.set_xlabel(SOLVED)
    legend_above(ax, right=True)


def _points(ax: Axes, rows: pd.DataFrame, at: str, colour: str, marker: str, label: str, style: str = "none") -> None:
    ax.vlines(100 * rows[at], 100 * rows["low"], 100 * rows["high"], color=colour, lw=1.4)
    label = label if len(rows) else ""
    ax.plot(100 * rows[at], 100 * rows["accuracy"], marker, color=colour, ls=style, lw=1, ms=7, label=label)


def _ends(table: pd.DataFrame, line: Callable[..., object]) -> None:
    """Dotted lines at what the source and the whole update solve."""
    for part in (NOTHING, WHOLE):
        for accuracy in table[(table["part"] == part) & (table["kind"] == PART)]["accuracy"]:
            line(100 * accuracy, **DOTTED)
