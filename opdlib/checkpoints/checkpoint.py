"""What every checkpoint offers, wherever it lies: headers first, tensors on demand, a digest of the content."""

from __future__ import annotations

import hashlib
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from opdlib.checkpoints.names import HEAD, embedding_of, is_head
from opdlib.checkpoints.watched import Watched
from opdlib.errors import CheckpointError
from opdlib.foreign import read_object

DTYPES = {
    "BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32, "F64": torch.float64,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2, "BOOL": torch.bool,
    "I8": torch.int8, "I16": torch.int16, "I32": torch.int32, "I64": torch.int64,
    "U8": torch.uint8, "U16": torch.uint16, "U32": torch.uint32, "U64": torch.uint64,
}  # fmt: skip
"""Dtypes by their safetensors names."""

NAMES = {dtype: name for name, dtype in DTYPES.items()}


@dataclass(frozen=True)
class TensorInfo:
    """What a header says of one tensor before it is read."""

    shape: tuple[int, ...]
    """Sizes, outermost first; () for a scalar."""
    dtype: str
    """The safetensors name of the stored dtype: BF16, F16, F32, ..."""

    @classmethod
    def of(cls, tensor: torch.Tensor) -> TensorInfo:
        """What there is to say of a tensor that is at hand, or mapped."""
        return cls(tuple(tensor.shape), NAMES.get(tensor.dtype, str(tensor.dtype)))

    @property
    def numel(self) -> int:
        """Number of coordinates; 1 for a scalar, 0 if a dimension is 0."""
        return math.prod(self.shape)


class Checkpoint(ABC):
    """A named set of tensors. Open one with `opdlib.checkpoints.open_checkpoint`."""

    spec: str
    """The specification it was opened with, for messages and provenance."""
    folder: Path | None
    """A local folder with config.json and tokenizer files, where there is one."""
    tensors: Mapping[str, TensorInfo]
    """Every stored tensor, by name, as the headers list them."""
    format: str
    """What it is written in, for provenance: safetensors, torch, GGUF, ..."""
    beside: tuple[str, ...] = ()
    """Weights in other formats in the same folder, which are not read."""
    revision: str | None = None
    """The Hub commit that the files were taken from, 40 hex digits; None for anything that is not on the Hub."""

    watched = Watched()
    """Its files; each is looked at after every tensor that is read from it."""

    @abstractmethod
    def read(self, name: str) -> torch.Tensor:
        """The tensor `name`, in its stored shape and dtype. Only this tensor is held in memory."""

    def read_rows(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Entries `start` to `stop` of the first dimension of a tensor. A format that can leaves the others unread: of
        a stack of experts each is wanted on its own."""
        return self.read(name)[start:stop]

    def check_sizes(self) -> None:
        """Raise CheckpointError for a tensor that would take more memory than all files together: a pickle may show the
        same few numbers as often as it likes."""
        size = self.watched.size
        for name, info in self.tensors.items():
            if info.numel * (DTYPES[info.dtype].itemsize if info.dtype in DTYPES else 1) > size:
                raise CheckpointError(
                    f"{self.spec}: {name} is said to be {info.shape} of {info.dtype}, and its files have {size} bytes; "
                    "save the checkpoint again"
                )

    def check_unchanged(self) -> None:
        """Raise CheckpointError if a file of it is another than when it was opened."""
        self.watched.check()

    def origin(self) -> dict[str, str]:
        """Facts for the provenance of a measurement: spec, format, digest; the commit on the Hub; what lies beside."""
        facts = {"spec": self.spec, "format": self.format, "digest": self.digest()}
        known = {"revision": self.revision or "", "not read": "; ".join(self.beside)}
        return facts | {key: value for key, value in known.items() if value}

    def info(self, name: str) -> TensorInfo:
        """What the header says of `name`. Raises CheckpointError if there is no such tensor."""
        if name not in self.tensors:
            raise CheckpointError(
                f"{self.spec}: no tensor {name!r} among its {len(self.tensors)}; "
                "names must be those that the file's header lists"
            )
        return self.tensors[name]

    def dtype_of(self, name: str) -> torch.dtype:
        """The stored dtype of `name`. Raises CheckpointError for one that torch has not, and for no such tensor."""
        dtype = self.info(name).dtype
        if dtype not in DTYPES:
            raise CheckpointError(f"{self.spec}: {name} is stored as {dtype}; wanted one of {', '.join(DTYPES)}")
        return DTYPES[dtype]

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """The content of config.json, empty if there is none. Raises CheckpointError if it is no JSON object."""
        path = self.folder / "config.json" if self.folder else None
        if path is None or not path.is_file():
            return {}
        return read_object(path, CheckpointError, "repair or remove it")

    @cached_property
    def tied(self) -> Mapping[str, str]:
        """Output head -> input embedding, where config.json says that the two are one tensor.

        Empty when config.json is missing or does not say so: what is not declared is not assumed. The head may be
        stored or not; where it is, `opdlib.measurement.align` checks that it equals the embedding and counts it once.
        """
        text = self.config.get("text_config")
        declared = self.config.get("tie_word_embeddings", isinstance(text, dict) and text.get("tie_word_embeddings"))
        embedding = embedding_of(self.tensors)
        if declared is not True or embedding is None:
            return {}
        return {next(filter(is_head, self.tensors), HEAD): embedding}

    def tensor_digest(self, name: str) -> str:
        """SHA-256 of the stored bytes of one tensor (row-major, little-endian), as 64 hex digits."""
        tensor = self.read(name)
        if tensor.numel() == 0:
            return hashlib.sha256(b"").hexdigest()
        return hashlib.sha256(tensor.contiguous().flatten().view(torch.uint8).numpy().data).hexdigest()

    def digest(self) -> str:
        """SHA-256 over (name, dtype, shape, digest) of every tensor in order of name: 64 hex digits.

        It does not depend on file names, sharding or the order in a file, so a checkpoint keeps its digest when it is
        sharded, copied or rebuilt from a patch. Reads everything once; the result is kept.
        """
        return self._digest

    @cached_property
    def digests(self) -> Mapping[str, str]:
        """Tensor -> `tensor_digest`, of all. Reads everything once."""
        return {name: self.tensor_digest(name) for name in sorted(self.tensors)}

    @cached_property
    def _digest(self) -> str:
        headers = sorted(self.tensors.items())
        rows = [[name, info.dtype, list(info.shape), self.digests[name]] for name, info in headers]
        return hashlib.sha256(json.dumps(rows, separators=(",", ":")).encode()).hexdigest()
