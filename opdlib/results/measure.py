"""Measure a pair and write its folder of results; what the files hold is said in `opdlib.results.layout`."""

from __future__ import annotations

import csv
import io
import json
import platform
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import opdlib
from opdlib.checkpoints.checkpoint import Checkpoint
from opdlib.files import write_together
from opdlib.measurement.schedule import METRICS, Job, Measurement, identity, measure_all
from opdlib.results import write as rows
from opdlib.results.layout import PROVENANCE, SUMMARY, read_provenance
from opdlib.results.summarize import summarize, undefined

LEDGER = ".ledger"


def write(measurement: Measurement, folder: Path, note: str = "") -> Path:
    """Write all tables of a measurement into `folder`, whole or not at all, and return it. Raises OutputError.

    `note` goes into the provenance, for results that need a word of warning.
    """
    summary = summarize(measurement)
    files: dict[str, str | bytes] = {
        "tensors.csv": _csv(rows.of_tensors(measurement)),
        "sparsity.csv": _csv(rows.of_sparsity(measurement)),
        "energy.csv": _csv(rows.of_energy(measurement)),
        "curve.csv": _csv(rows.of_curve(measurement.histogram)),
        "magnitude.csv": _csv(rows.of_magnitude(measurement.histogram)),
        PROVENANCE: _json(_provenance(measurement, undefined(summary), note)),
        SUMMARY: _json(summary),
    }
    if measurement.matrices is not None:
        files |= {
            "geometry.csv": _csv(rows.of_geometry(measurement.matrices), rows.GEOMETRY),
            "undefined.csv": _csv(rows.of_reasons(measurement.matrices), rows.REASONS),
        }
    write_together(folder, files, last=SUMMARY)
    return folder


@dataclass(frozen=True)
class Order:
    """A trained checkpoint to measure, and the folder that its results go to."""

    folder: Path
    name: str
    trained: Checkpoint
    skip: tuple[str, ...] = ()
    note: str = ""


def measure_together(
    source: Checkpoint,
    orders: Sequence[Order],
    *,
    view: str = "bf16",
    metrics: Sequence[str] = METRICS,
    **options: Any,
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
    jobs = [Job(order.name, order.trained, order.skip, order.folder / LEDGER) for order in orders]
    measurements = measure_all(source, jobs, view=view, metrics=metrics, **options)
    for order, measurement in zip(orders, measurements, strict=True):
        write(measurement, order.folder, order.note)
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


def _csv(lines: Iterable[dict[str, Any]], columns: Sequence[str] = ()) -> str:
    """`columns` is the header of a table that may have no rows."""
    listed = list(lines)
    stream = io.StringIO()
    writer = csv.DictWriter(stream, fieldnames=list(listed[0]) if listed else columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(listed)
    return stream.getvalue()


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
