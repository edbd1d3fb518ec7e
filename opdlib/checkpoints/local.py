"""Safetensors on this machine: one file, or shards listed by an index."""

from __future__ import annotations

import json
import mmap
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from opdlib.checkpoints.checkpoint import Checkpoint, TensorInfo
from opdlib.errors import CheckpointError

WEIGHTS = "*.safetensors"
COMPANIONS = ("*.json", "*.jinja", "*.model", "tokenizer*", "merges.txt", "vocab.txt")
"""Configuration and tokenizer, and the index of shards."""
PICKLES = (".bin", ".pt", ".pth", ".ckpt")
SHARD = re.compile(r"(.+)-(\d+)-of-(\d+)\.safetensors")

DTYPES = {
    "BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32, "F64": torch.float64,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2, "BOOL": torch.bool,
    "I8": torch.int8, "I16": torch.int16, "I32": torch.int32, "I64": torch.int64,
    "U8": torch.uint8, "U16": torch.uint16, "U32": torch.uint32, "U64": torch.uint64,
}  # fmt: skip


Files = Mapping[Path, list[str] | None]
"""File -> the tensors that an index lists for it; None without an index."""


class LocalCheckpoint(Checkpoint):
    """Safetensors files of one folder. Opening reads headers only; reading maps one tensor, and unmaps it when it goes.

    So the memory in use is that of the tensors that are alive, however large the files are. Raises CheckpointError if a
    header cannot be read, is not covered by its file, or disagrees with the index.
    """

    def __init__(self, spec: str, files: Files, folder: Path, revision: str | None = None):
        self.spec, self.folder, self.revision = spec, folder, revision
        self._places: dict[str, tuple[Path, int, int]] = {}  # file, start, stop
        self.tensors = {}
        self.metadata: dict[str, str] | None = None
        """What the first file that has any says about itself, usually {"format": "pt"}."""
        for path, listed in sorted(files.items()):
            header, begin = _header(path)
            metadata = header.pop("__metadata__", None)
            self.metadata = self.metadata or metadata
            if listed is not None and sorted(listed) != sorted(header):
                stray = sorted(set(listed).symmetric_difference(header))
                raise CheckpointError(
                    f"{path}: the index lists {len(listed)} tensors in this shard, the shard holds {len(header)}; "
                    f"they differ in {stray[0]!r}. Index and shards must come from one save; copy them again"
                )
            for name, entry in header.items():
                if name in self._places:
                    raise CheckpointError(
                        f"{path}: tensor {name!r} is also in {self._places[name][0].name}; a tensor belongs to one "
                        "shard. Remove the file that is not part of the checkpoint"
                    )
                start, stop = entry["data_offsets"]
                self._places[name] = path, begin + start, begin + stop
                self.tensors[name] = TensorInfo(tuple(entry["shape"]), entry["dtype"])
        if not self.tensors:
            raise CheckpointError(f"{spec}: its safetensors files hold no tensor; wanted a model's weights")

    def read(self, name: str) -> torch.Tensor:
        info = self.info(name)
        file, start, stop = self._places[name]
        dtype = DTYPES.get(info.dtype)
        if dtype is None:
            raise CheckpointError(f"{self.spec}: {name} is stored as {info.dtype}; wanted one of {', '.join(DTYPES)}")
        if start == stop:
            return torch.empty(info.shape, dtype=dtype)
        page = start // mmap.ALLOCATIONGRANULARITY * mmap.ALLOCATIONGRANULARITY
        with file.open("rb") as stream:
            # Copy on write: the file cannot be changed through the tensor, which torch takes for writable.
            mapped = mmap.mmap(stream.fileno(), stop - page, access=mmap.ACCESS_COPY, offset=page)
        tensor = torch.frombuffer(mapped, dtype=dtype, count=info.numel, offset=start - page).reshape(info.shape)
        return tensor if start % dtype.itemsize == 0 else tensor.clone()


def open_local(path: Path, spec: str, revision: str | None = None) -> LocalCheckpoint:
    """Open a safetensors file, an index of shards, or a folder that holds either. Pickles (.bin, .pt) are never read:
    they can run code. Raises CheckpointError with what was found and what to do."""
    if path.is_file():
        if path.name.endswith(".index.json"):
            return LocalCheckpoint(spec, _from_index(path), path.parent, revision)
        if path.suffix == ".safetensors":
            return LocalCheckpoint(spec, {path: None}, path.parent, revision)
        if path.suffix in PICKLES:
            raise CheckpointError(_pickle_message(path))
        raise CheckpointError(f"{path}: a {path.suffix or 'nameless'} file; wanted .safetensors or an index of shards")
    if not path.is_dir():
        raise CheckpointError(f"{path}: no such file or folder; wanted a folder with safetensors files")
    return LocalCheckpoint(spec, _in_folder(path), path, revision)


def _in_folder(folder: Path) -> Files:
    indices = sorted(folder.glob("*.safetensors.index.json"))
    weights = sorted(folder.glob(WEIGHTS))
    single = folder / "model.safetensors"
    if len(indices) > 1 or (indices and single.exists()):
        rivals = [p.name for p in indices] + [single.name] * single.exists()
        raise CheckpointError(
            f"{folder}: holds {' and '.join(rivals)}, which may be two checkpoints; name the file you mean"
        )
    if indices:
        return _from_index(indices[0])
    if single.exists() or len(weights) == 1:
        return {single if single.exists() else weights[0]: None}
    if weights:
        return _unlisted_shards(folder, weights)
    if pickles := sorted(p for p in folder.iterdir() if p.suffix in PICKLES):
        raise CheckpointError(_pickle_message(pickles[0]))
    found = "an empty folder" if not any(folder.iterdir()) else "no weights in this folder"
    raise CheckpointError(f"{folder}: {found}; wanted *.safetensors or an index of shards")


def _unlisted_shards(folder: Path, weights: list[Path]) -> Files:
    """Shards without an index are taken only if their own names prove that the set is complete."""
    shards = [m for p in weights if (m := SHARD.fullmatch(p.name))]
    if len(shards) == len(weights) and len({(m[1], int(m[3])) for m in shards}) == 1:
        total = int(shards[0][3])
        if missing := sorted(set(range(1, total + 1)) - {int(m[2]) for m in shards}):
            raise CheckpointError(f"{folder}: shard {missing[0]} of {total} is missing; copy the checkpoint again")
        return dict.fromkeys(weights)
    raise CheckpointError(
        f"{folder}: {len(weights)} safetensors files and no index ({weights[0].name}, {weights[1].name}, ...); "
        "name one file, or add the index that lists them"
    )


def _from_index(index: Path) -> Files:
    try:
        content = json.loads(index.read_text(encoding="utf8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{index}: not readable as JSON ({error}); copy the index again") from error
    weight_map = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{index}: no 'weight_map' of tensor names to file names; copy the index again")
    files: dict[Path, list[str]] = {}
    for name, shard in weight_map.items():
        if not isinstance(shard, str) or Path(shard).name != shard or "\\" in shard:
            raise CheckpointError(
                f"{index}: {name!r} is said to lie in {shard!r}; wanted the plain name of a file beside it. "
                "An index must not point outside its folder"
            )
        files.setdefault(index.parent / shard, []).append(name)
    for path in files:
        if not path.is_file():
            raise CheckpointError(f"{path}: missing, though {index.name} lists it; copy or download the shard again")
    return files


def _header(path: Path) -> tuple[dict[str, Any], int]:
    """The header as it stands, and where the data begin; safetensors itself judges whether the file is whole."""
    try:
        with safe_open(path, framework="pt"):
            pass
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(length))
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path}: not a whole safetensors file ({error}); copy or download the file again"
        ) from error
    return header, 8 + length


def _pickle_message(path: Path) -> str:
    return (
        f"{path}: a pickle, which can run code when it is loaded, so it is not read; "
        "convert the checkpoint to safetensors (transformers: model.save_pretrained)"
    )
