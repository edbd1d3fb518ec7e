"""Measure a pair and write its folder of results; what the files hold is said in `opdlib.results`."""

from __future__ import annotations

import csv
import io
import json
import platform
import shutil
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

import opdlib
from opdlib.checkpoints import Checkpoint
from opdlib.measure import Measurement, identity, measure
from opdlib.metrics.histogram import DeltaHistogram
from opdlib.metrics.sparsity import survival
from opdlib.output import write_together
from opdlib.results import PROVENANCE, SUMMARY, read_provenance
from opdlib.summary import summarize, undefined

LEDGER = ".ledger"

FINEST, COARSEST, PER_OCTAVE = -40, -6, 8
"""The curve's thresholds: eight an octave from 2^-40 to 2^-6, each a bin edge, so that no bin is cut."""


def write(measurement: Measurement, folder: Path, note: str = "") -> Path:
    """Write all tables of a measurement into `folder`, whole or not at all, and return it. Raises OutputError.

    `note` goes into the provenance, for results that need a word of warning.
    """
    summary = summarize(measurement)
    files: dict[str, str | bytes] = {
        "tensors.csv": _csv(_tensor_rows(measurement)),
        "sparsity.csv": _csv(_sparsity_rows(measurement)),
        "energy.csv": _csv(_energy_rows(measurement)),
        "curve.csv": _csv(_curve_rows(measurement.histogram)),
        "magnitude.csv": _csv(_magnitude_rows(measurement.histogram)),
        PROVENANCE: _json(_provenance(measurement, undefined(summary), note)),
        SUMMARY: _json(summary),
    }
    write_together(folder, files, last=SUMMARY)
    return folder


def measure_into(
    folder: Path,
    source: Checkpoint,
    trained: Checkpoint,
    *,
    name: str,
    view: str = "bf16",
    skip: Sequence[str] = (),
    workers: int | None = None,
    progress: bool | None = False,
    note: str = "",
) -> Measurement:
    """Measure a pair (`opdlib.measure.measure`) and write the results into `folder`; after a kill, go on from its
    ledger.

    Results of another measurement in that folder do not outlive the start of this one, so that what lies there is never
    mistaken for it.
    """
    summary = folder / SUMMARY
    if summary.is_file():
        ours = identity(source.digest(), trained.digest(), view, skip)
        if read_provenance(folder).get("identity") != ours:
            summary.unlink()
    ledger = folder / LEDGER
    measurement = measure(
        source,
        trained,
        name=name,
        view=view,
        skip=skip,
        workers=workers,
        ledger=ledger,
        progress=progress,
    )
    write(measurement, folder, note)
    shutil.rmtree(ledger, ignore_errors=True)
    return measurement


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, allow_nan=False) + "\n"


def _csv(rows: Iterable[dict[str, Any]]) -> str:
    listed = list(rows)
    stream = io.StringIO()
    writer = csv.DictWriter(stream, fieldnames=list(listed[0]) if listed else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(listed)
    return stream.getvalue()


def _tensor_rows(measurement: Measurement) -> Iterator[dict[str, Any]]:
    for result in measurement.tensors:
        match, numbers = result.match, result.sparsity
        param = match.param
        yield {
            "tensor": param.name,
            "part": param.part,
            "layer": param.layer,
            "block": param.summary_block,
            "module": param.module,
            "expert": param.expert,
            "shape": "x".join(map(str, match.info.shape)),
            "dtype_source": match.info.dtype,
            "dtype_trained": match.trained_dtype,
            "size": numbers.size,
            "exact_zero": numbers.exact_zero,
            "within_ulp": numbers.ulp,
            "energy": repr(numbers.energy),
            "source_energy": repr(numbers.source_energy),
            "matrices": result.changed_matrices,
            "no_matrix_because": _no_matrix(
                match.info.shape, numbers.size - numbers.exact_zero, result.changed_matrices
            ),
        }


def _no_matrix(shape: tuple[int, ...], changed: int, matrices: int) -> str:
    if matrices:
        return ""
    if len(shape) not in (2, 3):
        return f"{len(shape)}-D"
    return "nothing changed" if not changed else "not a matrix"


def _sparsity_rows(measurement: Measurement) -> Iterator[dict[str, Any]]:
    for result in measurement.tensors:
        numbers = result.sparsity
        rules: Sequence[tuple[str, Any]] = (
            ("absolute", numbers.absolute),
            ("relative", numbers.relative),
        )
        for rule, counts in rules:
            for threshold, count in counts.items():
                yield {
                    "tensor": result.match.source,
                    "rule": rule,
                    "threshold": repr(threshold),
                    "unchanged": count,
                }


def _energy_rows(measurement: Measurement) -> Iterator[dict[str, Any]]:
    tops = [("", measurement.top), *((t.match.source, t.sparsity.top) for t in measurement.tensors)]
    for name, top in tops:
        for share, energy in top.items():
            yield {"tensor": name, "share": repr(share), "energy": repr(energy)}


def _curve_rows(histogram: DeltaHistogram) -> Iterator[dict[str, Any]]:
    thresholds = 2.0 ** np.arange(FINEST, COARSEST + 1e-9, 1 / PER_OCTAVE)
    # The nearest number with eight significant bits is a bin edge; `ceil` keeps the order.
    mantissa, exponent = np.frexp(thresholds)
    at = np.ldexp(np.ceil(mantissa * 256), exponent - 8)
    edges, below = survival(histogram)
    counts = np.append(below, histogram.size)[np.searchsorted(edges, at)]
    for threshold, count in zip(at, counts, strict=True):
        yield {"threshold": repr(float(threshold)), "below": int(count)}


def _magnitude_rows(histogram: DeltaHistogram) -> Iterator[dict[str, Any]]:
    """By the exponent of abs(source): [2^e, 2^(e+1)); zeros and subnormals share the first row, magnitude 0."""
    exponents = histogram.magnitude_bins >> 7
    for exponent in np.unique(exponents):
        here = exponents == exponent
        yield {
            "magnitude": repr(float(2.0 ** (int(exponent) - 127)) if exponent else 0.0),
            "coordinates": int(histogram.magnitudes[here].sum()),
            "updated": int(histogram.updated[here].sum()),
        }


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
        "device": "cpu",
        "versions": {"opdlib": opdlib.__version__, "python": platform.python_version()}
        | {p: version(p) for p in packages},
    }
