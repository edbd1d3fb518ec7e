"""The tables of the page on masked training about what runs share, as text. For display only: numbers are rounded."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from opdlib.quantities import MISSING, short
from opdlib.tables import study
from opdlib.tables.subnetwork.overlap import NAMES
from opdlib.tables.text import number, percent

LABEL = "OPD and"
SHORT = {"global": "global", "tensor": "tensor", "magnitude": "magn."}
"""Baseline -> its name in the heading of a column."""


def overlaps(table: pd.DataFrame) -> pd.DataFrame:
    """A row for each comparison of `overlap.by_comparison` at one threshold, or of its `published`."""
    rows = [
        _key(row)
        | {
            "pairs": f"{row.get('pairs', math.nan):.0f}".replace("nan", "1"),
            "in OPD": percent(row["density_a"]),
            "in the other": percent(row["density_b"]),
            "o1": percent(row["o1"]),
            "o2": percent(row["o2"]),
            "Jaccard": number(row.get("jaccard", math.nan)),
            **{f"chance, {name}": percent(row.get(f"{base}_o1", math.nan)) for base, name in SHORT.items()},
        }
        for row in table.to_dict("records")
    ]
    return study.text_table(rows, LABEL)


def ratios(table: pd.DataFrame) -> pd.DataFrame:
    """A row for each comparison, the paper's included: shared changes over those of chance, global and within
    magnitudes, at each threshold; the most that the former could be at the highest of them, and the excess there."""
    rows = {tuple(_key(row).values()): _key(row) for row in table.to_dict("records")}
    ends = {}
    for row in table.sort_values("atol", kind="stable").to_dict("records"):
        key = tuple(_key(row).values())
        for base in ("global", "magnitude"):
            rows[key][f"{SHORT[base]}, {short(row['atol'])}"] = number(row.get(f"ratio_{base}", math.nan))
        most = max(row["density_a"], row["density_b"])
        ends[key] = {"most": number(1 / most if most else math.nan), "excess": percent(row.get("excess", math.nan), 0)}
    shown = study.text_table([own | ends[key] for key, own in rows.items()], LABEL)
    return shown[[*(column for column in shown if column not in ("most", "excess")), "most", "excess"]]


def _key(row: Mapping[Any, Any]) -> dict[str, str]:
    """What a row is called, and whether its runs share the seed; the paper's rows have a `pair`."""
    if isinstance(row.get("pair"), str):
        return {LABEL: f"paper: {row['with']}", "seed": MISSING}
    return {LABEL: NAMES[str(row["arm"])], "seed": str(row["seed"]).removesuffix(" seed")}
