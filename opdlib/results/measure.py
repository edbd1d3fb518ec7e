"""Measure a pair and write its folder of results; what the files hold is said in `opdlib.results.layout`."""

from __future__ import annotations

import csv
import json
import math
import platform
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import opdlib
from opdlib.checkpoints import open_checkpoint, short_name
from opdlib.checkpoints.checkpoint import Checkpoint
from opdlib.files import write_together
from opdlib.measurement.schedule import METRICS, Job, Measurement, identity, measure_all, measure_pair
from opdlib.quantities import flat
from opdlib.results import write as rows
from opdlib.results.flat import undefined
from opdlib.results.layout import PROVENANCE, SUMMARY, TENSORS, csv_text, read_provenance
from opdlib.results.nulls import NULLS, of_nulls, refused
from opdlib.results.summarize import summarize

if TYPE_CHECKING:
    from opdlib.results.open import Results

LEDGER = ".ledger"


def measure(
    source: str | Path | Checkpoint,
    trained: str | Path | Checkpoint,
    *,
    name: str = "",
    view: str = "bf16",
    metrics: Sequence[str] = METRICS,
    skip: Sequence[str] = (),
    device: str = "auto",
    workers: int | None = None,
    memory: int | None = None,
    executor: Executor | None = None,
    progress: bool | None = False,
) -> Results:
    """Measure what training changed between two checkpoints; the numbers stay in memory until they are saved.

    `name` is what tables call the pair (default: the last part of the trained checkpoint's path). View bf16 rounds both
    to bf16 before it subtracts, `stored` takes them as they are. `metrics` are sparsity, geometry, nulls and draws (not
    by default); `skip` leaves tensors out, by name or pattern. `executor`, any of `concurrent.futures`, shares the work
    among its workers, on this machine or on others. For the rest see `measure_all` in `opdlib.measurement.schedule`.

    >>> import opdlib
    >>> measured = opdlib.measure("base", "trained", skip=["*norm*"], metrics=["sparsity"])
    >>> measured.summary["tensors"], round(measured.summary["sparsity"]["1e-04"], 2)
    (17, 0.45)
    >>> measured.tensors[["tensor", "size", "exact_zero"]].head(1)
                          tensor  size  exact_zero
    0  model.embed_tokens.weight   640         238
    >>> sorted(file.name for file in measured.save("runs/mine").iterdir())[:3]
    ['curve.csv', 'energy.csv', 'magnitude.csv']
    """
    from opdlib.results.open import Results

    before, after = open_checkpoint(source), open_checkpoint(trained)
    called = name or short_name(after.spec)
    measured = measure_pair(
        before,
        after,
        name=called,
        skip=skip,
        view=view,
        metrics=metrics,
        device=device,
        workers=workers,
        memory=memory,
        executor=executor,
        progress=progress,
    )
    return Results(None, name, files=files_of(measured))


def files_of(measurement: Measurement, note: str = "") -> dict[str, str]:
    """All files of the results of a measurement, by name. `note` goes into the provenance, a word of warning."""
    summary = summarize(measurement)
    files = {
        "tensors.csv": csv_text(rows.of_tensors(measurement)),
        "sparsity.csv": csv_text(rows.of_sparsity(measurement)),
        "energy.csv": csv_text(rows.of_energy(measurement)),
        "curve.csv": csv_text(rows.of_curve(measurement.histogram)),
        "magnitude.csv": csv_text(rows.of_magnitude(measurement)),
        PROVENANCE: _json(_provenance(measurement, undefined(dict(flat(summary))) | refused(measurement), note)),
        SUMMARY: _json(summary),
    }
    if measurement.matrices is not None:
        files |= {
            "geometry.csv": csv_text(rows.of_geometry(measurement.matrices), rows.GEOMETRY),
            "undefined.csv": csv_text(rows.of_reasons(measurement.matrices), rows.REASONS),
        }
    if "nulls" in measurement.metrics:
        files["nulls.csv"] = csv_text(of_nulls(measurement), NULLS)
    return files


def scales_of(stored: Path) -> dict[str, float]:
    """Root mean square of every tensor's delta, from results of view `stored`; empty if there are none."""
    file = stored / TENSORS
    if not file.is_file():
        return {}
    with file.open(encoding="utf8", newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if int(row["size"])]
    return {row["tensor"]: math.sqrt(float(row["energy"]) / int(row["size"])) for row in rows}


@dataclass(frozen=True)
class Order:
    """A trained checkpoint to measure, and the folder that its results go to."""

    folder: Path
    name: str
    trained: Checkpoint
    skip: tuple[str, ...] = ()
    note: str = ""
    scales: Mapping[str, float] = field(default_factory=dict)
    """See `opdlib.measurement.schedule.Job`."""


def job_of(order: Order) -> Job:
    """The order as the measurement sees it, with its ledger in its folder."""
    return Job(order.name, order.trained, order.skip, order.folder / LEDGER, order.scales)


def measure_together(
    source: Checkpoint, orders: Sequence[Order], *, view: str = "bf16", metrics: Sequence[str] = METRICS, **options: Any
) -> list[Measurement]:
    """Measure pairs over one source (`measure_all`) and write each one's results into its folder.

    After a kill, the same call goes on from the ledgers in those folders. Results of another measurement in a folder do
    not outlive the start of this one, so that what lies there is never mistaken for it.
    """
    for order in orders:
        summary = order.folder / SUMMARY
        if summary.is_file():
            ours = identity(source.digest(), order.trained.digest(), view, order.skip, metrics)
            if read_provenance(order.folder).get("identity") != ours:
                summary.unlink()
    measurements = measure_all(source, list(map(job_of, orders)), view=view, metrics=metrics, **options)
    for order, measurement in zip(orders, measurements, strict=True):
        write_together(order.folder, files_of(measurement, order.note), last=SUMMARY)
        shutil.rmtree(order.folder / LEDGER, ignore_errors=True)
    return measurements


def measure_into(
    folder: Path,
    source: Checkpoint,
    trained: Checkpoint,
    *,
    name: str,
    skip: Sequence[str] = (),
    note: str = "",
    **options: Any,
) -> Measurement:
    """Measure one pair into `folder`; see `measure_together`, which takes the same options."""
    return measure_together(source, [Order(folder, name, trained, tuple(skip), note)], **options)[0]


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, allow_nan=False) + "\n"


def _provenance(measurement: Measurement, reasons: dict[str, str], note: str) -> dict[str, Any]:
    packages = ("numpy", "numba", "torch", "safetensors")
    return {
        "pair": measurement.name,
        **({"note": note} if note else {}),
        **measurement.origins,
        "identity": measurement.identity,
        "tied_or_skipped": measurement.alignment.left_out,
        "renamed": {m.source: m.trained for m in measurement.alignment.matches if m.source != m.trained},
        "undefined": reasons,
        "device": measurement.device,
        "versions": {"opdlib": opdlib.__version__, "python": platform.python_version()}
        | {p: version(p) for p in packages},
    }
