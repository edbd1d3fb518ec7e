"""A checkpoint as its matrices: where in the stored tensors each lies, whatever layout the file has.

A matrix is what the architecture multiplies by: outputs are its rows, a fused tensor holds several, a stack of experts
one or two for each. Its name is the one of the layout that stores each matrix on its own, so two files with the same
weights give the same names and the same numbers. Everything here follows from headers and config.json.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from opdlib.checkpoints.architectures import Architecture, Cut
from opdlib.checkpoints.checkpoint import Checkpoint, TensorInfo
from opdlib.checkpoints.names import is_buffer, unwrapped
from opdlib.errors import CheckpointError

BUFFER = "a buffer, not trained"


@dataclass(frozen=True)
class Place:
    """Where a matrix, or any other parameter, lies."""

    stored: str
    """The name of the tensor in the file."""
    info: TensorInfo
    """Its own shape, outputs first, and the stored dtype."""
    cut: Cut | None = None
    """None where the whole tensor is meant, as it lies."""

    def read(self, checkpoint: Checkpoint) -> torch.Tensor:
        """The values, contiguous, in the stored dtype."""
        if self.cut is None:
            return checkpoint.read(self.stored)
        rows = self.cut.rows(checkpoint.info(self.stored).shape)
        return self.cut.of_rows(checkpoint.read_rows(self.stored, *rows)).contiguous()

    def first_rows(self, count: int) -> Place:
        """The first rows of a tensor that is stored whole."""
        shape = (count, *self.info.shape[1:])
        return replace(self, info=replace(self.info, shape=shape), cut=Cut(stop=count))

    def __str__(self) -> str:
        """The stored name, with the way to the matrix in it."""
        return self.stored if self.cut is None else f"{self.stored}: {self.cut}"


@dataclass(frozen=True)
class Matrices:
    """All parameters of a checkpoint, matrices and others."""

    places: Mapping[str, Place]
    """By name."""
    buffers: Mapping[str, str]
    """Stored tensor -> why it is no parameter."""
    notes: Mapping[str, str]
    """Fused tensor -> why it is taken as one matrix."""


def matrices(checkpoint: Checkpoint, rename: Mapping[str, str] | None = None, whole: bool = False) -> Matrices:
    """Find the parameters of a checkpoint.

    `rename` replaces names, or the beginnings of names that end at a dot, before they are read; `whole` takes every
    tensor as it is stored. Raises CheckpointError for two tensors of one name.
    """
    names: dict[str, str] = {}
    buffers: dict[str, str] = {}
    for stored, info in checkpoint.tensors.items():
        name = unwrapped(renamed(stored, rename or {}))
        if is_buffer(name, len(info.shape)):
            buffers[stored] = BUFFER
        elif name in names:
            raise CheckpointError(
                f"{checkpoint.spec}: {names[name]!r} and {stored!r} both stand for {name!r}; remove one of them"
            )
        else:
            names[name] = stored
    architecture = Architecture(checkpoint.config, {name: checkpoint.tensors[names[name]].shape for name in names})
    places: dict[str, Place] = {}
    for name, stored in names.items():
        info = checkpoint.tensors[stored]
        for part, cut in [(name, None)] if whole else architecture.parts(name):
            if part in places:
                raise CheckpointError(f"{checkpoint.spec}: {part!r} is there twice, on its own and in {stored!r}")
            shape = info.shape if cut is None else tuple(cut.of(torch.empty(info.shape, device="meta")).shape)
            places[part] = Place(stored, TensorInfo(shape, info.dtype), cut)
    return Matrices(places, buffers, architecture.notes)


def renamed(name: str, rename: Mapping[str, str]) -> str:
    """The name with the first of these beginnings that it has replaced; a beginning ends at a dot or is all of it."""
    for old, new in rename.items():
        if name == old or (name.startswith(old) and (not old or old.endswith(".") or name[len(old)] == ".")):
            return new + name.removeprefix(old)
    return name
