"""A report read back: is it as it was written, and do its checkpoints give its numbers?"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, Field

from opdlib.checkpoints import open_checkpoint
from opdlib.errors import VerifyError
from opdlib.foreign import foreign
from opdlib.report.content import FORMAT, Content, Reported, digest, entry_of
from opdlib.report.page import DATA, LARGEST, PAGE, PICTURE, PLACE, Pictures, render, text_of
from opdlib.results.compare import GEOMETRY_TOLERANCE, differences
from opdlib.results.known import MORE, Compared, Numbers, Origin, check_fit
from opdlib.results.layout import PROVENANCE, TENSORS, committed_folder
from opdlib.results.open import Results

if TYPE_CHECKING:
    from opdlib.checkpoints.checkpoint import Checkpoint
    from opdlib.measurement.parts import Job
    from opdlib.registry.pairs import Pair

UNMEASURED = ("provenance", "repeats", "name", "anchor")
"""What of an entry no measurement gives."""
SECTION = '<section id="at-'
"""How the part of a page begins that shows a pair."""


class Row(BaseModel):
    """A row of a table: words under these keys, numbers under all others."""

    model_config = MORE
    __pydantic_extra__: dict[str, Numbers]

    part: str = ""
    module: str = ""
    block: str = ""
    tensor: str = ""
    shape: str = ""


class Origins(Compared):
    """What an entry says of its checkpoints; `masters`: see `opdlib.report.content`."""

    masters: Origin | None = None


class Entry(BaseModel):
    """What a page must have of one pair before anything is computed of it."""

    model_config = MORE

    name: str
    regime: str
    view: str
    step: int | None
    anchor: str
    summary: Reported
    provenance: Origins
    dtypes: dict[str, list[str]]
    no_matrix: dict[str, int]
    repeats: dict[str, list[float]]
    whole: bool
    modules: list[Row]
    largest: list[Row]


class Page(BaseModel):
    """What a page must have."""

    model_config = MORE

    format: int
    pairs: list[Entry] = Field(min_length=1)
    pictures: dict[str, Annotated[list[str], Field(min_length=3, max_length=3)]]


def read(file: Path) -> Content:
    """The content of a report that is as it was written. Raises VerifyError with the first thing that is not.

    The numbers have a digest, the page has one, and the page is made again from the numbers and its pictures and
    compared, so that neither can be changed alone.
    """
    if not file.is_file():
        raise VerifyError(f"{file}: no such file; wanted a report that opd report wrote")
    if file.stat().st_size > LARGEST:
        raise VerifyError(f"{file}: {file.stat().st_size:,} bytes are no report of opd report, which has at most 5 MB")
    page = file.read_text(encoding="utf8", errors="replace")
    found, own = DATA.search(page), PAGE.search(page)
    if found is None or own is None:
        raise VerifyError(f"{file}: holds no numbers of a report; wanted a file that opd report wrote")
    if digest(found[2]) != found[1]:
        raise VerifyError(f"{file}: the numbers embedded in it were changed after it was written; make it again")
    with foreign(f"{file}: the numbers embedded in it are no report's", VerifyError, "make it again"):
        whole: Content = json.loads(found[2])
    check_fit(Page, whole, f"{file}: the numbers embedded in it are no report's", VerifyError, "make it again")
    if whole["format"] != FORMAT:
        raise VerifyError(f"{file}: a report of format {whole['format']}, wanted {FORMAT}; make it again")
    if (pairs := page.count(SECTION)) != len(whole["pairs"]):  # known before so many are made again
        raise VerifyError(f"{file}: it shows {pairs} pairs and has numbers of {len(whole['pairs'])}; make it again")
    recorded = whole.pop("pictures")
    shown = _pictures(file, page, recorded)
    for wrote, says in zip(text_of(render(whole, shown)), text_of(page), strict=False):
        if wrote != says:
            raise VerifyError(f"{file}: it shows {says[:120]!r} where its numbers give {wrote[:120]!r}; make it again")
    if digest(page.replace(own[1], PLACE, 1)) != own[1]:
        raise VerifyError(f"{file}: the page was changed after it was written; make it again")
    return whole


def _pictures(file: Path, page: str, recorded: dict[str, Any]) -> Pictures:
    with foreign(f"{file}: a figure", VerifyError, "make the report again"):
        found = {name: (kind, base64.b64decode(data)) for name, kind, data in PICTURE.findall(page)}
    for name, (kind, sha256, _) in recorded.items():
        if name not in found or found[name][0] != kind or digest(found[name][1]) != sha256:
            raise VerifyError(f"{file}: the figure {name} is not the one that was written; make the report again")
    return {name: (kind, found[name][1], alt) for name, (kind, _, alt) in recorded.items()}


def verify(file: Path, **options: Any) -> list[str]:
    """Measure again what a report names; the names of its pairs if every number agrees.

    Raises VerifyError for a page that is not as it was written, for a checkpoint whose digest is another, and for the
    first number that differs; and what opening and measuring raise. `options` as for `measure_all`.
    """
    from opdlib.measurement.schedule import measure_all
    from opdlib.results.measure import files_of

    entries = read(file)["pairs"]
    for entry in entries:
        _check_digest(file, entry, "source")
    source = open_checkpoint(entries[0]["provenance"]["source"]["spec"])
    for metrics in dict.fromkeys(tuple(entry["provenance"]["identity"]["metrics"]) for entry in entries):
        chosen = [entry for entry in entries if tuple(entry["provenance"]["identity"]["metrics"]) == metrics]
        jobs = [_job(file, source, entry, options) for entry in chosen]
        found = measure_all(source, jobs, view=entries[0]["view"], metrics=metrics, **options)
        for entry, measured in zip(chosen, found, strict=True):
            known = _known(entry)
            _compare(file, entry, Results(None, entry["name"], known, files=files_of(measured)))
    return [entry["name"] for entry in entries]


def _known(entry: Content) -> Pair | None:
    """The pair of the registry that was measured."""
    return Results(None, files={PROVENANCE: json.dumps(entry["provenance"])}).pair


def _job(file: Path, source: Checkpoint, entry: Content, options: Mapping[str, Any]) -> Job:
    from opdlib.measurement.parts import Job
    from opdlib.measurement.schedule import measure_all
    from opdlib.results.measure import files_of, scales_in, scales_of

    known, trained = _known(entry), _check_digest(file, entry, "trained")
    identity = entry["provenance"]["identity"]
    rename = identity.get("rename", {})
    job = Job(entry["summary"]["pair"], trained, tuple(identity["skip"]), rename=rename)
    if entry["view"] != "bf16" or entry["summary"].get("nulls_scale") != "fp32":
        return job
    if "masters" in entry["provenance"]:
        before = replace(job, trained=_check_digest(file, entry, "masters"))
        (found,) = measure_all(source, [before], view="stored", metrics=("sparsity",), **options)
        return replace(job, scales=scales_in(files_of(found)[TENSORS]))
    return replace(job, scales=scales_of(committed_folder(known, "stored"))) if known else job


def _compare(file: Path, entry: Content, measured: Results) -> None:
    again = entry_of(measured, entry["regime"], entry["whole"])
    ours, theirs = ({k: v for k, v in side.items() if k not in UNMEASURED} for side in (again, entry))
    if found := differences(ours, theirs, GEOMETRY_TOLERANCE):
        raise VerifyError(
            f"{file}: {entry['name']}: {found[0].replace('committed', 'and in the report')} (measured again); "
            f"{len(found)} numbers differ from those of the checkpoints that it names"
        )


def _check_digest(file: Path, entry: Content, side: str) -> Checkpoint:
    """The checkpoint that a report names, which must still be the one."""
    recorded = entry["provenance"][side]
    checkpoint = open_checkpoint(recorded["spec"])
    if checkpoint.digest() != recorded["digest"]:
        raise VerifyError(
            f"{file}: {entry['name']}: {recorded['spec']} has digest {checkpoint.digest()[:12]}, and had "
            f"{recorded['digest'][:12]} when it was measured; it is another checkpoint now"
        )
    return checkpoint
