"""Tensors as the processes of a run hold them, in one process: torch's fake group, one rank after the other."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import product
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Shard
from torch.distributed.tensor.placement_types import _StridedShard
from torch.testing._internal.distributed.fake_pg import FakeStore


@contextmanager
def rank_of(rank: int, mesh: Sequence[int]) -> Iterator[DeviceMesh]:
    """The mesh of that shape as process `rank` sees it."""
    world = int(torch.tensor(mesh).prod())
    dist.init_process_group("fake", rank=rank, world_size=world, store=FakeStore())
    try:
        yield init_device_mesh("cpu", tuple(mesh), mesh_dim_names=("ddp", "fsdp", "tp")[: len(mesh)])
    finally:
        dist.destroy_process_group()


def coordinates(mesh: Sequence[int]) -> list[tuple[int, ...]]:
    """Of every rank, in order."""
    return list(product(*map(range, mesh)))


def part(whole: torch.Tensor, at: Sequence[int], mesh: Sequence[int], placements: Sequence[Any]) -> torch.Tensor:
    """What stays with one process, by torch.chunk alone."""
    order = [d for d, p in enumerate(placements) if not isinstance(p, _StridedShard)]
    for dimension in [*order, *(d for d in range(len(mesh)) if d not in order)]:
        placement = placements[dimension]
        if isinstance(placement, Shard | _StridedShard):
            chunks = whole.chunk(mesh[dimension], placement.dim)
            none = whole.narrow(placement.dim, 0, 0)
            whole = chunks[at[dimension]] if at[dimension] < len(chunks) else none
    return whole.clone()


def sharded(whole: torch.Tensor, at: Sequence[int], mesh: DeviceMesh, placements: Sequence[Any]) -> DTensor:
    local = part(whole, at, tuple(mesh.shape), placements)
    return DTensor.from_local(
        local, mesh, placements, run_check=False, shape=whole.shape, stride=whole.contiguous().stride()
    )
