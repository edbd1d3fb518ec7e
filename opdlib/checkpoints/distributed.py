"""Folders of torch.distributed.checkpoint, read without a process group: `.metadata` and `__*.distcp`.

`.metadata` is a pickle that names a dozen classes of torch. It is read by an unpickler that knows these and nothing
else; the parts of tensors are small files of torch.save within the large ones.
"""

import io
import math
import pathlib
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from opdlib.checkpoints.checkpoint import NAMES, Checkpoint, TensorInfo
from opdlib.checkpoints.opcodes import check_keys
from opdlib.checkpoints.pickled import load, weights_of
from opdlib.checkpoints.watched import Watched
from opdlib.errors import CheckpointError
from opdlib.foreign import foreign

METADATA = ".metadata"
INNER = "pytorch_model_fsdp_0"
"""Where the Trainer puts such a folder within its own."""
CLASSES = {
    "torch.distributed.checkpoint.metadata": (
        *("Metadata", "TensorStorageMetadata", "BytesStorageMetadata", "TensorProperties", "ChunkStorageMetadata"),
        *("MetadataIndex", "StorageMeta", "_MEM_FORMAT_ENCODING"),
    ),
    "torch.distributed.checkpoint.filesystem": ("_StorageInfo",),
    "torch": ("Size",),
    "torch.serialization": ("_get_layout",),
    "collections": ("OrderedDict",),
}
"""Module -> what a pickle may name of it. Making one of these runs nothing."""
PATHS = {"PosixPath": pathlib.PurePosixPath, "WindowsPath": pathlib.PureWindowsPath}
OPTIMIZER = ("optim", "optimizer")


@dataclass(frozen=True)
class Chunk:
    """A block of one tensor, and the bytes of a file that hold it."""

    file: Path
    start: int
    length: int
    offsets: tuple[int, ...]
    sizes: tuple[int, ...]


class DistributedCheckpoint(Checkpoint):
    """The model in a folder of torch.distributed.checkpoint; a tensor is put together from its chunks when it is read.
    Raises CheckpointError for a damaged folder, one without a model, and chunks that do not cover their tensor."""

    def __init__(self, spec: str, folder: Path):
        self.spec, self.format = spec, "torch.distributed.checkpoint"
        self.folder = next((at for at in (folder, folder.parent) if (at / "config.json").is_file()), folder)
        metadata = _read_metadata(folder / METADATA)
        self._chunks: dict[str, list[Chunk]] = {}
        self.tensors = {}
        with foreign(
            f"{folder / METADATA}: not the metadata of a checkpoint", CheckpointError, "copy the folder again"
        ):
            places = {(index.fqn, tuple(index.offset or ())): place for index, place in metadata.storage_data.items()}
            for name, (key, found) in _model(metadata, folder).items():
                shape, dtype = tuple(found.size), found.properties.dtype
                chunks = [_chunk(folder, places[key, tuple(chunk.offsets)], key, chunk) for chunk in found.chunks]
                if sum(math.prod(chunk.sizes) for chunk in chunks) != math.prod(shape):
                    raise CheckpointError(
                        f"{folder / METADATA}: the chunks of {key} do not make up {shape}; save it again"
                    )
                self._chunks[name], self.tensors[name] = chunks, TensorInfo(shape, NAMES.get(dtype, str(dtype)))
        files = {chunk.file for chunks in self._chunks.values() for chunk in chunks}
        if missing := next((file for file in sorted(files) if not file.is_file()), None):
            raise CheckpointError(f"{missing}: missing, though {METADATA} lists it; copy the folder again")
        self.watched = Watched(files)
        self.check_sizes()

    def read(self, name: str) -> torch.Tensor:
        shape, dtype = self.info(name).shape, self.dtype_of(name)
        with foreign(f"{self.spec}: {name}", CheckpointError, "copy the folder again"):
            whole = torch.empty(shape, dtype=dtype)
            for chunk in self._chunks[name]:
                target = whole
                for axis, (offset, size) in enumerate(zip(chunk.offsets, chunk.sizes, strict=True)):
                    target = target.narrow(axis, offset, size)
                target.copy_(self._read(chunk).reshape(chunk.sizes))
        return whole

    def _read(self, chunk: Chunk) -> torch.Tensor:
        self.watched.check(chunk.file)
        with chunk.file.open("rb") as stream:
            stream.seek(chunk.start)
            content = io.BytesIO(stream.read(chunk.length))
        self.watched.check(chunk.file)
        found = load(chunk.file, content=content)
        if not isinstance(found, torch.Tensor):
            raise CheckpointError(f"{chunk.file}: a {type(found).__name__} at byte {chunk.start}; wanted a tensor")
        return found.detach()


def holds(path: Path) -> bool:
    """Whether `path` is such a folder, a file of one, or a folder of the Trainer with one."""
    if path.is_dir():
        return _folder(path) is not None
    return path.name == METADATA or path.suffix == ".distcp"


def open_distributed(path: Path, spec: str) -> DistributedCheckpoint:
    """Open such a folder, whole whatever file of it is given. Raises CheckpointError."""
    folder = _folder(path if path.is_dir() else path.parent)
    if folder is None:
        raise CheckpointError(f"{path}: without {METADATA} beside it; copy the whole folder")
    return DistributedCheckpoint(spec, folder)


def _folder(path: Path) -> Path | None:
    return next((at for at in (path, path / INNER) if (at / METADATA).is_file()), None)


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("pathlib") and name in PATHS:
            return PATHS[name]
        known = __import__(module, fromlist=[name]) if module in CLASSES else None
        if known is not None and (name in CLASSES[module] or isinstance(getattr(known, name, None), torch.dtype)):
            return getattr(known, name)
        raise pickle.UnpicklingError(f"it names {module}.{name}, which no checkpoint of tensors needs; nothing was run")


def _read_metadata(file: Path) -> Any:
    with foreign(f"{file}: not the metadata of a checkpoint", CheckpointError, "copy or save the folder again"):
        with file.open("rb") as stream:
            check_keys(stream)
            stream.seek(0)
            metadata = _Unpickler(stream).load()
        metadata.state_dict_metadata.items(), metadata.storage_data.items()
    return metadata


def _model(metadata: Any, folder: Path) -> dict[str, tuple[str, Any]]:
    """Name of every tensor of the model -> its key in the metadata, and what stands there."""
    from torch.distributed.checkpoint.metadata import TensorStorageMetadata

    paths = metadata.planner_data if isinstance(metadata.planner_data, dict) else {}
    nested: dict[Any, Any] = {}
    for key, found in metadata.state_dict_metadata.items():
        *outer, last = paths.get(key, (key,))
        if isinstance(found, TensorStorageMetadata) and not (paths.get(key) is None and key.startswith(OPTIMIZER)):
            at = nested
            for part in outer:
                at = at.setdefault(part, {})
            at[last] = _Entry(key, found)
    return {name: (entry.key, entry.found) for name, entry in weights_of(nested, folder, _Entry).items()}


@dataclass(frozen=True)
class _Entry:
    key: str
    found: Any


def _chunk(folder: Path, place: Any, key: str, chunk: Any) -> Chunk:
    if Path(place.relative_path).name != place.relative_path:
        raise CheckpointError(f"{folder / METADATA}: {key} lies in {place.relative_path!r}, outside the folder")
    if getattr(place, "transform_descriptors", None):
        raise CheckpointError(f"{folder}: {key} is written with {place.transform_descriptors}; save it without")
    file, start, length = folder / place.relative_path, int(place.offset), int(place.length)
    return Chunk(file, start, length, tuple(chunk.offsets), tuple(chunk.sizes))
