"""The parts of a measurement: each is measured on its own, in any order and on any machine, and kept in a ledger.

A part of the sparsity pass is a group of tensors of one pair, a part of the geometry is one tensor of all pairs over
its source. Another machine is told of them in words (specs, names, digests) and answers in numbers, so a worker that
dies costs its part and no more, and a part that is measured twice is the same both times.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import torch

from opdlib.checkpoints import open_checkpoint
from opdlib.checkpoints.checkpoint import Checkpoint
from opdlib.errors import MeasureError, named
from opdlib.files import find
from opdlib.measurement import cost
from opdlib.measurement.align import Alignment, Match, align
from opdlib.measurement.cores import over_cores
from opdlib.measurement.geometry import Target, has_geometry, measure_matrix, to_json
from opdlib.measurement.ledger import Arrays, part_of
from opdlib.measurement.sparsity import groups, measure_group, sparsity_key, to_ledger
from opdlib.metrics.eigen import one_blas_thread

Finished = tuple[Any, Arrays]
"""What a ledger keeps of a part: records (JSON) and arrays."""
Keep = Callable[["Part", Sequence[Finished]], None]
"""Takes a part that is finished, and what it gave for each of its pairs."""


@dataclass(frozen=True)
class Part:
    """What is measured in one go."""

    key: str
    """Its name in the ledgers of its pairs."""
    tensors: tuple[str, ...]
    """Names, of matrices and others."""
    pairs: tuple[int, ...]
    """Numbers of the pairs that it is measured for."""
    work: int
    memory: int
    """Bytes that it takes at most."""

    def __str__(self) -> str:
        return f"{self.key.partition('-')[0]} of {named(self.tensors, 1)}"


@dataclass(frozen=True)
class Task:
    """Pairs over one source, in words that another process understands."""

    source: str
    trained: tuple[str, ...]
    skip: tuple[tuple[str, ...], ...]
    scales: tuple[tuple[tuple[str, float], ...], ...]
    rename: tuple[tuple[tuple[str, str], ...], ...]
    view: str
    metrics: tuple[str, ...]
    device: str


@dataclass(frozen=True)
class Job:
    """One trained checkpoint to measure against a source."""

    name: str
    trained: Checkpoint
    skip: tuple[str, ...] = ()
    ledger: Path | None = None
    """A folder where finished parts are kept, and from which a later call goes on."""
    scales: Mapping[str, float] = field(default_factory=dict)
    """Name of a tensor -> root mean square of its delta before rounding, where it is known from elsewhere."""
    rename: Mapping[str, str] = field(default_factory=dict)
    """Beginning of a name -> what stands for it; see `opdlib.measurement.align.align`."""


def by_work(parts: Sequence[Part]) -> list[Part]:
    """Most work first; the same order on every machine."""
    return sorted(parts, key=lambda part: (-part.work, part.key, part.pairs))


class Plan:
    """Pairs over one source, opened and aligned: what there is to measure, and how to measure each part of it.

    Raises AlignmentError, MeasureError for a dtype, ParameterError.
    """

    def __init__(self, source: Checkpoint, jobs: Sequence[Job], view: str, metrics: Sequence[str], device: str):
        self.source, self.jobs = source, jobs
        self.view, self.metrics, self.device = view, metrics, device
        self.alignments: list[Alignment] = [align(source, j.trained, j.skip, j.rename) for j in jobs]
        self._checked: dict[tuple[str, str], str] = {}

    def check_unchanged(self) -> None:
        """Raise CheckpointError if a checkpoint has changed since it was opened."""
        for checkpoint in (self.source, *(job.trained for job in self.jobs)):
            checkpoint.check_unchanged()

    def scales_of(self, number: int) -> Mapping[str, float] | None:
        """What is known of a pair's delta before rounding; None where nulls are not asked for."""
        return self.jobs[number].scales if "nulls" in self.metrics else None

    @cached_property
    def targets(self) -> list[Target]:
        """The trained checkpoints as the geometry sees them."""
        return [
            Target(
                job.trained,
                {m.name: m for m in alignment.matches if not has_geometry(m.info.shape)},
                self.scales_of(number) if self.view == "bf16" else None,
            )
            for number, (job, alignment) in enumerate(zip(self.jobs, self.alignments, strict=True))
        ]

    @cached_property
    def parts(self) -> list[Part]:
        """Every part: those of the sparsity pass, then those of the geometry."""
        return self.sparsity + (self.geometry if "geometry" in self.metrics else [])

    @cached_property
    def sparsity(self) -> list[Part]:
        """The parts of the sparsity pass, pair by pair."""
        return [
            self._sparsity(number, place, matches)
            for number, alignment in enumerate(self.alignments)
            for place, matches in enumerate(groups(alignment))
        ]

    @cached_property
    def geometry(self) -> list[Part]:
        """The parts of the geometry, by name."""
        return [self._geometry(name) for name in sorted({n for t in self.targets for n in t.matches})]

    def _sparsity(self, number: int, place: int, matches: Sequence[Match]) -> Part:
        names, size = tuple(m.name for m in matches), sum(m.info.numel for m in matches)
        dtypes = [(m.source.info.dtype, m.trained.info.dtype) for m in matches]
        needs = (cost.memory_of_sparsity(m.info.numel, *own, self.view) for m, own in zip(matches, dtypes, strict=True))
        return Part(sparsity_key(place), names, (number,), cost.of_sparsity(size), max(needs))

    def _geometry(self, name: str) -> Part:
        own = {n: t.matches[name] for n, t in enumerate(self.targets) if name in t.matches}
        source = next(iter(own.values())).source
        info = source.info
        memory = cost.memory(info.shape, info.dtype, tuple(m.trained.info.dtype for m in own.values()), self.view)
        copied = [place for place in (source, *(m.trained for m in own.values())) if place.cut]
        memory += sum(cost.ITEM[place.info.dtype] * place.info.numel for place in copied)
        return Part(part_of("geometry", name), (name,), tuple(own), cost.of_tensor(info.shape, len(own)), memory)

    def measure(self, part: Part) -> list[Finished]:
        """What a part gives for each of its pairs. Raises MeasureError."""
        if part.key == part_of("geometry", part.tensors[0]):
            chosen = [self.targets[number] for number in part.pairs]
            nulls = {"nulls", "draws"} & set(self.metrics)
            found = measure_matrix(self.source, chosen, part.tensors[0], self.view, torch.device(self.device), nulls)
            return [([to_json(row) for row in found[n]], {}) for n in range(len(chosen))]
        (number,) = part.pairs
        own = {m.name: m for m in self.alignments[number].matches}
        matches, scales = [own[name] for name in part.tensors], self.scales_of(number)
        return [to_ledger(*measure_group(self.source, self.jobs[number].trained, matches, self.view, scales))]

    def task(self) -> Task:
        """The same in words, with every path absolute and every revision a commit."""
        return Task(
            _said(self.source),
            tuple(_said(job.trained) for job in self.jobs),
            tuple(tuple(job.skip) for job in self.jobs),
            tuple(tuple(sorted(job.scales.items())) for job in self.jobs),
            tuple(tuple(job.rename.items()) for job in self.jobs),
            self.view,
            tuple(self.metrics),
            self.device,
        )

    def digests(self, part: Part) -> tuple[dict[str, str], ...]:
        """Tensor -> digest of what a part reads: in the source, then in the trained checkpoint of each of its pairs."""
        wanted = set(part.tensors)
        own = [[m for m in self.alignments[number].matches if m.name in wanted] for number in part.pairs]
        stored = [dict.fromkeys(m.source.stored for matches in own for m in matches)]
        stored += [dict.fromkeys(m.trained.stored for m in matches) for matches in own]
        return tuple(
            {name: side.digests[name] for name in names} for side, names in zip(self._sides(part), stored, strict=True)
        )

    def check(self, part: Part, digests: Sequence[Mapping[str, str]]) -> None:
        """Raise MeasureError unless a part's tensors have these digests here; those of many parts are read once."""
        for side, own in zip(self._sides(part), digests, strict=True):
            for name, wanted in own.items():
                at = side.spec, name
                if at not in self._checked:
                    self._checked[at] = side.tensor_digest(name)
                if (found := self._checked[at]) != wanted:
                    raise MeasureError(
                        f"{side.spec}: {name} has digest {found[:12]} on this machine, wanted {wanted[:12]}; "
                        "all machines must see the same checkpoints, so copy them again"
                    )

    def _sides(self, part: Part) -> list[Checkpoint]:
        return [self.source, *(self.jobs[number].trained for number in part.pairs)]


def _said(checkpoint: Checkpoint) -> str:
    """A spec that means the same in another working directory, and tomorrow."""
    if checkpoint.revision:
        return f"{checkpoint.spec.partition('@')[0]}@{checkpoint.revision}"
    kind, _, location = checkpoint.spec.partition(":")
    if kind == "patch":
        return f"patch:{find(Path(location).expanduser()).resolve()}"
    path = Path(checkpoint.spec).expanduser()
    return str(path.resolve()) if path.exists() else checkpoint.spec


def measure_here(plan: Plan, parts: Sequence[Part], workers: int, memory: int | None, keep: Keep) -> Iterator[Part]:
    """Measure parts on this machine's cores, `keep` what each gives, yield those that are done. `memory` in bytes."""

    def one(part: Part) -> Part:
        keep(part, plan.measure(part))
        return part

    needs = {part: part.memory for part in parts}
    yield from over_cores(one, {part: part.work for part in parts}, workers, memory, needs)


def measure_there(plan: Plan, parts: Sequence[Part], executor: Executor, keep: Keep) -> Iterator[Part]:
    """Measure parts by an executor, most work first, `keep` what each gives, yield those that are done.

    Raises MeasureError if its workers cannot be had any more, and what they raise.
    """
    task = plan.task()
    running = {executor.submit(measure_by_words, task, part, plan.digests(part)): part for part in by_work(parts)}
    try:
        for future in as_completed(running):
            part = running[future]
            keep(part, future.result())
            yield part
    except BrokenProcessPool as error:
        raise MeasureError(f"a worker died ({error}); what is done is kept, the same call goes on") from error
    finally:
        for future in running:
            future.cancel()


def measure_by_words(task: Task, part: Part, digests: Sequence[Mapping[str, str]]) -> list[Finished]:
    """Measure one part of `task` in this process, whichever it is: what an executor's worker runs."""
    plan = _plan(task)
    plan.check(part, digests)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with one_blas_thread():
            return plan.measure(part)
    finally:
        torch.set_num_threads(before)


@lru_cache(maxsize=1)
def _plan(task: Task) -> Plan:
    """Opened once in a process, for all of its parts."""
    told = zip(
        map(open_checkpoint, task.trained), task.skip, map(dict, task.scales), map(dict, task.rename), strict=True
    )
    jobs = [Job("", trained, skip, scales=scales, rename=rename) for trained, skip, scales, rename in told]
    return Plan(open_checkpoint(task.source), jobs, task.view, task.metrics, task.device)
