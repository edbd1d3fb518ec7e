"""The parts of a measurement: each is measured on its own, in any order and on any machine, and kept in a ledger.

A part of the sparsity pass is a group of tensors of one pair, a part of the geometry is one tensor of all pairs over
its source. Another machine is told of them in words (specs, names, digests) and answers in numbers, so a worker that
dies costs its part and no more, and a part that is measured twice is the same both times.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import torch

from opdlib.checkpoints import open_checkpoint
from opdlib.checkpoints.checkpoint import Checkpoint
from opdlib.errors import MeasureError
from opdlib.files import find
from opdlib.measurement import cost
from opdlib.measurement.align import Alignment, Match, align
from opdlib.measurement.cores import over_cores
from opdlib.measurement.geometry import Target, geometry_key, has_geometry, measure_tensor
from opdlib.measurement.ledger import Arrays
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
    """The source's names."""
    pairs: tuple[int, ...]
    """Numbers of the pairs that it is measured for."""
    work: int
    memory: int
    """Bytes that it takes at most."""

    def __str__(self) -> str:
        more = f" and {len(self.tensors) - 1} more" if len(self.tensors) > 1 else ""
        return f"{self.key.partition('-')[0]} of {self.tensors[0]}{more}"


@dataclass(frozen=True)
class Task:
    """Pairs over one source, in words that another process understands."""

    source: str
    trained: tuple[str, ...]
    skip: tuple[tuple[str, ...], ...]
    scales: tuple[tuple[tuple[str, float], ...], ...]
    view: str
    metrics: tuple[str, ...]
    device: str


def by_work(parts: Sequence[Part]) -> list[Part]:
    """Most work first; the same order on every machine."""
    return sorted(parts, key=lambda part: (-part.work, part.key, part.pairs))


class Plan:
    """Pairs over one source, opened and aligned: what there is to measure, and how to measure each part of it.

    `scales` has, for each trained checkpoint, what is known of its delta before rounding: source's name of a tensor ->
    root mean square. Raises AlignmentError, MeasureError for a dtype, ParameterError.
    """

    def __init__(
        self,
        source: Checkpoint,
        trained: Sequence[Checkpoint],
        skip: Sequence[tuple[str, ...]],
        scales: Sequence[Mapping[str, float]],
        view: str,
        metrics: Sequence[str],
        device: str,
    ):
        self.source, self.trained, self.skip, self.scales = source, trained, skip, scales
        self.view, self.metrics, self.device = view, metrics, device
        self.alignments: list[Alignment] = [align(source, t, s) for t, s in zip(trained, skip, strict=True)]

    def check_unchanged(self) -> None:
        """Raise CheckpointError if a checkpoint has changed since it was opened."""
        for checkpoint in (self.source, *self.trained):
            checkpoint.check_unchanged()

    def scales_of(self, number: int) -> Mapping[str, float] | None:
        """What is known of a pair's delta before rounding; None where nulls are not asked for."""
        return self.scales[number] if "nulls" in self.metrics else None

    @cached_property
    def targets(self) -> list[Target]:
        """The trained checkpoints as the geometry sees them."""
        return [
            Target(
                trained,
                {m.source: m for m in alignment.matches if not has_geometry(m.info.shape, m.source)},
                self.scales_of(number) if self.view == "bf16" else None,
            )
            for number, (trained, alignment) in enumerate(zip(self.trained, self.alignments, strict=True))
        ]

    @cached_property
    def parts(self) -> list[Part]:
        """Every part: those of the sparsity pass, pair by pair, then those of the geometry, by name."""
        found = [
            self._sparsity(number, place, matches)
            for number, alignment in enumerate(self.alignments)
            for place, matches in enumerate(groups(alignment))
        ]
        return found + (self.geometry if "geometry" in self.metrics else [])

    @cached_property
    def geometry(self) -> list[Part]:
        """The parts of the geometry, by name."""
        return [self._geometry(name) for name in sorted({n for t in self.targets for n in t.matches})]

    def _sparsity(self, number: int, place: int, matches: Sequence[Match]) -> Part:
        size, largest = sum(m.info.numel for m in matches), max(m.info.numel for m in matches)
        names = tuple(m.source for m in matches)
        return Part(sparsity_key(place), names, (number,), cost.of_sparsity(size), cost.memory_of_sparsity(largest))

    def _geometry(self, name: str) -> Part:
        own = {n: t.matches[name] for n, t in enumerate(self.targets) if name in t.matches}
        info = self.source.info(name)
        memory = cost.memory(info.shape, info.dtype, tuple(m.trained_dtype for m in own.values()), self.view)
        return Part(geometry_key(name), (name,), tuple(own), cost.of_tensor(info.shape, len(own)), memory)

    def measure(self, part: Part) -> list[Finished]:
        """What a part gives for each of its pairs. Raises MeasureError."""
        if part.key == geometry_key(part.tensors[0]):
            chosen = [self.targets[number] for number in part.pairs]
            nulls = {"nulls", "draws"} & set(self.metrics)
            found = measure_tensor(self.source, chosen, part.tensors[0], self.view, torch.device(self.device), nulls)
            return [([asdict(row) for row in found[n]], {}) for n in range(len(chosen))]
        (number,) = part.pairs
        own = {m.source: m for m in self.alignments[number].matches}
        matches, scales = [own[name] for name in part.tensors], self.scales_of(number)
        return [to_ledger(*measure_group(self.source, self.trained[number], matches, self.view, None, scales))]

    def task(self) -> Task:
        """The same in words, with every path absolute and every revision a commit."""
        return Task(
            _said(self.source),
            tuple(map(_said, self.trained)),
            tuple(map(tuple, self.skip)),
            tuple(tuple(sorted(scales.items())) for scales in self.scales),
            self.view,
            tuple(self.metrics),
            self.device,
        )

    def digests(self, part: Part) -> tuple[dict[str, str], ...]:
        """Tensor -> digest of what a part reads: in the source, then in the trained checkpoint of each of its pairs."""
        partners = [
            {m.source: m.trained for m in self.alignments[number].matches if m.source in part.tensors}
            for number in part.pairs
        ]
        names = [part.tensors, *(own.values() for own in partners)]
        return tuple(
            {name: side.digests[name] for name in own} for side, own in zip(self._sides(part), names, strict=True)
        )

    def check(self, part: Part, digests: Sequence[Mapping[str, str]]) -> None:
        """Raise MeasureError unless a part's tensors have these digests here."""
        for side, own in zip(self._sides(part), digests, strict=True):
            for name, wanted in own.items():
                if (found := side.tensor_digest(name)) != wanted:
                    raise MeasureError(
                        f"{side.spec}: {name} has digest {found[:12]} on this machine, wanted {wanted[:12]}; "
                        "all machines must see the same checkpoints, so copy them again"
                    )

    def _sides(self, part: Part) -> list[Checkpoint]:
        return [self.source, *(self.trained[number] for number in part.pairs)]


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
    source, trained = open_checkpoint(task.source), [open_checkpoint(t) for t in task.trained]
    return Plan(source, trained, task.skip, list(map(dict, task.scales)), task.view, task.metrics, task.device)
