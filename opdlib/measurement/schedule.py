"""From two checkpoints to numbers: where names, checkpoints and metrics meet."""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from opdlib.checkpoints.checkpoint import Checkpoint
from opdlib.errors import ParameterError
from opdlib.measurement.align import VIEWS, Alignment
from opdlib.measurement.cores import bar_of, device_of, workers_of
from opdlib.measurement.geometry import MatrixResult, from_json
from opdlib.measurement.ledger import Ledger
from opdlib.measurement.parts import Finished, Job, Part, Plan, by_work, measure_here, measure_there
from opdlib.measurement.sparsity import Pass, whole

FORMAT = 4
"""Raised whenever a stored number changes its meaning; results of another format are measured again."""

METRICS = ("sparsity", "geometry", "nulls")
"""What is measured unless somebody says otherwise."""
EVERYTHING = (*METRICS, "draws")
"""With a draw of every null whose spectra need one, which takes several times as long."""


@dataclass(frozen=True)
class Measurement(Pass):
    """Everything measured of one pair, in one view. The histogram is of all compared coordinates together, `top` maps p
    to the energy of the largest coordinates in one ranking over the whole model."""

    name: str
    view: str
    metrics: tuple[str, ...]
    device: str
    origins: dict[str, dict[str, str]]
    """'source' and 'trained' -> spec, content digest and, from the Hub, commit."""
    skip: tuple[str, ...]
    rename: Mapping[str, str]
    alignment: Alignment
    matrices: tuple[MatrixResult, ...] | None
    """Geometry of every matrix that changed, in order of name; None if it was not asked for."""

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What the numbers depend on; two measurements with equal identity have equal numbers."""
        source, trained = (self.origins[side]["digest"] for side in ("source", "trained"))
        return identity(source, trained, self.view, self.skip, self.metrics, self.rename)


def identity(
    source: str, trained: str, view: str, skip: Sequence[str], metrics: Sequence[str], rename: Mapping[str, str]
) -> dict[str, Any]:
    """The identity of a measurement, from the digests of its checkpoints and its options."""
    return {
        "source": source,
        "trained": trained,
        "view": view,
        "skip": sorted(skip),
        "metrics": [m for m in EVERYTHING if m in metrics],
        "format": FORMAT,
        **({"rename": dict(rename)} if rename else {}),
    }


def measure_pair(
    source: Checkpoint,
    trained: Checkpoint,
    *,
    name: str,
    skip: Sequence[str] = (),
    ledger: Path | None = None,
    rename: Mapping[str, str] | None = None,
    **options: Any,
) -> Measurement:
    """Measure one pair; see `measure_all`, which takes the same options."""
    return measure_all(source, [Job(name, trained, tuple(skip), ledger, rename=rename or {})], **options)[0]


def measure_all(
    source: Checkpoint,
    jobs: Sequence[Job],
    *,
    view: str = "bf16",
    metrics: Sequence[str] = METRICS,
    device: str = "auto",
    workers: int | None = None,
    memory: int | None = None,
    executor: Executor | None = None,
    progress: bool | None = False,
) -> list[Measurement]:
    """Measure pairs over one source: all are aligned first, then come their histograms, then their geometry.

    `workers` (default: the machine's cores) share the work, as many at once as fit into `memory` bytes, the process
    included. An `executor` shares it among its own workers instead, which may be on other machines: they open the same
    specs. No number depends on either. `device` auto takes a GPU for the geometry if there is one. Metric `nulls` adds
    what rounding and magnitude alone would give, `draws` their spectra by a draw each; both go with whatever else is
    measured. `progress` True shows a bar, None only on a terminal. Raises AlignmentError, MeasureError (NaN, Inf,
    dtype, no decomposition, workers that are gone), CheckpointError (changed meanwhile), ParameterError, OutputError.
    """
    count = workers_of(workers)
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory())) if executor else None
        runs = _Runs(source, jobs, view, metrics, device, progress, scratch)
        if executor:
            runs.finish("parts", runs.plan.parts, lambda left: measure_there(runs.plan, left, executor, runs.keep))
        runs.finish("sparsity", runs.plan.sparsity, runs.here(count, memory))
        if "geometry" in metrics:
            runs.finish("geometry", runs.plan.geometry, runs.here(runs.at_once(count), memory))
        found = runs.measurements()
        runs.plan.check_unchanged()
        return found


def measure_share(
    source: Checkpoint,
    jobs: Sequence[Job],
    number: int,
    of: int,
    *,
    view: str = "bf16",
    metrics: Sequence[str] = METRICS,
    device: str = "auto",
    workers: int | None = None,
    memory: int | None = None,
    progress: bool | None = False,
) -> tuple[int, int]:
    """Measure every `of`-th part into the ledgers of `jobs`, beginning with part `number` (from 1) in order of work.

    Returns the parts of this share, and all there are. For options and errors see `measure_all`.
    """
    if not 1 <= number <= of:
        raise ParameterError(f"shard {number}/{of}; wanted i/n with i from 1 to n, such as 1/{max(of, 1)}")
    runs = _Runs(source, jobs, view, metrics, device, progress)
    own = by_work(runs.plan.parts)[number - 1 :: of]
    runs.finish(f"shard {number}/{of}", own, runs.here(runs.at_once(workers_of(workers)), memory))
    return len(own), len(runs.plan.parts)


def gather(
    source: Checkpoint, job: Job, ledgers: Sequence[Path], view: str, metrics: Sequence[str], device: str
) -> list[Part]:
    """Copy what other ledgers of this measurement have into that of `job`; returns the parts that are missing still.

    Raises ParameterError for a ledger of another measurement; for other errors see `measure_all`.
    """
    runs = _Runs(source, [job], view, metrics, device, progress=False)
    runs.take(ledgers)
    return runs.missing(runs.plan.parts)


class _Runs:
    """Pairs over one source, each with its ledger, or a memory of its own."""

    def __init__(
        self,
        source: Checkpoint,
        jobs: Sequence[Job],
        view: str,
        metrics: Sequence[str],
        device: str,
        progress: bool | None,
        scratch: Path | None = None,
    ):
        for value, known, what in ((view, VIEWS, "view"), *((m, EVERYTHING, "metric") for m in metrics)):
            if value not in known:
                raise ParameterError(f"{what} {value!r}; wanted one of {', '.join(known)}")
        self.plan = Plan(source, jobs, view, metrics, device_of(device))
        self._jobs, self._progress = jobs, progress
        self._origins = [{"source": source.origin(), "trained": job.trained.origin()} for job in jobs]
        folders = [job.ledger or (scratch / str(n) if scratch else None) for n, job in enumerate(jobs)]
        self._ledgers = [Ledger(f, self._identity(n)) if f else None for n, f in enumerate(folders)]
        self._kept: list[dict[str, Finished]] = [{} for _ in jobs]

    def _identity(self, number: int) -> dict[str, Any]:
        job, (source, trained) = self._jobs[number], (facts["digest"] for facts in self._origins[number].values())
        known = {"scales": sorted(job.scales.items())} if job.scales else {}
        return identity(source, trained, self.plan.view, job.skip, self.plan.metrics, job.rename) | known

    def missing(self, parts: Sequence[Part]) -> list[Part]:
        """The parts that some pair lacks, for those pairs alone."""
        lacking = [(part, tuple(n for n in part.pairs if not self._has(n, part.key))) for part in parts]
        return [replace(part, pairs=pairs) for part, pairs in lacking if pairs]

    def _has(self, number: int, key: str) -> bool:
        ledger = self._ledgers[number]
        return key in (ledger or self._kept[number])

    def take(self, ledgers: Sequence[Path]) -> None:
        """Copy what these have into the ledger of the first pair."""
        own = self._ledgers[0]
        assert own is not None, "parts are gathered in a folder"
        for folder in ledgers:
            own.take(folder)

    def keep(self, part: Part, finished: Sequence[Finished]) -> None:
        """Into the ledger of each pair of the part, or its memory."""
        for number, (records, arrays) in zip(part.pairs, finished, strict=True):
            if ledger := self._ledgers[number]:
                ledger.store(part.key, records, arrays)
            else:
                self._kept[number][part.key] = records, arrays

    def at_once(self, workers: int) -> int:
        """How many parts may be measured at a time where some are geometry: one on a GPU."""
        return workers if self.plan.device == "cpu" else 1

    def here(self, workers: int, memory: int | None) -> Callable[[Sequence[Part]], Iterator[Part]]:
        """Measures parts on this machine, `workers` at a time."""
        return lambda parts: measure_here(self.plan, parts, workers, memory, self.keep)

    def finish(self, title: str, parts: Sequence[Part], measure: Callable[[Sequence[Part]], Iterator[Part]]) -> None:
        """Measure those of `parts` that are missing, under a bar."""
        left = self.missing(parts)
        with bar_of(title, sum(part.work for part in left), " flop", self._progress) as bar:
            for part in measure(left):
                bar.update(part.work)
        self.plan.check_unchanged()

    def measurements(self) -> list[Measurement]:
        """Put together what is measured."""
        return [
            Measurement(
                **vars(self._pass(number)),
                name=job.name,
                view=self.plan.view,
                metrics=tuple(self.plan.metrics),
                device=self.plan.device,
                origins=self._origins[number],
                skip=job.skip,
                rename=job.rename,
                alignment=self.plan.alignments[number],
                matrices=self._matrices(number) if "geometry" in self.plan.metrics else None,
            )
            for number, job in enumerate(self._jobs)
        ]

    def _pass(self, number: int) -> Pass:
        found = [self._found(number, part.key) for part in self.plan.sparsity if number in part.pairs]
        trained, alignment = self._jobs[number].trained, self.plan.alignments[number]
        return whole(self.plan.source, trained, alignment, self.plan.view, found)

    def _matrices(self, number: int) -> tuple[MatrixResult, ...]:
        keys = [part.key for part in self.plan.geometry if number in part.pairs]
        return tuple(from_json(row) for key in keys for row in self._found(number, key)[0])

    def _found(self, number: int, key: str) -> Finished:
        ledger = self._ledgers[number]
        known = ledger.load(key) if ledger else self._kept[number][key]
        assert known is not None, "what is measured is in the ledger"
        return known
