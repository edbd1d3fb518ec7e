"""A trained checkpoint read from its source and a patch.

A patch is a safetensors file. Its metadata say which source it needs and what must come out (`PatchHeader`); its
tensors are the streams of `opdlib.checkpoints.bf16`, one for each tensor that changed, under that tensor's name.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from opdlib.checkpoints import bf16, open_checkpoint
from opdlib.checkpoints.checkpoint import Checkpoint, TensorInfo
from opdlib.checkpoints.local import LocalCheckpoint
from opdlib.checkpoints.patch_header import PatchHeader, check_there, read_header
from opdlib.errors import CheckpointError, PatchError
from opdlib.foreign import foreign


class PatchedCheckpoint(Checkpoint):
    """The result of a patch, one tensor at a time; every tensor that is read is checked against the patch's digests.

    Digests come from the header, so asking for them decodes nothing. Raises PatchError if `source` is not the
    checkpoint that the patch was made over, or if the patch is damaged.
    """

    def __init__(self, file: Path, source: Checkpoint, spec: str):
        self.spec, self.folder, self.tensors = spec, source.folder, source.tensors
        self.file, self.source, self.format = file, source, f"patch over {source.format}"
        self._streams = _open(file)
        self.watched = self._streams.watched | source.watched
        self.header = PatchHeader.from_metadata(self._streams.metadata or {}, file)
        if source.digest() != self.header.source_digest:
            raise PatchError(
                f"{file}: made over a source with digest {self.header.source_digest[:12]}, but {source.spec} has "
                f"{source.digest()[:12]}; give the source it was made from, {self.header.source}"
            )
        if stray := sorted(set(self._streams.tensors) - set(self.tensors)):
            raise PatchError(f"{file}: changes {stray[0]}, which {source.spec} lacks; copy or make the patch again")
        if odd := sorted(set(self.tensors) ^ set(self.header.digests)):
            raise PatchError(f"{file}: its digests and its source differ in {odd[0]}; copy or make the patch again")
        if self.digest() != self.header.result_digest:  # of all tensors, each of which is checked when it is read
            raise PatchError(
                f"{file}: its tensors come to digest {self.digest()[:12]}, its header says "
                f"{self.header.result_digest[:12]}; copy or make the patch again"
            )

    def read(self, name: str) -> torch.Tensor:
        info = self.info(name)
        tensor = self.source.read(name)
        if name in self._streams.tensors:
            with foreign(f"{self.file}: {name} is damaged", PatchError, "copy or make the patch again"):
                stream = self._streams.read(name).numpy().tobytes()
            try:
                changed = bf16.decode(flat_bits(tensor), stream, columns(info))
            except ValueError as error:
                raise PatchError(f"{self.file}: {name} is damaged: {error}; copy or make the patch again") from error
            tensor = torch.from_numpy(changed).view(torch.bfloat16).reshape(info.shape)
        found = hashlib.sha256(flat_bits(tensor).data).hexdigest()
        if found != self.header.digests[name]:
            raise PatchError(
                f"{self.file}: {name} comes out with digest {found[:12]}, wanted {self.header.digests[name][:12]}: "
                "the patch or its source is damaged; copy or make them again"
            )
        return tensor

    def tensor_digest(self, name: str) -> str:
        self.info(name)
        return self.header.digests[name]


def open_patched(path: Path, spec: str) -> PatchedCheckpoint:
    """Open the patch `path` over the source that its header names.

    A source that is a relative path is looked for from the patch's folder, then from the working directory. Raises
    PatchError if this is no patch, if its source cannot be opened, or if it is another checkpoint by now.
    """
    named = read_header(path).source
    if named.startswith("patch:"):
        raise PatchError(f"{path}: its source is a patch too ({named}); apply that one first and make this one again")
    beside = path.parent / named
    try:
        source = open_checkpoint(str(beside) if beside.exists() else named)
    except CheckpointError as error:
        raise PatchError(f"{path}: its source cannot be opened: {error}") from error
    return PatchedCheckpoint(path, source, spec)


def columns(info: TensorInfo) -> int:
    """The columns of a tensor as the codec sees it, a matrix: its last dimension, at least 1."""
    return max(1, (1, *info.shape)[-1])


def flat_bits(tensor: torch.Tensor) -> NDArray[np.uint16]:
    """The raw bits of a bf16 tensor, row-major and flat."""
    return tensor.contiguous().flatten().view(torch.uint16).numpy()


def _open(file: Path) -> LocalCheckpoint:
    check_there(file)
    try:
        return LocalCheckpoint(f"patch:{file}", {file: None}, file.parent, empty=True)
    except CheckpointError as error:
        raise PatchError(f"{error}, or make the patch again") from error
