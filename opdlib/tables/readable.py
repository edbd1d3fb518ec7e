"""Tables for the eye: fixed digits, percent for fractions, and a dash for what is undefined."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from opdlib.tables.text import MISSING, short, short_percent

PERCENT = ("share", "sparsity", "exact_zero", "energy_share", "parameter_share", "coordinate_share", "expected")
FORMATS: dict[str, Callable[[float], str]] = {
    "rel_norm": lambda x: f"{100 * x:.4f}%",
    "threshold": short,
    "atol": short,
    "top": short_percent,
    "magnitude": short,
    "half_ulp": short,
} | dict.fromkeys(PERCENT, lambda x: f"{100 * x:.2f}%")
"""Column -> how one of its values is written. Other numbers: counts with separators, the rest with four digits."""


def readable(table: pd.DataFrame, *columns: str, value: str = "share") -> pd.DataFrame:
    """These columns as text, the first as row labels. For display only: numbers are rounded, and NaN is a dash.

    `value` is the column whose format the columns of `beside` take.
    """
    kinds = {column: value if column.startswith(("here, ", "paper_")) else column for column in columns}
    text = pd.DataFrame({column: [_text(kinds[column], x) for x in table[column]] for column in columns})
    return headed(text.rename(columns=lambda name: str(name).replace("_", " ")).set_index(columns[0].replace("_", " ")))


def headed(table: pd.DataFrame) -> pd.DataFrame:
    """The table with the name of its row labels in the corner of the header, instead of a second line of it."""
    shown = table.copy()
    shown.columns.name, shown.index.name = table.index.name, None
    return shown


def _text(column: str, value: object) -> str:
    if pd.isna(value) or value == "":  # type: ignore[call-overload]
        return MISSING
    if column in FORMATS and isinstance(value, int | float):
        return FORMATS[column](value)
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
