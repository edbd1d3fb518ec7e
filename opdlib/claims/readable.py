"""Comparisons for the eye."""

from __future__ import annotations

import math

import pandas as pd

from opdlib.quantities import MISSING
from opdlib.registry.claims import Range


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """The comparison as text, in percent and percentage points; what was not tested has no number. For display only."""
    shown = table[["id", "statement", "paper", "ours", "verdict", "tolerance", "locator", "reason"]].copy()
    units = table["unit"]
    shown["tolerance"] = [_tolerance_text(value, unit) for value, unit in zip(table["tolerance"], units, strict=True)]
    shown["paper"] = [_range_text(value, unit) for value, unit in zip(table["paper"], units, strict=True)]
    shown["ours"] = [_value_text(value, unit) for value, unit in zip(table["ours"], units, strict=True)]
    return shown.set_index("id") if shown["reason"].any() else shown.set_index("id").drop(columns="reason")


def _value_text(value: float | str, unit: str) -> str:
    if isinstance(value, str):
        return value
    return MISSING if math.isnan(value) else f"{_number(value, unit, value)}{_suffix(unit)}"


def _tolerance_text(value: float, unit: str) -> str:
    if value == 0:
        return "none"
    return f"{value:g}" if unit == "ratio" else f"{100 * value:.2g} points"


def _range_text(text: str, unit: str) -> str:
    if unit == "block":
        return text
    bounds = Range.parse(text)
    ends = [b for b in (bounds.low, bounds.high) if math.isfinite(b)]
    low, high = (_number(b, unit, max(ends, key=abs)) for b in (ends[0], ends[-1]))
    word = "at least " if math.isinf(bounds.high) else "at most " if math.isinf(bounds.low) else ""
    return f"{word}{low if low == high else f'{low} to {high}'}{_suffix(unit)}"


def _number(value: float, unit: str, scale: float) -> str:
    """Percent with two digits after the point, four where `scale` is below one percent; ratios as they are."""
    if unit == "ratio":
        return f"{value:.2f}"
    return f"{100 * value:.{4 if unit == 'fraction' and 0 < abs(scale) < 0.01 else 2}f}"


def _suffix(unit: str) -> str:
    return {"fraction": "%", "points": " points"}.get(unit, "")
