"""From two checkpoints to numbers: where names, checkpoints and metrics meet."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

from opdlib.checkpoints.checkpoint import Checkpoint
from opdlib.errors import ParameterError
from opdlib.measurement.align import VIEWS, Alignment, align
from opdlib.measurement.geometry import MatrixResult, Target, from_json, has_geometry, measure_geometry, work
from opdlib.measurement.ledger import Ledger
from opdlib.measurement.nulls import Noise
from opdlib.measurement.sparsity import TensorResult, sparsity_pass
from opdlib.metrics.histogram import DeltaHistogram

FORMAT = 3
"""Raised whenever a stored number changes its meaning; results of another format are measured again."""

METRICS = ("sparsity", "geometry", "nulls")
"""What is measured unless somebody says otherwise."""
EVERYTHING = (*METRICS, "draws")
"""With a draw of every null whose spectra need one, which takes several times as long."""


@dataclass(frozen=True)
class Job:
    """One trained checkpoint to measure against a source."""

    name: str
    trained: Checkpoint
    skip: tuple[str, ...] = ()
    ledger: Path | None = None
    """A folder where finished parts are kept, and from which a later call goes on."""
    scales: Mapping[str, float] = field(default_factory=dict)
    """Source's name of a tensor -> root mean square of its delta before rounding, where it is known from elsewhere."""


@dataclass(frozen=True)
class Measurement:
    """Everything measured of one pair, in one view."""

    name: str
    view: str
    metrics: tuple[str, ...]
    device: str
    origins: dict[str, dict[str, str]]
    """'source' and 'trained' -> spec, content digest and, from the Hub, commit."""
    skip: tuple[str, ...]
    alignment: Alignment
    tensors: tuple[TensorResult, ...]
    histogram: DeltaHistogram
    """Of all compared coordinates together."""
    top: Mapping[float, float]
    """p -> energy of the largest coordinates in one ranking over the whole model."""
    matrices: tuple[MatrixResult, ...] | None
    """Geometry of every matrix that changed, in order of name; None if it was not asked for."""

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What the numbers depend on; two measurements with equal identity have equal numbers."""
        source, trained = (self.origins[side]["digest"] for side in ("source", "trained"))
        return identity(source, trained, self.view, self.skip, self.metrics)


def identity(
    source_digest: str, trained_digest: str, view: str, skip: Sequence[str], metrics: Sequence[str] = METRICS
) -> dict[str, Any]:
    """The identity of a measurement, from the digests of its checkpoints and its options."""
    return {
        "source": source_digest,
        "trained": trained_digest,
        "view": view,
        "skip": sorted(skip),
        "metrics": [m for m in EVERYTHING if m in metrics],
        "format": FORMAT,
    }


def measure_pair(
    source: Checkpoint,
    trained: Checkpoint,
    *,
    name: str,
    skip: Sequence[str] = (),
    ledger: Path | None = None,
    **options: Any,
) -> Measurement:
    """Measure one pair; see `measure_all`, which takes the same options."""
    return measure_all(source, [Job(name, trained, tuple(skip), ledger)], **options)[0]


def measure_all(
    source: Checkpoint,
    jobs: Sequence[Job],
    *,
    view: str = "bf16",
    metrics: Sequence[str] = METRICS,
    device: str = "auto",
    workers: int | None = None,
    progress: bool | None = False,
) -> list[Measurement]:
    """Measure pairs over one source: all are aligned first, then come their histograms, then their geometry.

    `workers` (default: the machine's cores) share the work; no number depends on it. `device` auto takes a GPU for the
    geometry if there is one. Metric `nulls` adds what rounding and magnitude alone would give, `draws` their spectra by
    a draw each; both go with whatever else is measured. `progress` True shows a bar, None only on a terminal. Raises
    AlignmentError, MeasureError (NaN, Inf, dtype, a matrix that cannot be decomposed), ParameterError, OutputError.
    """
    for value, known, what in ((view, VIEWS, "view"), *((m, EVERYTHING, "metric") for m in metrics)):
        if value not in known:
            raise ParameterError(f"{what} {value!r}; wanted one of {', '.join(known)}")
    if workers is not None and workers < 1:
        raise ParameterError(f"workers {workers}; wanted a number from 1 up")
    chosen, count = _device(device), workers or os.cpu_count() or 1
    runs = [_Run(source, job, view, metrics, align(source, job.trained, job.skip)) for job in jobs]
    with ThreadPoolExecutor(count) as pool:
        passes = []
        for run in runs:
            with _bar(run.job.name, run.alignment.parameters, " weights", progress) as bar:
                scales = run.job.scales if "nulls" in metrics else None
                passes.append(
                    sparsity_pass(source, run.job.trained, run.alignment, view, pool, run.ledger, bar, scales)
                )
    geometry: Sequence[tuple[MatrixResult, ...] | None] = [None] * len(runs)
    if "geometry" in metrics:
        noises = [{t.match.source: t.noise for t in found.tensors if t.noise} for found in passes]
        nulls = {"nulls", "draws"} & set(metrics)
        geometry = _geometry(source, runs, view, chosen, count, progress, noises, nulls)
    return [
        Measurement(
            name=run.job.name,
            view=view,
            metrics=tuple(metrics),
            device=str(chosen),
            origins=run.origins,
            skip=run.job.skip,
            alignment=run.alignment,
            tensors=found.tensors,
            histogram=found.histogram,
            top=found.top,
            matrices=matrices,
        )
        for run, found, matrices in zip(runs, passes, geometry, strict=True)
    ]


class _Run:
    def __init__(self, source: Checkpoint, job: Job, view: str, metrics: Sequence[str], alignment: Alignment):
        self.job, self.alignment = job, alignment
        self.origins = {"source": source.origin(), "trained": job.trained.origin()}
        ours = identity(self.origins["source"]["digest"], self.origins["trained"]["digest"], view, job.skip, metrics)
        known = {"scales": sorted(job.scales.items())} if job.scales else {}
        self.ledger = Ledger(job.ledger, ours | known) if job.ledger else None


def _geometry(
    source: Checkpoint,
    runs: Sequence[_Run],
    view: str,
    device: torch.device,
    workers: int,
    progress: bool | None,
    noises: Sequence[Mapping[str, Noise]],
    nulls: Collection[str],
) -> list[tuple[MatrixResult, ...]]:
    found: list[dict[str, list[MatrixResult]]] = [{} for _ in runs]
    targets = []
    for run, known, own in zip(runs, found, noises, strict=True):
        matches = {m.source: m for m in run.alignment.matches if not has_geometry(m.info.shape, m.source)}
        for name in matches:
            part = run.ledger.load(_part(name)) if run.ledger else None
            if part is not None:
                known[name] = [from_json(row) for row in part[0]]
        targets.append(Target(run.job.trained, {n: m for n, m in matches.items() if n not in known}, own))
    shapes = {n: m.info.shape for t in targets for n, m in t.matches.items()}

    def store(number: int, name: str, results: list[MatrixResult]) -> None:
        if ledger := runs[number].ledger:
            ledger.store(_part(name), [asdict(r) for r in results], {})
        found[number][name] = results

    with _bar("geometry", sum(map(work, shapes.values())), " flop", progress) as bar:
        for name in measure_geometry(source, targets, view, device, workers, store, nulls):
            bar.update(work(shapes[name]))
    return [tuple(r for name in sorted(known) for r in known[name]) for known in found]


def _part(name: str) -> str:
    return f"geometry-{hashlib.sha256(name.encode()).hexdigest()[:16]}"  # a name may hold what a file name must not


def _bar(name: str, size: int, unit: str, progress: bool | None) -> tqdm[Any]:
    hidden = None if progress is None else not progress
    return tqdm(total=size, unit=unit, unit_scale=True, desc=name, disable=hidden)


def _device(name: str) -> torch.device:
    if name not in ("auto", "cpu", "cuda"):
        raise ParameterError(f"device {name!r}; wanted auto, cpu or cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise ParameterError("device cuda: there is none on this machine; use auto or cpu")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")
