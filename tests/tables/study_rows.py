"""Runs of a study that were never run, as rows of its tables, written as the collector writes them."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from opdlib.registry.study import find_scale
from opdlib.results.collect import add_rows
from opdlib.results.flat import headline
from opdlib.results.layout import csv_text
from opdlib.results.study import COLUMNS

Row = dict[str, Any]


def run(
    arm: str,
    seed: int,
    accuracy: float,
    source: float,
    measured: Mapping[tuple[str, int], Row],
    curve: pd.DataFrame | None = None,
    **facts: Any,
) -> dict[str, list[Row]]:
    """The rows of one run by table. `measured`: view and step -> summary; the last step is that of the end."""
    last, key = max(step for _, step in measured), {"arm": arm, "seed": seed}
    scores = {"accuracy": accuracy, "low": accuracy - 0.03, "high": accuracy + 0.03, "n": 1000}
    known = {"steps": last, "task": "sums", "source.accuracy": source} | facts
    known |= {f"student.{name}": value for name, value in scores.items()}
    rows: dict[str, list[Row]] = {"runs": [], "steps": [], "curves": []}
    for (view, step), summary in measured.items():
        if step == last:
            rows["runs"].append(key | {"view": view} | known | headline(summary))
        else:
            rows["steps"].append(key | {"view": view, "step": step} | headline(summary))
    for logged in [] if curve is None else curve.astype(object).to_dict("records"):
        rows["curves"].append(key | {str(name): None if pd.isna(value) else value for name, value in logged.items()})
    return rows


def write_study(root: Path, runs: Iterable[dict[str, list[Row]]], scale: str = "pico", **tables: list[Row]) -> Path:
    """Add these runs to the tables of the scale below `root`; `tables` are written as they are."""
    found: dict[str, list[Row]] = {"runs": [], "steps": [], "curves": []}
    for one in runs:
        for name, rows in one.items():
            found[name] += rows
    add_rows(find_scale(scale), root / scale, found)
    for name, rows in tables.items():
        (root / scale).mkdir(parents=True, exist_ok=True)
        (root / scale / f"{name}.csv").write_text(csv_text(rows, COLUMNS[name]), encoding="utf8")
    return root
