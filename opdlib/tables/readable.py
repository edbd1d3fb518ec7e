"""Tables for the eye: fixed digits, percent for fractions, and a dash for what is undefined."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

PERCENT = {"share", "sparsity", "exact_zero", "energy_share", "parameter_share", "coordinate_share", "expected"}
FORMATS: dict[str, Callable[[float], str]] = {
    "rel_norm": lambda x: f"{100 * x:.4f} %",
    "threshold": lambda x: "0" if x == 0 else f"{x:.0e}",
    "atol": lambda x: f"{x:.0e}",
    "top": lambda x: f"{100 * x:g} %",
    "magnitude": lambda x: f"{x:.3g}",
    "half_ulp": lambda x: f"{x:.2e}",
} | dict.fromkeys(PERCENT, lambda x: f"{100 * x:.2f} %")
"""Column -> how one of its values is written. Other numbers: counts with separators, the rest with four digits."""

MISSING = "-"


def readable(table: pd.DataFrame, index: str | list[str] = "pair") -> pd.DataFrame:
    """The table as text, with `index` as row labels. For display only: numbers are rounded, and NaN is a dash."""
    text = pd.DataFrame({column: [_text(str(column), v) for v in table[column]] for column in table.columns})
    return text.rename(columns=lambda name: str(name).replace("_", " ")).set_index(
        [name.replace("_", " ") for name in ([index] if isinstance(index, str) else index)]
    )


def _text(column: str, value: object) -> str:
    if pd.isna(value) or value == "":  # type: ignore[call-overload]
        return MISSING
    if column in FORMATS and isinstance(value, int | float):
        return FORMATS[column](value)
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
