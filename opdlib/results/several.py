"""Results of several checkpoints over one source, in a folder: one table, and a provenance that says it is whole.

| what | table | a row is |
| --- | --- | --- |
| `trajectory` | `trajectory.csv` | one checkpoint of a training |
| `comparison` | `comparison.csv` | two checkpoints |
"""

import io
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import pandas as pd

from opdlib.checkpoints.checkpoint import Checkpoint
from opdlib.errors import OutputError
from opdlib.files import locked, write_together
from opdlib.measurement.comparison import compare_all
from opdlib.measurement.ledger import Ledger
from opdlib.measurement.overlap import ATOL, check_atol
from opdlib.measurement.path import measure_path
from opdlib.results.layout import PROVENANCE, csv_text, holds, is_whole, sealed
from opdlib.results.measure import ledger_of, versions
from opdlib.results.write import blank

FORMAT = 1
"""Raised whenever a number in the tables changes its meaning."""

Named = Sequence[tuple[str, Checkpoint]]
Rows = Sequence[Mapping[str, Any]]


def follow(
    folder: Path,
    source: Checkpoint,
    steps: Sequence[tuple[int, str, Checkpoint]],
    *,
    view: str = "bf16",
    skip: Sequence[str] = (),
    rename: Mapping[str, str] | None = None,
    **options: Any,
) -> pd.DataFrame:
    """`opdlib.measurement.path.measure_path` of checkpoints (step, name, weights), in the order of their steps.

    Columns: step, name, then the keys of the numbers; NaN where one is undefined. The table is kept in `folder`, and
    taken from there if it is of these checkpoints; what was killed goes on. Raises OutputError if `folder` has results
    of something else.
    """
    ordered = sorted(steps, key=lambda step: step[0])
    named = [(name, checkpoint) for _, name, checkpoint in ordered]

    def rows(ledger: Ledger) -> Rows:
        found = measure_path(
            source, [c for _, c in named], view=view, skip=skip, rename=rename, ledger=ledger, **options
        )
        return [{"step": step, "name": name} | row for (step, name, _), row in zip(ordered, found, strict=True)]

    identity = _chosen(view, skip, rename) | {"steps": [step for step, _, _ in ordered]}
    return _kept(folder, "trajectory", source, named, identity, rows)


def compare(
    folder: Path,
    source: Checkpoint,
    named: Named,
    *,
    atol: float = ATOL,
    view: str = "bf16",
    skip: Sequence[str] = (),
    rename: Mapping[str, str] | None = None,
    **options: Any,
) -> pd.DataFrame:
    """`opdlib.measurement.comparison.compare_all` of checkpoints by name: columns a, b, then the keys of the numbers.

    For the rest see `follow`.
    """

    check_atol(atol)

    def rows(ledger: Ledger) -> Rows:
        trained = [checkpoint for _, checkpoint in named]
        found = compare_all(source, trained, atol=atol, view=view, skip=skip, rename=rename, ledger=ledger, **options)
        pairs = combinations([name for name, _ in named], 2)
        return [{"a": a, "b": b} | row for (a, b), row in zip(pairs, found, strict=True)]

    return _kept(folder, "comparison", source, named, _chosen(view, skip, rename) | {"atol": atol}, rows)


def _chosen(view: str, skip: Sequence[str], rename: Mapping[str, str] | None) -> dict[str, Any]:
    """What of a measurement's identity the user chose."""
    return {"view": view, "skip": sorted(skip), **({"rename": dict(rename)} if rename else {})}


def _kept(
    folder: Path,
    what: str,
    source: Checkpoint,
    named: Named,
    options: Mapping[str, Any],
    rows: Callable[[Ledger], Rows],
) -> pd.DataFrame:
    sides = {name: checkpoint.origin() for name, checkpoint in named}
    digests = {"source": source.digest(), "trained": {name: side["digest"] for name, side in sides.items()}}
    identity = {"what": what, "format": FORMAT, **digests, **options}
    table = f"{what}.csv"
    with locked(folder, what) as place:
        if (place / PROVENANCE).exists() and is_whole(place) and not holds(place, identity):
            raise OutputError(f"{folder}: holds other results; give another folder with --out, or remove it first")
        ledger = Ledger(ledger_of(place), identity)
        if not holds(place, identity):
            content = csv_text([{key: blank(value) for key, value in row.items()} for row in rows(ledger)])
            provenance = {"source": source.origin(), "trained": sides, "identity": identity, "versions": versions()}
            for checkpoint in (source, *(own for _, own in named)):
                checkpoint.check_unchanged()
            files = {table: content}
            write_together(place, files | {PROVENANCE: sealed(provenance, files)}, (table, PROVENANCE))
        ledger.clear()  # also what was left by one that was killed when it had written its table
        text = (place / table).read_text(encoding="utf8")
    return pd.read_csv(io.StringIO(text), dtype={"name": str, "a": str, "b": str})
