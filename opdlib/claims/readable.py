"""Comparisons for the eye, in percent and percentage points; what was not tested has no number. For display only."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from opdlib.quantities import MISSING


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """`compare` or `of_study` as text."""
    columns = ["id", "statement", "paper", "ours", "verdict", "control", "tolerance", "locator", "reason"]
    rows = []
    for row in table.to_dict("records"):
        low, high = (row.get(end, math.nan) for end in ("low_ours", "high_ours"))
        unit = row["unit"]
        text = {"paper": _range(row["low"], row["high"], unit), "ours": _interval(row["ours"], low, high, unit)}
        rows.append(row | text | {"tolerance": _tolerance(row["tolerance"], unit)})
    shown = pd.DataFrame(rows, columns=columns).set_index("id")
    return shown if any(table["reason"]) else shown.drop(columns="reason")


def listed(records: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """`records` as text, one row a claim, with who else passes: yes, no, or a dash where it does not apply."""
    ends = {None: -math.inf}, {None: math.inf}
    rows = []
    for record in records:
        low, high = (end.get(value, value) for end, value in zip(ends, record["paper"], strict=True))
        mean, lowest, highest = (math.nan if x is None else x for x in record["ours"] or [None] * 3)
        row = {name: record[name] for name in ("id", "clause")} | {"paper": _range(low, high, record["unit"])}
        row["tolerance"] = _tolerance(record["tolerance"], record["unit"])
        row |= {"ours": _interval(mean, lowest, highest, record["unit"]), "seeds": record["seeds"] or MISSING}
        row |= {"number": record["number"], "control": record["control"], "beside": record["control_kind"] or MISSING}
        told = {None: MISSING, True: "yes", False: "no"}
        rows.append(row | {who: told[passed] for who, passed in record["passes"].items()})
    return pd.DataFrame(rows)


def _interval(value: float, low: float, high: float, unit: str) -> str:
    text = MISSING if math.isnan(value) else f"{_number(value, unit, value)}{_suffix(unit)}"
    if math.isnan(low) or math.isnan(high) or low == high:
        return text
    return f"{text} ({_number(low, unit, value)} to {_number(high, unit, value)})"


def _tolerance(value: float, unit: str) -> str:
    if value == 0:
        return "none"
    return f"{value:g}" if unit == "ratio" else f"{100 * value:.2g} points"


def _range(low: float, high: float, unit: str) -> str:
    ends = [end for end in (low, high) if math.isfinite(end)]
    first, last = (_number(end, unit, max(ends, key=abs)) for end in (ends[0], ends[-1]))
    word = "at least " if math.isinf(high) else "at most " if math.isinf(low) else ""
    return f"{word}{first if first == last else f'{first} to {last}'}{_suffix(unit)}"


def _number(value: float, unit: str, scale: float) -> str:
    """Percent with two digits after the point, four where `scale` is below one percent; ratios as they are."""
    if unit == "ratio":
        return f"{value:.2f}"
    return f"{100 * value:.{4 if unit == 'fraction' and 0 < abs(scale) < 0.01 else 2}f}"


def _suffix(unit: str) -> str:
    return {"fraction": "%", "points": " points"}.get(unit, "")
