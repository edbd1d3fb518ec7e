"""Cells of the tables of the optimizer ablation: what an arm is called, a mean with its interval, a row of text."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from opdlib.tables.optimizers import BASE, OPTIMIZERS
from opdlib.tables.quantities import PLAIN, written
from opdlib.tables.readable import MISSING, headed, short

NAMES = {
    "accuracy": "accuracy",
    "rel_norm": "relative norm",
    "exact_zero": "unchanged, bf16",
    "stored": "unchanged, masters",
    "svd_energy.16": "top 16",
    "stable_rank": "stable rank",
    "projection.joint.0.1": "joint projection, 10%",
    "projection_expected.joint.0.1": "chance",
    "coverage.low.0.1": "low coverage, 10%",
    "coverage_ceiling.low.0.1": "ceiling",
}
"""Number of a summary -> heading."""
STATE = {"momentum_cosine": "momentum cosine", "second_moment_cv": "CV of sqrt(v)"}


def label(optimizer: str, rate: float) -> str:
    """What an arm is called: AdamW 1e-5."""
    return f"{OPTIMIZERS[optimizer]} {short(rate)}"


def names(arms: pd.DataFrame) -> dict[str, str]:
    """Arm -> what it is called, the one that all are compared with marked."""
    found = {a["arm"]: label(a["optimizer"], a["learning_rate"]) for a in arms.to_dict("records")}
    found |= {a["arm"]: f"{found[a['arm']]}, zero gradient" for a in arms.to_dict("records") if a["gradient"] == "zero"}
    return found | ({BASE: f"{found[BASE]} ({BASE})"} if BASE in found else {})


def points(value: float, low: float, high: float) -> str:
    """A difference of two shares in percentage points, with its interval where there is one."""
    if math.isnan(value):
        return MISSING
    middle, bottom, top = (f"{round(100 * x, 1) + 0.0:+.1f}" for x in (value, low, high))
    return middle if math.isnan(low) else f"{middle} ({bottom} to {top})"


def seeds_in_words(count: int) -> str:
    """1 seed, 5 seeds."""
    return f"{int(count)} seed{'s' if count != 1 else ''}"


def by(table: pd.DataFrame, column: str) -> dict[str, dict[str, Any]]:
    """The rows of a table as dictionaries, by the value of one column."""
    return {str(row[column]): {str(k): v for k, v in row.items()} for row in table.to_dict("records")}


def seeds(rows: Mapping[str, Mapping[str, Any]]) -> str:
    return str(int(max(row["seeds"] for row in rows.values())))


def three(value: float) -> str:
    return MISSING if math.isnan(value) else f"{value:.3g}"


def cell(quantity: str, row: Mapping[Any, Any]) -> str:
    """Mean and interval; an interval ends where the quantity does, at 0 and, for a share, at 1."""
    name, ends = NAMES[quantity], {"low": max(float(row["low"]), 0.0), "high": float(row["high"])}
    if name not in PLAIN:
        ends["high"] = min(ends["high"], 1.0)
    middle, low, high = (written(name, x) for x in (float(row["value"]), *ends.values()))
    return middle if MISSING in (low, high) or low == high else f"{middle} ({low} to {high})"


def number(row: Mapping[Any, Any]) -> str:
    text = f"{row['value']:.3f}"
    return text if math.isnan(row["low"]) else f"{text} ({row['low']:.3f} to {row['high']:.3f})"


def percent(share: float) -> str:
    return MISSING if math.isnan(share) else f"{100 * share:.0f}%"


def probability(value: float) -> str:
    return MISSING if math.isnan(value) else f"{value:.2g}" if value >= 1e-4 else "< 0.0001"


def table_of(rows: list[dict[str, str]], index: str) -> pd.DataFrame:
    """The rows, or one that says that there are none."""
    if not rows:
        return headed(pd.DataFrame({"": ["no runs yet"]}, index=pd.Index([MISSING], name=index)))
    return headed(pd.DataFrame(rows).fillna(MISSING).set_index(index))
