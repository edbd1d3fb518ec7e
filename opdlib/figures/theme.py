"""One look for every figure: colours that colour-blind readers tell apart, text that a phone can show."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes

STYLE = Path(__file__).with_name("opd.mplstyle")

BLUE, SKY, GREEN, ORANGE, GREY = "#0072B2", "#56B4E9", "#009E73", "#D55E00", "#767676"
"""Okabe and Ito's colours, and a grey with enough contrast on white."""

REGIMES = {"OPD": (BLUE, "o"), "OPSD": (SKY, "v"), "RLVR": (ORANGE, "s"), "offline distillation": (GREY, "^")}
"""Regime -> colour and marker of the paper's pairs."""
HERE = ("black", "D")
"""Colour and marker of the pair that was measured here."""


def theme() -> None:
    """Use this look for every figure of the process."""
    plt.style.use(STYLE)


def panels(count: int) -> list[Axes]:
    """`count` axes of one figure, one above the other, so that a phone can show them."""
    with plt.style.context(STYLE):
        width, height = plt.rcParams["figure.figsize"]
        _, axes = plt.subplots(count, 1, figsize=(width, height * count), squeeze=False)
    return [ax for row in axes for ax in row]


def legend_above(ax: Axes, columns: int = 2, over: float = 1.0) -> None:
    """The legend above the axes, where it hides no point; none where nothing was drawn.

    `over`: height of its foot, 1 is the top of the axes.
    """
    if not ax.get_legend_handles_labels()[0]:
        return
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, over), ncols=columns, frameon=False, borderaxespad=0.3)


def named_rows(ax: Axes, names: Sequence[str]) -> None:
    """Rows of names instead of a vertical axis, the first on top."""
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(max(len(names), 1) - 0.4, -0.6)


def plain_percent(value: float, _: object) -> str:
    """Tick labels of a logarithmic percent axis: 0.01, 0.1, 1."""
    return f"{value:g}"


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
