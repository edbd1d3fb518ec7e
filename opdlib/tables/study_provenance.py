"""What the runs of a study were made with and judged on, from their own records.

Tables for the reader: one row a fact, everything that occurs joined by semicolons.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from opdlib.quantities import MISSING
from opdlib.tables import study
from opdlib.tables.written import headed

DIGITS = 16
"""First hex digits of a digest that are shown."""

Run = Mapping[str, Any]


def provenance(scales: str | Sequence[str], arms: Sequence[str], root: Path | None = None) -> pd.DataFrame:
    """How many runs, over which source and teachers (digests), with which code, packages and machine: a column for each
    scale that has runs. Empty if none has."""
    known = [_joined(scale, arms, root) for scale in ([scales] if isinstance(scales, str) else scales)]
    there = [table for table in known if len(table) > 1]
    return headed(pd.concat(there, axis=1).fillna(MISSING).rename_axis("what")) if there else pd.DataFrame()


def _joined(scale: str, arms: Sequence[str], root: Path | None) -> pd.DataFrame:
    table = study.runs(scale, [*arms], root=root)
    table = table.sort_values("arm", key=lambda names: names.map([*arms].index), kind="stable")
    found: dict[str, dict[str, None]] = {}
    for run in table.to_dict("records"):
        known = {str(name): fact for name, fact in run.items() if fact != "" and not pd.isna(fact)}
        for name, fact in (_digests(known) | _made(known)).items():
            found.setdefault(name, {})[fact] = None
    rows = {"runs": str(len(table))} | {name: "; ".join(values) for name, values in found.items()}
    return pd.DataFrame({scale: rows})


def _digests(run: Run) -> dict[str, str]:
    sides = [side for side in ("source", "teacher") if f"digest.{side}" in run]
    return {f"{side} digest": run[f"digest.{side}"][:DIGITS] for side in sides}


def _made(run: Run) -> dict[str, str]:
    packages = sorted(name for name in run if name.startswith("packages."))
    changed = " (with uncommitted changes)" if run.get("git.dirty") else ""
    return {
        **({"code": f"{run['git.commit'][:8]}{changed}"} if "git.commit" in run else {}),
        "packages": ", ".join(f"{name.partition('.')[2]} {run[name]}" for name in packages),
        "device": f"{run['device']}, {run['threads']} threads",
    }
