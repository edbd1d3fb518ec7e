"""One look for every figure: colours that colour-blind readers tell apart, text that a phone can show."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter, LogFormatter, NullFormatter

from opdlib.tables.paper import OPD_STYLE

STYLE = Path(__file__).with_name("opd.mplstyle")

REGIMES = {
    "OPD": ("#0072B2", "o"),
    "OPSD": ("#56B4E9", "v"),
    "RLVR": ("#D55E00", "s"),
    "offline distillation": ("#009E73", "^"),
    "supervised": ("#CC79A7", "P"),
}
"""Regime -> colour and marker, in every figure of the book: Okabe and Ito's, which colour-blind readers tell apart. No
other thing has one of these colours."""
OPD, OPSD, RLVR, OFFLINE, SUPERVISED = (colour for colour, _ in REGIMES.values())
HERE = ("black", "D")
"""Colour and marker of the pair that was measured here."""
VIEWS = {"bf16": ("black", "-"), "stored": ("#767676", "--")}
"""View -> colour and style."""
INKS = ("black", "#7A5195", "#9A6B00")
"""Ink, plum and ochre, for what is no regime: the sides of a matrix, masks, kinds of chance."""
GREY, LIGHT, PALE = "#767676", "#bbbbbb", "#dddddd"
"""Greys of what stands behind: the paper's OPD-style rows, its others, and spans."""
WHOLE = (-2, 102)
"""Limits of an axis in percent."""
RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
"""Signs of a number -> the same, raised."""
DOTTED: dict[str, Any] = {"color": "black", "lw": 1, "ls": ":"}
"""How a line is drawn that marks a place: chance, no difference, a threshold."""


def theme() -> None:
    """Use this look for every figure of the process."""
    plt.style.use(STYLE)


def panels(count: int, height: float | None = None) -> list[Axes]:
    """`count` axes of one figure, one above the other, so that a phone can show them; `height` in inches of all."""
    with plt.style.context(STYLE):
        width, own = plt.rcParams["figure.figsize"]
        _, axes = plt.subplots(count, 1, figsize=(width, height or own * count), squeeze=False)
    return [ax for row in axes for ax in row]


def legend_above(ax: Axes, columns: int = 2, over: float = 1.0, right: bool = False) -> None:
    """The legend above the axes, where it hides no point; none where nothing was drawn.

    `over`: height of its foot, 1 is the top of the axes. `right`: at the right edge, so that the room over the names of
    rows is used too.
    """
    if ax.get_legend_handles_labels()[0]:
        place: Any = "lower right" if right else "lower center"
        at = 1.02 if right else 0.5, over
        ax.legend(loc=place, bbox_to_anchor=at, ncols=columns, frameon=False, borderaxespad=0.3)


AT_EDGE: dict[str, Any] = {"textcoords": "offset points", "ha": "right", "va": "bottom", "fontsize": 11}
"""How a text stands at the right edge of the axes, above a line."""


def named(ax: Axes, name: str, x: float, y: float, above: float, colour: str) -> None:
    """A name in the colour of what it names, `above` points over its foot at (x, y): instead of a legend."""
    ax.annotate(name, (x, y), (0, above), textcoords="offset points", ha="center", fontsize=11, color=colour)


def named_rows(ax: Axes, names: Sequence[str]) -> None:
    """Rows of names instead of a vertical axis, the first on top."""
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(max(len(names), 1) - 0.4, -0.6)


def plain_axis(axis: Axis, minor: bool = True) -> None:
    """A logarithmic axis with numbers instead of powers of ten: 0.01, 0.1, 1; without `minor`, between them nothing."""
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}".replace("e-0", "e-")))
    if not minor:
        axis.set_minor_formatter(NullFormatter())


def power_of_two(exponent: int) -> str:
    """The power as text with a raised exponent, of the same size as the rest of the text: 2⁻⁸."""
    return f"2{str(exponent).translate(RAISED)}"


def of_views(table: pd.DataFrame) -> Iterator[tuple[pd.DataFrame, str, dict[str, Any]]]:
    """What was measured here, pair by pair and view by view: rows, line style, and keywords that say which (colour and
    label). One pair has the colours of the views, several have a colour and their name each."""
    colours = of_pairs(table)
    for (pair, view), own in table.groupby(["pair", "view"], sort=False):
        colour, style = VIEWS[str(view)]
        if len(colours) < 2:
            yield own, style, {"color": colour, "label": f"here, view {view}"}
        else:
            label = f"{pair}, {view}" if len(set(table["view"])) > 1 else str(pair)
            yield own, style, {"color": colours[str(pair)], "label": label}


def of_pairs(table: pd.DataFrame) -> dict[str, Any]:
    """A colour for each pair of the table: ink, or shades from dark to light where inks do not suffice."""
    pairs = list(dict.fromkeys(map(str, table["pair"])))
    shades = INKS if len(pairs) <= len(INKS) else plt.get_cmap("viridis")(np.linspace(0, 0.8, len(pairs)))
    return dict(zip(pairs, shades, strict=False))


def of_paper(table: pd.DataFrame) -> Iterator[tuple[pd.DataFrame, dict[str, Any]]]:
    """The paper's OPD-style rows, then its others, with keywords that say which (colour and label)."""
    for opd_style, colour in ((True, GREY), (False, LIGHT)):
        own = table[(table["origin"] == "paper") & (table["regime"].isin(OPD_STYLE) == opd_style)]
        yield own, {"color": colour, "label": f"paper, {'OPD-style' if opd_style else 'other pairs'}"}


def of_regimes(table: pd.DataFrame) -> Iterator[tuple[pd.DataFrame, str, dict[str, Any]]]:
    """The paper's rows by regime: rows, marker, and keywords that say which (colour and label)."""
    for regime, (colour, marker) in REGIMES.items():
        own = table[(table["origin"] == "paper") & (table["regime"] == regime)]
        if len(own):
            yield own, marker, {"color": colour, "mec": "white", "label": f"paper, {regime.split()[0]}"}


def ramp(colour: str, count: int) -> list[RGB]:
    """So many shades of one colour, light to full: the learning rates of one arm, smallest first."""
    full = to_rgb(colour)
    weights = [1.0 if count == 1 else 0.35 + 0.65 * i / (count - 1) for i in range(count)]
    return [(1 - w + w * full[0], 1 - w + w * full[1], 1 - w + w * full[2]) for w in weights]


def band(ax: Axes, at: pd.Series, table: pd.DataFrame, scale: float = 100.0, **look: Any) -> None:
    """The area from the columns low to high."""
    ax.fill_between(at, scale * table["low"], scale * table["high"], lw=0, **look)


def drawn(canvas: Figure, kind: str) -> bytes:
    """The figure as the content of an svg, png or pdf file, the same bytes each time; text of an SVG is text, a name no
    formula."""
    _take_literally(canvas)
    stream = io.BytesIO()
    without = {"svg": ("Date", "Creator"), "png": ("Software",), "pdf": ("CreationDate", "Creator", "Producer")}[kind]
    with plt.rc_context({"svg.fonttype": "none", "svg.hashsalt": "opdlib"}):
        if kind != "svg":
            canvas.savefig(stream, format=kind, metadata=dict.fromkeys(without))
            return stream.getvalue()
        # savefig writes the same and takes a third longer: it draws twice, at first for the layout alone.
        shown, dpi = canvas.canvas, canvas.dpi
        FigureCanvasSVG(canvas).print_svg(stream, metadata=dict.fromkeys(without))  # type: ignore[no-untyped-call]
        canvas.set_canvas(shown)
        canvas.dpi = dpi
    picture = stream.getvalue()
    return picture[picture.index(b"<svg") :]


def _take_literally(canvas: Figure) -> None:
    """Names may hold dollar signs: only the powers of ten of logarithmic axes are set as formulas."""
    axes = (axis for ax in canvas.axes for axis in (ax.xaxis, ax.yaxis))
    powers = {
        id(label)
        for axis in axes
        if isinstance(axis.get_major_formatter(), LogFormatter)
        for label in axis.get_ticklabels(which="both")
    }
    for text in canvas.findobj(Text):
        if isinstance(text, Text) and id(text) not in powers:
            text.set_parse_math(False)


def canvas_of(ax: Axes) -> Figure:
    """The figure that axes lie in. Raises TypeError for axes in a part of one."""
    if not isinstance(ax.figure, Figure):
        raise TypeError(f"the axes lie in a {type(ax.figure).__name__}, wanted a figure of their own")
    return ax.figure


RGB = tuple[float, float, float]
Draw = Callable[[pd.DataFrame, Axes], None]


def figure(draw: Draw) -> Callable[..., Axes]:
    """Make `f(table, ax=None) -> Axes` of a function that draws on axes: with the theme, and axes if none are given."""

    @wraps(draw)
    def drawn(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
        with plt.style.context(STYLE):
            axes = ax if ax is not None else plt.subplots()[1]
            draw(table, axes)
        return axes

    return drawn
