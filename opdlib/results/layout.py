"""Results as a folder of small tidy tables: written by `opd measure`, read by tables, notebooks and `opd summary`.

| file | a row is |
| --- | --- |
| `summary.json` | the numbers of the paper's tables; its presence means that the folder is complete |
| `provenance.json` | what was compared, with versions and reasons for everything left out; a digest of each file |
| `tensors.csv` | one parameter |
| `sparsity.csv` | one parameter at one threshold |
| `energy.csv` | one parameter at one share of coordinates; an empty `tensor` is the whole model |
| `curve.csv` | one threshold, over the whole model |
| `magnitude.csv` | one binade of abs(source), over the whole model |
| `geometry.csv` | one number of one matrix (unless only sparsity was measured) |
| `undefined.csv` | one number of one matrix that is undefined, with the reason |
| `nulls.csv` | one number that a null expects, of a parameter or of a matrix (unless nulls were left out) |

A file is read only if it has the digest that provenance.json says, and that is read only if it has its own. Ends of
lines do not count, since git may change them.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

from opdlib.errors import OutputError, ParameterError, RegistryError
from opdlib.files import cache_root, data_root
from opdlib.foreign import foreign, read_bytes
from opdlib.registry.pairs import Pair, find_pair
from opdlib.registry.study import find_run
from opdlib.results.known import Provenance, Several, Summary, check_fit

SUMMARY = "summary.json"
PROVENANCE = "provenance.json"
TENSORS = "tensors.csv"
DIGESTS = "digests"
AGAIN = "measure the pair again"
FILES = (
    *(SUMMARY, PROVENANCE, TENSORS, "sparsity.csv", "energy.csv", "curve.csv", "magnitude.csv"),
    *("geometry.csv", "undefined.csv", "nulls.csv"),
)


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


def default_folder(name: str, view: str, digests: Sequence[str] = ()) -> Path:
    """Where results go that nobody gave a place: named like the pair. With `digests` of its checkpoints, which tell it
    from another pair of the same name: a trained checkpoint often lies in a folder that is called `bf16`."""
    content = [hashlib.sha256("".join(digests).encode()).hexdigest()[:8]] if digests else []
    return Path("runs/measured") / "-".join([folder_name(name), *([] if view == "bf16" else [view]), *content])


def folder_name(name: str) -> str:
    """`name`, if it can be that of a folder. Raises ParameterError if it leads elsewhere or cannot be seen."""
    if name != Path(name).name or name.startswith(".") or not name.isprintable():
        raise ParameterError(
            f"name {name!r} cannot be that of a results folder; wanted no /, no dot in front and nothing unprintable"
        )
    return name


def results_folder(name: str, view: str = "bf16") -> Path:
    """The folder of complete results that is `name`, or that of the pair `name` in this view; every file is checked.

    Raises RegistryError, with the command that makes them, if there are none, and for a file that does not check.
    """
    folder = Path(name)
    if folder.is_dir():
        if not (folder / SUMMARY).is_file():
            raise RegistryError(f"{folder}: no {SUMMARY}, so no complete results; run: opd measure ... --out {folder}")
        check(folder)
        return folder
    pair = find_pair(name)
    if state_of(pair, view) is State.COMPLETE:
        check(committed_folder(pair, view))
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


def summary_of(name: str, view: str | None = None, step: int | None = None) -> dict[str, Any]:
    """The summary of complete results (a folder or a pair), or of a run of the study, there also after a kept step.

    A folder has one view, that of its results; another is looked for in the folder of its name within. A pair is shown
    in view bf16 unless told otherwise. Raises RegistryError if there are no such results.
    """
    if Path(name).is_dir() and step is None:
        return _summary_within(results_folder(name), view)
    pair = None if Path(name).is_dir() else find_pair(name)
    view = view or "bf16"
    run = find_run(pair.key) if pair else None
    if pair and run and (step is not None or state_of(pair, view) is State.ROWS):
        from opdlib.results.study import open_study

        scale, arm, seed = run
        return open_study(scale.name).summary(arm.name, seed, view, step)
    if step is not None:
        raise RegistryError(f"{name}: only runs of the study were measured on the way; leave --step out")
    return read_summary(results_folder(name, view))


def _summary_within(folder: Path, view: str | None) -> dict[str, Any]:
    found = read_summary(folder)
    if view is None or found["view"] == view:
        return found
    if (folder / view / SUMMARY).is_file() and (other := read_summary(folder / view))["view"] == view:
        return other
    raise RegistryError(
        f"{folder}: holds results in view {found['view']}, not in view {view}; run: opd measure ... --view {view} "
        f"--out {folder / view}"
    )


def read_summary(folder: Path) -> dict[str, Any]:
    """The summary of a results folder. Raises RegistryError if it is missing or damaged."""
    found = _parsed(folder / SUMMARY, read_file(folder, SUMMARY, read_provenance(folder)))
    check_fit(Summary, found, folder / SUMMARY, RegistryError, AGAIN)
    return found


def read_provenance(folder: Path) -> dict[str, Any]:
    """The provenance of a results folder. Raises RegistryError if it is missing, damaged or without digests."""
    file = folder / PROVENANCE
    found = _parsed(file, read_bytes(file, RegistryError, AGAIN))
    if not isinstance(found.get(DIGESTS), dict) or found[DIGESTS].get(PROVENANCE) != _own_digest(found):
        raise RegistryError(f"{file}: was changed after it was written, or holds no {DIGESTS}; {AGAIN}")
    if strange := next((name for name in found[DIGESTS] if Path(name).name != name), None):
        raise RegistryError(f"{file}: names {strange!r}, which is no file beside it; {AGAIN}")
    identity = found.get("identity")
    wanted = Several if isinstance(identity, dict) and "what" in identity else Provenance
    check_fit(wanted, found, file, RegistryError, AGAIN)
    return found


def read_file(folder: Path, name: str, provenance: Mapping[str, Any]) -> bytes:
    """The content of a file of results, as `provenance` knows it. Raises RegistryError if it is missing or another."""
    content = read_bytes(folder / name, RegistryError, f"the results are not whole, {AGAIN}")
    if _digest(content) != provenance[DIGESTS].get(name):
        raise RegistryError(
            f"{folder / name}: is not the file that {PROVENANCE} beside it knows by its digest: it was changed or cut "
            f"short; {AGAIN}"
        )
    return content


def check(folder: Path) -> dict[str, Any]:
    """The provenance of a results folder, after a look at every file that it names. Raises RegistryError for the first
    that is missing, damaged or changed."""
    provenance = read_provenance(folder)
    for name in provenance[DIGESTS]:
        if name != PROVENANCE:
            read_file(folder, name, provenance)
    return provenance


def holds(folder: Path, identity: Mapping[str, Any]) -> bool:
    """Whether the folder has results of exactly this measurement (`opdlib.measurement.schedule.identity`), whole."""
    try:
        return bool(read_provenance(folder)["identity"] == identity and check(folder))
    except RegistryError:
        return False


def is_whole(folder: Path) -> bool:
    """Whether the folder has results, and every file of them checks."""
    try:
        return bool(check(folder))
    except RegistryError:
        return False


def sealed(provenance: Mapping[str, Any], files: Mapping[str, str | bytes]) -> str:
    """The text of provenance.json for results of these files (name -> content): with a digest of each, and its own."""
    digests = {name: _digest(content) for name, content in sorted(files.items()) if name != PROVENANCE}
    whole = {**provenance, DIGESTS: digests}
    digests[PROVENANCE] = _own_digest(whole)
    return json.dumps(whole, indent=1, allow_nan=False) + "\n"


def refuse_other(folder: Path, identity: Mapping[str, Any]) -> None:
    """Raise OutputError if results of this measurement must not be written into `folder`, whose real path this is.

    That is so if it holds the results of other checkpoints, of another view or of other tensors, and if it holds a file
    by a name of results and is none. What is damaged may be replaced.
    """
    if folder.is_file():
        raise OutputError(f"{folder}: cannot be written, it is a file; choose a folder")
    there = [name for name in FILES if (folder / name).exists()]
    if there and PROVENANCE not in there and not {SUMMARY, TENSORS} <= set(there):
        raise OutputError(
            f"{folder / there[0]}: is in the way, no measurement wrote it; move it or choose another --out"
        )
    try:
        found = read_provenance(folder)
    except RegistryError:
        return
    if any(found["identity"][key] != identity[key] for key in ("source", "trained", "view", "skip")):
        raise OutputError(
            f"{folder}: holds the results of another measurement, {found['pair']} in view {found['identity']['view']} "
            f"({found['source']['spec']}, {found['trained']['spec']}); choose another --out, or remove them first"
        )


def _own_digest(provenance: Mapping[str, Any]) -> str:
    others = {name: digest for name, digest in provenance[DIGESTS].items() if name != PROVENANCE}
    return _digest(json.dumps({**provenance, DIGESTS: others}, sort_keys=True))


def _digest(content: str | bytes) -> str:
    raw = content.encode() if isinstance(content, str) else content
    return hashlib.sha256(raw.replace(b"\r\n", b"\n")).hexdigest()


def find_by_content(identity: dict[str, Any]) -> Path | None:
    """The results of exactly this measurement, committed ones first, then the user's cache.

    What is damaged or not whole is passed over. The scale of a null may be better known in committed results.
    """
    committed = sorted(p.parent for p in (data_root() / "results").rglob(TENSORS))
    return next((folder for folder in [*committed, cached_folder(identity)] if holds(folder, identity)), None)


def cached_folder(identity: dict[str, Any]) -> Path:
    """Where results of this measurement lie in the user's cache, whether or not they are there.

    The name is a digest of the whole identity, so that no measurement takes the place of another.
    """
    content = json.dumps(identity, sort_keys=True).encode()
    return cache_root() / "results" / hashlib.sha256(content).hexdigest()[:32]


def csv_text(rows: Iterable[Mapping[str, Any]], columns: Sequence[str] | None = None) -> str:
    """Rows as CSV, floats in the shortest form that reads back the same; `columns` of a table that may have no rows."""
    import pandas as pd  # only now: measuring has its peak of memory before

    table = pd.DataFrame([*rows], columns=None if columns is None else [*columns], dtype=object)
    text = table.to_csv(index=False, lineterminator="\n")
    if "\r" not in text:
        return text
    # A carriage return in a name is only quoted where it is part of what ends a line.
    return re.sub(
        r'("(?:[^"]|"")*")|\r\n', lambda found: found[1] or "\n", table.to_csv(index=False, lineterminator="\r\n")
    )


def _parsed(file: Path, content: bytes) -> dict[str, Any]:
    with foreign(f"{file}: not readable as JSON", RegistryError, AGAIN):
        found = json.loads(content)
    if not isinstance(found, dict):
        raise RegistryError(f"{file}: holds a {type(found).__name__}, wanted a JSON object; {AGAIN}")
    return found
