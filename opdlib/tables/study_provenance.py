"""What the runs of a study were made with and judged on, from their own records.

Tables for the reader: one row a fact, everything that occurs joined by semicolons.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from opdlib.files import data_root
from opdlib.registry.study import find_scale
from opdlib.tables.written import headed

DIGITS = 16
"""First hex digits of a digest that are shown."""
SIDES = ("source", "teacher")
PACKAGES = ("opdlib", "torch", "transformers", "trl")
"""What `origins` tells of the packages."""


def provenance(scale: str, arms: Sequence[str], results: Path | None = None) -> pd.DataFrame:
    """How many runs, over which source and teachers (digests), with which code, packages and machine.

    Empty if there is no run that says so.
    """
    folders = [f for f in _folders(scale, arms, results) if (f / "environment.json").is_file()]
    return _joined(scale, [_made(folder) for folder in folders]) if folders else pd.DataFrame()


def origins(scale: str, arms: Sequence[str], results: Path | None = None) -> pd.DataFrame:
    """How many runs, over which source and teachers (digests), how good those are on which held-out problems, and with
    which packages."""
    return _joined(scale, [_judged(folder) for folder in _folders(scale, arms, results)])


def _folders(scale: str, arms: Sequence[str], results: Path | None) -> list[Path]:
    """The records of every finished run of these arms."""
    root, known = results or data_root() / "results", find_scale(scale).arms
    folders = [root / pair / "training" for arm in arms if arm in known for pair in known[arm].pairs]
    return [folder for folder in folders if (folder / "complete.json").is_file()]


def _joined(scale: str, runs: Sequence[Mapping[str, str]]) -> pd.DataFrame:
    found: dict[str, dict[str, None]] = {}
    for facts in runs:
        for name, fact in facts.items():
            found.setdefault(name, {})[fact] = None
    rows = {"runs": str(len(runs))} | {name: "; ".join(values) for name, values in found.items()}
    return headed(pd.DataFrame({scale: [*rows.values()]}, index=pd.Index([*rows], name="what")))


def _made(folder: Path) -> dict[str, str]:
    made = _json(folder / "environment.json")
    changed = " (with uncommitted changes)" if made["git"]["dirty"] else ""
    return _digests(folder) | {
        "code": f"{str(made['git']['commit'])[:8]}{changed}",
        "packages": ", ".join(f"{name} {made['packages'][name]}" for name in sorted(made["packages"])),
        "device": f"{made['device']}, {made['threads']} threads",
    }


def _judged(folder: Path) -> dict[str, str]:
    made, scores = _json(folder / "environment.json"), _json(folder / "evaluation.json")
    facts = _digests(folder) | {"held-out problems": f"{scores['student']['n']} ({scores['student']['task']})"}
    facts |= {f"{side}'s accuracy": f"{scores[side]['accuracy']:.1%}" for side in SIDES if side in scores}
    facts["python"] = made["python"]
    facts["trained with"] = ", ".join(
        f"{name} {made['packages'][name]}" for name in PACKAGES if name in made["packages"]
    )
    return facts


def _digests(folder: Path) -> dict[str, str]:
    digests = _json(folder / "complete.json")["digests"]
    return {f"{side} digest": digests[side][:DIGITS] for side in SIDES if side in digests}


def _json(file: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf8"))
    return content
