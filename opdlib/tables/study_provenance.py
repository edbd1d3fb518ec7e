"""What the runs of a study were made with, from their own records."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from opdlib.locations import data_root
from opdlib.study import find_scale
from opdlib.tables.readable import headed

DIGITS = 16
"""First hex digits of a digest that are shown."""


def provenance(scale: str, arms: Sequence[str], results: Path | None = None) -> pd.DataFrame:
    """For the reader: how many runs, over which source and teachers (digests), with which code, packages and machine.

    One row a fact, everything that occurs joined by commas. Empty if there is no run.
    """
    root, known = results or data_root() / "results", find_scale(scale).arms
    facts: dict[str, dict[str, None]] = {}
    count = 0
    for pair in [pair for arm in arms if arm in known for pair in known[arm].pairs]:
        folder = root / pair / "training"
        if not (folder / "complete.json").is_file() or not (folder / "environment.json").is_file():
            continue
        count += 1
        digests, made = (json.loads((folder / f).read_text()) for f in ("complete.json", "environment.json"))
        for side in ("source", "teacher"):
            if side in digests["digests"]:
                facts.setdefault(f"{side} digest", {})[digests["digests"][side][:DIGITS]] = None
        changed = " (with uncommitted changes)" if made["git"]["dirty"] else ""
        facts.setdefault("code", {})[f"{str(made['git']['commit'])[:8]}{changed}"] = None
        packages = ", ".join(f"{name} {made['packages'][name]}" for name in sorted(made["packages"]))
        facts.setdefault("packages", {})[packages] = None
        facts.setdefault("device", {})[f"{made['device']}, {made['threads']} threads"] = None
    rows = {"runs": str(count)} | {fact: "; ".join(values) for fact, values in facts.items()}
    return (
        headed(pd.DataFrame({scale: rows.values()}, index=pd.Index([*rows], name="what"))) if count else pd.DataFrame()
    )
