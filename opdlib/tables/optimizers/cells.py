"""Cells of the tables of the optimizer ablation: what an arm is called, a mean with its interval."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import pandas as pd

from opdlib.quantities import MISSING, as_text, quantity, short
from opdlib.registry.study import FULL
from opdlib.tables.optimizers.sweep import OPTIMIZERS
from opdlib.tables.text import points, with_interval

HEADINGS = {
    "exact_zero": "unchanged, bf16",
    "stored": "unchanged, masters",
    "projection_expected.joint.0.1": "chance",
    "coverage_ceiling.low.0.1": "ceiling",
}
"""Number -> its heading where that is not its label. `stored` is `exact_zero` in the other view."""


def label(optimizer: str, rate: float) -> str:
    """What an arm is called: AdamW 1e-5."""
    return f"{OPTIMIZERS[optimizer]} {short(rate)}"


def names(arms: pd.DataFrame) -> dict[str, str]:
    """Arm -> what it is called, the one that all are compared with marked."""
    found = {a["arm"]: label(a["optimizer"], a["learning_rate"]) for a in arms.to_dict("records")}
    found |= {a["arm"]: f"{found[a['arm']]}, zero gradient" for a in arms.to_dict("records") if a["gradient"] == "zero"}
    return found | ({FULL: f"{found[FULL]} ({FULL})"} if FULL in found else {})


def difference(value: float, low: float, high: float) -> str:
    """A difference of two shares in percentage points, with its interval where there is one."""
    return with_interval(value, low, high, partial(points, plain=True))


def by(table: pd.DataFrame, column: str) -> dict[str, dict[str, Any]]:
    """The rows of a table as dictionaries, by the value of one column."""
    return {str(row[column]): {str(k): v for k, v in row.items()} for row in table.to_dict("records")}


def heading(key: str) -> str:
    """What a column of this number is called."""
    return HEADINGS.get(key) or quantity(key).label


def cell(key: str, row: Mapping[Any, Any]) -> str:
    """Mean and interval; an interval ends where the quantity does, at 0 and, for a share, at 1."""
    kind = quantity("exact_zero" if key == "stored" else key).kind
    ends = max(float(row["low"]), 0.0), min(float(row["high"]), 1.0 if kind == "share" else math.inf)
    middle, low, high = (as_text(kind, x) for x in (float(row["value"]), *ends))
    return middle if MISSING in (low, high) or low == high else f"{middle} ({low} to {high})"
