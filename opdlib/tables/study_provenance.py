"""What the runs of a study were made with and judged on, from their own records.

Tables for the reader: one row a fact, everything that occurs joined by semicolons.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from opdlib.tables import study
from opdlib.tables.written import headed

DIGITS = 16
"""First hex digits of a digest that are shown."""
PACKAGES = ("opdlib", "torch", "transformers", "trl")
"""What `origins` tells of the packages."""

Run = Mapping[str, Any]


def provenance(scale: str, arms: Sequence[str], root: Path | None = None) -> pd.DataFrame:
    """How many runs, over which source and teachers (digests), with which code, packages and machine.

    Empty if there are none.
    """
    table = _joined(scale, arms, root, _made)
    return table if len(table) > 1 else pd.DataFrame()


def origins(scale: str, arms: Sequence[str], root: Path | None = None) -> pd.DataFrame:
    """How many runs, over which source and teachers (digests), how good those are on which held-out problems, and with
    which packages."""
    return _joined(scale, arms, root, _judged)


def _joined(
    scale: str, arms: Sequence[str], root: Path | None, facts_of: Callable[[Run], dict[str, str]]
) -> pd.DataFrame:
    table = study.runs(scale, [*arms], root=root)
    table = table.sort_values("arm", key=lambda names: names.map([*arms].index), kind="stable")
    found: dict[str, dict[str, None]] = {}
    for run in table.to_dict("records"):
        known = {str(name): fact for name, fact in run.items() if fact != "" and not pd.isna(fact)}
        for name, fact in (_digests(known) | facts_of(known)).items():
            found.setdefault(name, {})[fact] = None
    rows = {"runs": str(len(table))} | {name: "; ".join(values) for name, values in found.items()}
    return headed(pd.DataFrame({scale: [*rows.values()]}, index=pd.Index([*rows], name="what")))


def _digests(run: Run) -> dict[str, str]:
    sides = [side for side in ("source", "teacher") if f"digest.{side}" in run]
    return {f"{side} digest": run[f"digest.{side}"][:DIGITS] for side in sides}


def _made(run: Run) -> dict[str, str]:
    changed = " (with uncommitted changes)" if run.get("git.dirty") else ""
    return {
        **({"code": f"{run['git.commit'][:8]}{changed}"} if "git.commit" in run else {}),
        "packages": _packages(run, sorted(name.partition(".")[2] for name in run if name.startswith("packages."))),
        "device": f"{run['device']}, {run['threads']} threads",
    }


def _judged(run: Run) -> dict[str, str]:
    return {
        "held-out problems": f"{run['n']} ({run['task']})",
        **{f"{side}'s accuracy": f"{run[column]:.1%}" for side, column in SCORES.items() if column in run},
        "python": run["python"],
        "trained with": _packages(run, PACKAGES),
    }


SCORES = {"source": "source_accuracy", "teacher": "teacher.accuracy"}


def _packages(run: Run, names: Sequence[str]) -> str:
    return ", ".join(f"{name} {run[f'packages.{name}']}" for name in names if f"packages.{name}" in run)
