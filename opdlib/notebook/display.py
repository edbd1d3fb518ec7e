"""Output of notebooks: one look, and values that other pages can show."""

import base64
import math
import warnings
from html import escape
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from IPython.core.getipython import get_ipython
from IPython.display import display
from matplotlib.axes import Axes
from tqdm import TqdmWarning

from opdlib.errors import one_line
from opdlib.figures.theme import canvas_of, drawn, theme
from opdlib.tables.styled import as_html

GLUE = "application/papermill.record/"
"""Prefix of a value that is stored in the notebook and not shown; myst-nb's glue roles look for it."""

POINTS = 2000
"""Marks beyond which a figure is shown as PNG: an SVG of more is slow to scroll past."""


def setup() -> None:
    """The look of figures and tables, the same on every machine, and no warning that progress bars lack widgets."""
    theme()
    pd.set_option("display.max_colwidth", None, "display.max_columns", None)
    pd.set_option("display.max_rows", 500, "display.width", 140)
    warnings.filterwarnings("ignore", category=TqdmWarning)
    shell = get_ipython()
    if shell is not None and shell.display_formatter is not None:
        shell.display_formatter.formatters["text/html"].for_type(pd.DataFrame, as_html)


def glue(name: str, value: float | str | None) -> None:
    """Store a number or a word under `name`, for myst-nb's glue roles on every page. None and NaN become 'undefined'.
    Does what `myst_nb.glue(name, value, display=False)` does, and needs no myst_nb."""
    plain = float(value) if isinstance(value, float) else value  # not numpy's float, whose repr says more
    missing = plain is None or (isinstance(plain, float) and math.isnan(plain))
    _display(
        {f"{GLUE}text/plain": repr("undefined" if missing else plain)},
        {"scrapbook": {"mime_prefix": GLUE, "name": name}},
    )


def figure(name: str, ax: Axes, alt: str, title: str = "") -> None:
    """Show the figure that `ax` belongs to, store it under `name` for other pages, and close it. `alt` says in a
    sentence what is drawn, true for every pair; it stands in for the picture where that is not seen. `title` says whose
    runs are drawn, where a page shows several models. The picture is an SVG whose text is text, beyond `POINTS` marks a
    PNG."""
    canvas = canvas_of(ax)
    if title:
        canvas.suptitle(title, fontsize=12, fontweight="bold")
    kind, data = "image/svg+xml", drawn(canvas, "svg").decode()
    if data.count("<use ") > POINTS:
        kind, data = "image/png", base64.b64encode(drawn(canvas, "png")).decode()
    plt.close(canvas)
    _display({kind: data, "text/plain": alt}, {kind: {"alt": alt}, "scrapbook": {"mime_prefix": "", "name": name}})


def say(template: str, **values: object) -> None:
    """Show a sentence as Markdown, its numbers filled in: `say("{share:.1%} are unchanged", share=0.81)`. People write
    it, and the cell states the condition under which it is true."""
    shown = {name: _plain(value) for name, value in values.items()}
    _display({"text/markdown": template.format(**shown), "text/plain": template.format(**values)}, {})


def _plain(value: object) -> object:
    """A name or a message as Markdown that shows it as it is: neither HTML nor a formula nor a link."""
    if not isinstance(value, str | Exception):
        return value
    return escape(one_line(str(value)), quote=False).replace("$", r"\$").replace("](", r"]\(")


FINDING = {"paper": "The paper says", "here": "We find", "control": "Under control", "sure": "How sure"}
"""Argument of `finding` -> the heading of its line."""


def finding(paper: str, here: str, control: str, sure: str, **values: object) -> None:
    """The box under the title of a page: what the paper says, what is found, what is left of it under its control, and
    how sure that is. Four sentences as those of `say`."""
    lines = dict(zip(FINDING.values(), (paper, here, control, sure), strict=True))
    text = {heading: template.format(**values) for heading, template in lines.items()}
    rows = "".join(f"<dt>{heading}</dt><dd>{escape(line)}</dd>" for heading, line in text.items())
    plain = "\n".join(f"{heading}: {line}" for heading, line in text.items())
    _display({"text/html": f'<dl class="finding">{rows}</dl>', "text/plain": plain}, {})


def _display(data: dict[str, str], metadata: dict[str, Any]) -> None:
    display(data, metadata=metadata, raw=True)  # type: ignore[no-untyped-call]
