"""What a measurement would take on this machine: bytes, memory and time, before a tensor is read."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from opdlib.checkpoints.checkpoint import Checkpoint
from opdlib.checkpoints.remote import RemoteCheckpoint
from opdlib.measurement import cost
from opdlib.measurement.cores import device_of, memory_in_use, workers_of
from opdlib.measurement.parts import Job, Plan
from opdlib.measurement.schedule import METRICS


@dataclass(frozen=True)
class Forecast:
    """What measuring would take on this machine."""

    tensors: int
    matrices: int
    read: int
    """Bytes of tensors, of both sides."""
    download: int
    """Bytes of them that are not on this machine."""
    memory: int
    """Bytes that this many workers take at most, the process included."""
    seconds: float


def forecast(
    source: Checkpoint,
    jobs: Sequence[Job],
    *,
    view: str = "bf16",
    metrics: Sequence[str] = METRICS,
    device: str = "auto",
    workers: int | None = None,
    memory: int | None = None,
) -> Forecast:
    """What `measure_all` would take on this machine's CPU, from headers and from a small matrix that is measured now.

    For options and errors see there.
    """
    plan, count = Plan(source, jobs, view, metrics, device_of(device)), workers_of(workers)
    sides = [source, *(job.trained for job in jobs)]
    geometry = plan.geometry if "geometry" in plan.metrics else []
    largest = [
        sum(sorted((part.memory for part in parts), reverse=True)[:count]) for parts in (plan.sparsity, geometry)
    ]
    taken = min(max(largest) + memory_in_use(), memory or sys.maxsize)
    pace = cost.speed()
    matches = [(plan.targets[part.pairs[0]].matches[part.tensors[0]], len(part.pairs)) for part in geometry]
    shapes = [(match.info.shape, pairs) for match, pairs in matches]
    taking = [pace * job for shape, pairs in shapes for job in cost.jobs(shape, pairs)]
    scans = [pace * cost.SCAN * part.work / cost.of_sparsity(1) for part in plan.sparsity]
    return Forecast(
        tensors=sum(len(alignment.matches) for alignment in plan.alignments),
        matrices=sum(pairs for _, pairs in shapes),
        read=sum(info.numel * cost.ITEM.get(info.dtype, 0) for side in sides for info in side.tensors.values()),
        download=sum(side.to_download() for side in sides if isinstance(side, RemoteCheckpoint)),
        memory=taken,
        seconds=cost.makespan(scans, count) + cost.makespan(taking, count),
    )
