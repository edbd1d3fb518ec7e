"""Tables for the eye, as HTML: right-aligned numbers, units in the head, what is the same in every row said once.

The cells of a table are text already, in the form that `opdlib.quantities` gives each number; here is only how they
stand. Rows beyond the first are one click away and never behind a scroll bar.
"""

import re
from collections.abc import Sequence
from hashlib import sha256
from html import escape

import pandas as pd
from pandas.io.formats.style import Styler

from opdlib.quantities import MISSING

LONGEST, HEAD = 16, 10
"""Rows up to which a table is shown whole, and how many of a longer one are."""

_ONE = r"[<+\-\N{MINUS SIGN}]?\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?"
_PAIR = rf"{_ONE}%?(?: (?:to|of|/) {_ONE}%?)?"
_NUMBER = re.compile(rf"{_PAIR}(?: \({_PAIR}\))?(?: pp)?")
_WITHOUT_UNIT = re.compile(rf"{_ONE}(?![\d%,.e])")
RIGHT, LEFT = "text-align: right", "text-align: left"
DIGITS = "white-space: nowrap; font-variant-numeric: tabular-nums"


def as_html(table: pd.DataFrame) -> str:
    """The table as HTML with a style of its own, the same for the same cells.

    A column that says one thing in two or more rows is left out and named in the caption, if another is left. A column
    of numbers is right-aligned; if each of them is in percent, its head says so instead.
    """
    columns = {i: [_cell(x) for x in table.iloc[:, i]] for i in range(table.shape[1])}
    names = dict(enumerate(map(str, table.columns)))
    same = [i for i, cells in columns.items() if len(cells) > 1 and len(set(cells)) == 1]
    same = same[1:] if len(same) == len(columns) else same
    caption = "; ".join(f"{names[i]} {columns.pop(i)[0]}" for i in same)
    numeric = [i for i, cells in columns.items() if _are_numbers(cells)]
    for i in numeric:
        if _in_percent(columns[i]):
            columns[i] = [cell.replace("%", "") for cell in columns[i]]
            names[i] = names[i] if "%" in names[i] else f"{names[i]} (%)"
    shown = pd.DataFrame(columns, index=[*map(str, table.index)]).set_axis([names[i] for i in columns], axis=1)
    shown.columns.name = table.columns.name or table.index.name
    places = {place for place, i in enumerate(columns) if i in numeric}
    if len(shown) <= LONGEST:
        return _boxed(_html(shown, places, caption))
    more = f"<details><summary>Show all {len(shown):,} rows</summary>{_boxed(_html(shown, places, caption))}</details>"
    return f'<div class="opd-long">{_boxed(_html(shown.head(HEAD), places, caption))}{more}</div>'


def _cell(value: object) -> str:
    if value is None or value != value or value == "":  # NaN is no number but itself
        return MISSING
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _are_numbers(cells: Sequence[str]) -> bool:
    said = [cell for cell in cells if cell != MISSING]
    return bool(said) and all(_NUMBER.fullmatch(cell) for cell in said)


def _in_percent(cells: Sequence[str]) -> bool:
    return all("%" in cell and not _WITHOUT_UNIT.search(cell) for cell in cells if cell != MISSING)


def _html(table: pd.DataFrame, numeric: set[int], caption: str) -> str:
    key = sha256(f"{table.to_csv()}{caption}".encode()).hexdigest()[:8]
    styler = Styler(table, uuid=key, uuid_len=8, cell_ids=False).format(escape="html")
    styler = styler.format_index(escape="html").format_index(escape="html", axis=1)
    looks = [(f".col{i}", RIGHT if i in numeric else LEFT) for i in range(table.shape[1])]
    looks += [(f"td.col{i}", DIGITS) for i in sorted(numeric)]
    styler = styler.set_table_styles([{"selector": selector, "props": props} for selector, props in looks])
    if caption:
        styler = styler.set_caption(f"The same in every row: {escape(caption, quote=False)}.")
    html: str = styler.to_html(table_attributes='class="dataframe opd"')
    return html


def _boxed(html: str) -> str:
    """Wider than a phone, it moves sideways below its first column, by keyboard too."""
    return f'<div class="opd-table" tabindex="0" role="group" aria-label="table">{html}</div>'
