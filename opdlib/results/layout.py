"""Results as a folder of small tidy tables: written by `opd measure`, read by tables, notebooks and `opd summary`.

| file | a row is |
| --- | --- |
| `summary.json` | the numbers of the paper's tables; its presence means that the folder is complete |
| `provenance.json` | what was compared, with digests, versions and reasons for everything left out |
| `tensors.csv` | one parameter |
| `sparsity.csv` | one parameter at one threshold |
| `energy.csv` | one parameter at one share of coordinates; an empty `tensor` is the whole model |
| `curve.csv` | one threshold, over the whole model |
| `magnitude.csv` | one binade of abs(source), over the whole model |
| `geometry.csv` | one number of one matrix (unless only sparsity was measured) |
| `undefined.csv` | one number of one matrix that is undefined, with the reason |
| `nulls.csv` | one number that a null expects, of a parameter or of a matrix (unless nulls were left out) |
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

from opdlib.errors import RegistryError
from opdlib.files import cache_root, data_root
from opdlib.registry.pairs import Pair, find_pair
from opdlib.registry.study import find_run
from opdlib.results.flat import NULLS, SPARSITY, without_nulls

SUMMARY = "summary.json"
SPARSITY_TOLERANCE, GEOMETRY_TOLERANCE = 1e-9, 1e-6
"""Relative differences within which two machines must agree: sums of squares, and what goes through an eigensolver."""
PROVENANCE = "provenance.json"
TENSORS = "tensors.csv"


class State(StrEnum):
    """What is here of a pair in one view."""

    COMPLETE = "complete results"
    ROWS = "rows of a study"
    ABSENT = "no results"


def state_of(pair: Pair, view: str = "bf16") -> State:
    """Complete results that opdlib comes with, else rows in the tables of the study, else nothing.

    Only complete results have tables of tensors and matrices; rows have the numbers of `opd summary`.
    """
    if all((committed_folder(pair, view) / name).is_file() for name in (SUMMARY, TENSORS)):
        return State.COMPLETE
    from opdlib.results.study import open_study

    run = find_run(pair.key)
    return State.ROWS if run and open_study(run[0].name).has(run[1].name, run[2], view) else State.ABSENT


def committed_folder(pair: Pair, view: str = "bf16") -> Path:
    """Where complete results that opdlib comes with lie: bf16 in data/results/<key>/, other views in folders there."""
    return data_root() / "results" / pair.key / ("" if view == "bf16" else view)


def results_folder(name: str, view: str = "bf16") -> Path:
    """The folder of complete results that is `name`, or that of the pair `name` in this view.

    Raises RegistryError, with the command that makes them, if there are none.
    """
    folder = Path(name)
    if folder.is_dir():
        if (folder / SUMMARY).is_file():
            return folder
        raise RegistryError(f"{folder}: no {SUMMARY}, so no complete results; run: opd measure ... --out {folder}")
    pair = find_pair(name)
    if state_of(pair, view) is State.COMPLETE:
        return committed_folder(pair, view)
    raise RegistryError(f"pair {pair.key!r}: {missing_tables(pair, view)}")


def missing_tables(pair: Pair, view: str = "bf16") -> str:
    """What is here of a pair without complete results, what is not, and the command that makes it."""
    run = find_run(pair.key)
    if run is None:
        return f"no committed results in view {view}; run: opd measure {pair.key} --view {view}"
    scale, arm, seed = run
    rows = (
        f"only its rows of the study are here (opd summary {pair.key} --view {view}), no tables of tensors and matrices"
    )
    found = rows if state_of(pair, view) is State.ROWS else "neither rows of the study nor tables are here"
    return f"{found}; to make them run: opd study {scale.name} --arms {arm.name} --seeds {seed}"


def summary_of(name: str, view: str = "bf16", step: int | None = None) -> dict[str, Any]:
    """The summary of complete results (a folder or a pair), or of a run of the study, there also after a kept step."""
    pair = None if Path(name).is_dir() else find_pair(name)
    run = find_run(pair.key) if pair else None
    if pair and run and (step is not None or state_of(pair, view) is State.ROWS):
        from opdlib.results.study import open_study

        scale, arm, seed = run
        return open_study(scale.name).summary(arm.name, seed, view, step)
    if step is not None:
        raise RegistryError(f"{name}: only runs of the study were measured on the way; leave --step out")
    return read_summary(results_folder(name, view))


def read_summary(folder: Path) -> dict[str, Any]:
    """The summary of a results folder. Raises RegistryError if it is missing or damaged."""
    return _read(folder / SUMMARY)


def read_provenance(folder: Path) -> dict[str, Any]:
    """The provenance of a results folder. Raises RegistryError if it is missing or damaged."""
    return _read(folder / PROVENANCE)


def find_by_content(identity: dict[str, Any]) -> Path | None:
    """The results of exactly this measurement (`opdlib.measurement.schedule.identity`), committed ones first, then the
    user's cache.

    A folder without tables is not whole, and passed over. The scale of a null may be better known in committed results.
    """
    committed = sorted(p.parent for p in (data_root() / "results").rglob(TENSORS))
    cached = cached_folder(identity)
    for folder in [*committed, *([cached] if (cached / SUMMARY).is_file() else [])]:
        if read_provenance(folder).get("identity") == identity:
            return folder
    return None


def cached_folder(identity: dict[str, Any]) -> Path:
    """Where results of this measurement lie in the user's cache, whether or not they are there.

    The name is a digest of the whole identity, so that no measurement takes the place of another.
    """
    content = json.dumps(identity, sort_keys=True).encode()
    return cache_root() / "results" / hashlib.sha256(content).hexdigest()[:32]


def csv_text(rows: Iterable[Mapping[str, Any]], columns: Sequence[str] | None = None) -> str:
    """Rows as CSV, floats in the shortest form that reads back the same; `columns` of a table that may have no rows."""
    import pandas as pd  # only now: measuring has its peak of memory before

    return pd.DataFrame([*rows], columns=None if columns is None else [*columns], dtype=object).to_csv(
        index=False, lineterminator="\n"
    )


def _read(file: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(file.read_text(encoding="utf8"))
    except (OSError, json.JSONDecodeError) as error:
        raise RegistryError(f"{file}: not readable ({error}); measure the pair again") from error
    return content


def disagreements(ours: dict[str, Any], committed: dict[str, Any], only: str | None = None) -> list[str]:
    """Where two summaries differ by more than the tolerances above; empty if they agree.

    `only` "sparsity" compares the first block alone, up to and including the layers. Of the committed nulls those are
    compared that ours has, for draws take long.
    """
    committed = without_nulls(committed) | {
        key: _of_ours(ours[key], committed[key]) for key in NULLS if key in ours and key in committed
    }
    blocks = [(SPARSITY_TOLERANCE, {*SPARSITY})]
    if only is None:
        blocks.append((GEOMETRY_TOLERANCE, {*ours, *committed} - {*SPARSITY}))
    found = []
    for rtol, keys in blocks:
        mine, theirs = ({key: value for key, value in side.items() if key in keys} for side in (ours, committed))
        found += differences(mine, theirs, rtol)
    return found


def _of_ours(ours: Any, theirs: Any) -> Any:
    """The part of a nested dictionary whose keys the other has, too."""
    if not (isinstance(ours, dict) and isinstance(theirs, dict)):
        return theirs
    return {key: _of_ours(ours[key], value) for key, value in theirs.items() if key in ours}


def differences(ours: Any, theirs: Any, rtol: float, key: str = "") -> list[str]:
    """Where two summaries differ: one line for each key that is missing, or whose numbers differ by more than `rtol`.

    Counts, names and None must be equal. Empty if there is nothing to tell.
    """
    if isinstance(ours, dict) and isinstance(theirs, dict):
        keys = sorted({*ours, *theirs})
        missing = [f"{f'{key}.{k}' if key else k} is only on one side" for k in keys if (k in ours) != (k in theirs)]
        shared: Iterable[tuple[Any, Any, str]] = [(ours[k], theirs[k], k) for k in keys if k in ours and k in theirs]
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        missing, shared = [], [(a, b, str(i)) for i, (a, b) in enumerate(zip(ours, theirs, strict=True))]
    elif isinstance(ours, float) and isinstance(theirs, float) and math.isclose(ours, theirs, rel_tol=rtol):
        return []
    else:
        return [] if ours == theirs else [f"{key} is {ours}, committed {theirs}"]
    return [*missing, *(line for a, b, k in shared for line in differences(a, b, rtol, f"{key}.{k}" if key else k))]
