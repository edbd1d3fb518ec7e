"""What a report is about: result folders, pairs that have results, or checkpoints, which are measured first."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opdlib.checkpoints import short_name
from opdlib.checkpoints.series import listed, names_of, step_of
from opdlib.errors import ParameterError, RegistryError
from opdlib.report.content import Reported
from opdlib.results.known import check_fit
from opdlib.results.layout import DIGESTS, PROVENANCE, SUMMARY, check, results_folder
from opdlib.results.open import Results

if TYPE_CHECKING:
    from opdlib.checkpoints.checkpoint import Checkpoint

METRICS = ("sparsity", "geometry", "nulls")


def gathered(words: Sequence[str], names: Sequence[str] = (), **options: Any) -> list[Results]:
    """The results that a report of `words` shows, in their order.

    Either each word is a folder of results, a folder with such folders in it, or a pair with results; or the first is a
    source checkpoint and the others are what was trained from it, as `opd measure` takes them. What was measured of
    them before is taken from the user's cache, the rest is measured into it, with `options` of `measure_together`.
    Raises ParameterError for results over two sources or views, and for as many names as do not fit.
    """
    if not words:
        raise ParameterError("report takes SOURCE TRAINED..., or result folders; see opd report --help")
    inside = [_folders(word) for word in words]
    if all(inside):
        folders = [folder for own in inside for folder in own]
        _check_names(names, len(folders))
        found = [Results(folder, name) for folder, name in zip(folders, names or [""] * len(folders), strict=True)]
    elif any(inside) and len(words) > 1 and inside[0]:
        strange = next(word for word, own in zip(words, inside, strict=True) if not own)
        raise ParameterError(
            f"{strange}: holds no results ({SUMMARY}); wanted result folders only, or SOURCE TRAINED..."
        )
    elif len(words) == 1:
        raise ParameterError(
            f"{words[0]}: no results ({SUMMARY}) in it; wanted result folders, or a source and what was trained from it"
        )
    else:
        found = _measured(words[0], words[1:], names, options)
    _check_alike(found)
    return found


def _check_names(names: Sequence[str], count: int) -> None:
    if names and len(names) != count:
        raise ParameterError(f"--name: {len(names)} names for {count} pairs; give one for each, or none")


def _folders(word: str) -> list[Path]:
    """The folders of results that a word stands for; none for a checkpoint."""
    folder = Path(word).expanduser()
    if (folder / SUMMARY).is_file():
        return [folder]
    if folder.is_dir():
        return sorted((file.parent for file in folder.glob(f"*/{SUMMARY}")), key=_in_order)
    try:
        return [results_folder(word)] if "/" not in word and ":" not in word else []
    except RegistryError:
        return []


def _in_order(folder: Path) -> tuple[int, str]:
    step = step_of(folder.name)
    return -1 if step is None else step, folder.name


def _check_alike(pairs: Sequence[Results]) -> None:
    for results in pairs:
        check_fit(Reported, results.summary, f"{results.title}: its summary", ParameterError, "measure the pair again")
    for other in pairs[1:]:
        for what in ("source", "view"):
            first, own = (results.provenance["identity"][what] for results in (pairs[0], other))
            if first != own:
                raise ParameterError(
                    f"{other.title}: measured over another {what} than {pairs[0].title} ({own[:12]} and {first[:12]}); "
                    "a report is about one; make one for each"
                )


def _measured(source: str, trained: Sequence[str], names: Sequence[str], options: Mapping[str, Any]) -> list[Results]:
    from opdlib.checkpoints import open_checkpoint
    from opdlib.measurement.schedule import identity
    from opdlib.results.layout import cached_folder, find_by_content
    from opdlib.results.measure import Order, measure_together

    specs = listed(trained)
    _check_names(names, len(specs))
    called = names or (names_of(specs) if len(specs) > 1 else [short_name(specs[0])])
    chosen: dict[str, Any] = {"view": "bf16", "metrics": METRICS, "skip": (), "rename": {}}
    view, metrics, skip, rename = (options.get(key, usual) for key, usual in chosen.items())
    more = {key: value for key, value in options.items() if key not in chosen}
    before, sides = open_checkpoint(source), [open_checkpoint(spec) for spec in specs]
    known = [identity(before.digest(), side.digest(), view, skip, metrics, rename) for side in sides]
    there = [find_by_content(one) for one in known]
    wanted = [
        Order(name, side, tuple(skip), rename=rename, folder=cached_folder(one))
        for one, name, side, found in zip(known, called, sides, there, strict=True)
        if found is None
    ]
    measure_together(before, wanted, view=view, metrics=metrics, once=True, **more)
    folders = [found or cached_folder(one) for found, one in zip(there, known, strict=True)]
    return [_renamed(*each, before) for each in zip(folders, called, sides, strict=True)]


def _renamed(folder: Path, name: str, trained: Checkpoint, source: Checkpoint) -> Results:
    """Results of these checkpoints, which may have been measured of copies elsewhere: a report names what it was asked
    for."""
    provenance = check(folder) | {"source": source.origin(), "trained": trained.origin()}
    files = {name: (folder / name).read_text(encoding="utf8") for name in provenance[DIGESTS]}
    return Results(None, name, files=files | {PROVENANCE: json.dumps(provenance)})
