"""The tables of the page on masked training about what runs share, as text. For display only: numbers are rounded."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from opdlib.quantities import MISSING, short
from opdlib.tables.subnetwork.overlap import NAMES
from opdlib.tables.subnetwork.written import text
from opdlib.tables.text import number, percent

SHORT = {"global": "global", "tensor": "tensor", "magnitude": "magn."}
"""Baseline -> its name in the heading of a column."""


def overlaps(table: pd.DataFrame) -> pd.DataFrame:
    """A row for each comparison of `overlap.by_comparison` at one threshold, or of its `published`."""
    rows = {
        _key(row): {
            "pairs": f"{row.get('pairs', math.nan):.0f}".replace("nan", "1"),
            "in OPD": percent(row["density_a"]),
            "in the other": percent(row["density_b"]),
            "o1": percent(row["o1"]),
            "o2": percent(row["o2"]),
            "Jaccard": number(row.get("jaccard", math.nan)),
            **{f"chance, {name}": percent(row.get(f"{base}_o1", math.nan)) for base, name in SHORT.items()},
        }
        for row in table.to_dict("records")
    }
    return _text(rows)


def ratios(table: pd.DataFrame) -> pd.DataFrame:
    """A row for each comparison, the paper's included: shared changes over those of chance, global and within
    magnitudes, at each threshold; the most that the former could be at the highest of them, and the excess there."""
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for row in table.sort_values("atol", kind="stable").to_dict("records"):
        own = rows.setdefault(_key(row), {})
        for base in ("global", "magnitude"):
            own[f"{SHORT[base]}, {short(row['atol'])}"] = number(row.get(f"ratio_{base}", math.nan))
        most = max(row["density_a"], row["density_b"])
        own["most"] = number(1 / most if most else math.nan)
        own["excess"] = percent(row.get("excess", math.nan), 0)
    keys = dict.fromkeys(map(_key, table.to_dict("records")))
    columns = [column for own in rows.values() for column in own]
    order = sorted(dict.fromkeys(columns), key=lambda name: (name in ("most", "excess"), name == "excess"))
    return _text({key: {column: rows[key].get(column, MISSING) for column in order} for key in keys})


def _key(row: Mapping[Any, Any]) -> tuple[str, str]:
    """What a row is called, and whether its runs share the seed; the paper's rows have a `pair`."""
    if isinstance(row.get("pair"), str):
        return f"paper: {row['with']}", MISSING
    return NAMES[str(row["arm"])], str(row["seed"]).removesuffix(" seed")


def _text(rows: dict[tuple[str, str], dict[str, str]]) -> pd.DataFrame:
    shown = text({str(place): {"seed": seeds} | row for place, ((_, seeds), row) in enumerate(rows.items())}, "OPD and")
    shown.index = pd.Index([name for name, _ in rows])
    return shown
