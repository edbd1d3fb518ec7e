"""The files that verl writes, one of every process: `model_world_size_N_rank_r.pt`, with the shards of DTensors.

Where a shard belongs follows from the mesh of processes and the placement on each of its dimensions, both of which the
file has; no process group is needed.
"""

import logging
import math
import re
from pathlib import Path
from typing import Any

import torch

from opdlib.checkpoints.checkpoint import Checkpoint, TensorInfo
from opdlib.checkpoints.pickled import PickledFile
from opdlib.checkpoints.watched import Watched
from opdlib.errors import CheckpointError
from opdlib.foreign import foreign

FILE = re.compile(r"model_world_size_(\d{1,6})_rank_(\d{1,6})\.pt")
PARTS = ("actor", "")
"""Folders within a step's folder whose model is meant."""


class RankedCheckpoint(Checkpoint):
    """The model that the processes of one run hold together; a tensor is put together from its shards when it is read.
    Raises CheckpointError if a rank is missing, if ranks disagree, and for placements that cannot be put together."""

    def __init__(self, spec: str, folder: Path, files: dict[int, Path]):
        from torch.distributed.tensor.placement_types import _StridedShard

        # It warns of every mesh that is read without the processes it describes, as is meant here.
        logging.getLogger("torch.distributed.device_mesh").setLevel(logging.ERROR)
        self.spec, self.format = spec, f"verl, {len(files)} ranks"
        self.folder = folder / "huggingface" if (folder / "huggingface").is_dir() else folder
        self.watched = Watched(files.values())
        self._files = [PickledFile(path, (_StridedShard,)) for _, path in sorted(files.items())]
        first, *others = [file.weights() for file in self._files]
        for file, held in zip(self._files[1:], others, strict=True):
            if odd := sorted(set(first) ^ set(held)):
                raise CheckpointError(f"{file.path}: differs from rank 0 in {odd[0]}; the files are not of one save")
        with foreign(folder, CheckpointError, "save the files again"):
            self.tensors = {name: TensorInfo.of(tensor) for name, tensor in first.items()}
        self.check_sizes()

    def read(self, name: str) -> torch.Tensor:
        from torch.distributed.tensor import DTensor

        info, dtype = self.info(name), self.dtype_of(name)
        size = info.numel * dtype.itemsize // len(self._files)
        whole, filled = torch.empty(info.shape, dtype=dtype), 0
        for rank, file in enumerate(self._files):
            held = file.weights(size)[name]
            self.watched.check(file.path)  # before anything is made of what may be half a file
            if not isinstance(held, DTensor):
                whole.copy_(held.detach())  # every process has all of it
                self.watched.check(file.path)
                return whole
            if TensorInfo.of(held) != info:
                raise CheckpointError(
                    f"{file.path}: {name} is {TensorInfo.of(held)}, on rank 0 {info}; save them again"
                )
            block = _block(info.shape, held, rank, file.path, name)
            if block is None:
                continue
            target, local = whole, held.to_local().detach()
            for axis, (offset, length) in enumerate(block):
                target = target.narrow(axis, offset, length)
            if target.shape != local.shape:
                raise CheckpointError(
                    f"{file.path}: its shard of {name} is {tuple(local.shape)}, the mesh leaves {tuple(target.shape)} "
                    "to it; copy or save the files again"
                )
            target.copy_(local)
            self.watched.check(file.path)
            filled += local.numel()
        if filled != info.numel:
            raise CheckpointError(
                f"{self.spec}: the shards of {name} are {filled} numbers of {info.numel}; save it again"
            )
        return whole


def holds(path: Path) -> bool:
    """Whether `path` is a folder of such files, the step's folder around it, or one of the files."""
    if path.is_dir():
        return any(_files(path / part) for part in PARTS)
    return FILE.fullmatch(path.name) is not None


def open_ranks(path: Path, spec: str) -> RankedCheckpoint:
    """Open the files of all ranks. Raises CheckpointError."""
    if not path.is_dir():
        raise CheckpointError(f"{path}: the part of one process; give the folder, {path.parent}")
    folder = next(path / part for part in PARTS if _files(path / part))
    files = _files(folder)
    sizes = sorted({size for size, _ in files})
    if len(sizes) > 1:
        raise CheckpointError(f"{folder}: files of runs of {sizes[0]} and of {sizes[1]} processes; leave those of one")
    if missing := sorted(set(range(sizes[0])) - {rank for _, rank in files}):
        raise CheckpointError(f"{folder}: rank {missing[0]} of {sizes[0]} is missing; copy its file too")
    return RankedCheckpoint(spec, folder, {rank: path for (_, rank), path in files.items()})


def _files(folder: Path) -> dict[tuple[int, int], Path]:
    """World size and rank -> file."""
    found = ((FILE.fullmatch(path.name), path) for path in folder.glob("model_world_size_*.pt"))
    return {(int(match[1]), int(match[2])): path for match, path in found if match}


def _block(shape: tuple[int, ...], held: Any, rank: int, path: Path, name: str) -> list[tuple[int, int]] | None:
    """Offset and length on every axis of what `rank` holds; None if another one holds the same."""
    from torch.distributed.tensor.placement_types import Replicate, Shard, _StridedShard

    with foreign(f"{path}: {name} is no whole DTensor", CheckpointError, "save it again"):
        mesh = held.device_mesh.mesh
        places = (mesh == rank).nonzero()
    if len(places) != 1:
        raise CheckpointError(f"{path}: rank {rank} is not in the mesh of {name}, {mesh.tolist()}; save it again")
    own = getattr(held.device_mesh, "_coordinate_on_dim", None)  # what torch keeps of the process that saved it
    if own is not None and [*own] != places[0].tolist():
        raise CheckpointError(f"{path}: {name} in it is of another rank than {rank}; copy the file again")
    block = [(0, length) for length in shape]
    # What is sharded twice on one axis was cut by the later dimension of the mesh first: the earlier says so itself.
    order = sorted(range(mesh.ndim), key=lambda d: isinstance(held.placements[d], _StridedShard))
    for dimension in order:
        placement, at, of = held.placements[dimension], int(places[0, dimension]), mesh.shape[dimension]
        if isinstance(placement, Replicate):
            if at:
                return None
        elif isinstance(placement, Shard | _StridedShard):
            offset, length = block[placement.dim]
            chunk = math.ceil(length / of)
            start = min(at * chunk, length)
            block[placement.dim] = offset + start, min(chunk, length - start)
        else:
            raise CheckpointError(f"{path}: {name} is placed as {placement}; wanted shards and copies, save it again")
    return block
