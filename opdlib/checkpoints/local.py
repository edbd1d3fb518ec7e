"""Safetensors on this machine: one file, or shards listed by an index."""

from __future__ import annotations

import json
import re
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from opdlib.checkpoints.checkpoint import Checkpoint, TensorInfo
from opdlib.errors import CheckpointError

PICKLES = (".bin", ".pt", ".pth", ".ckpt")
SHARD = re.compile(r"(.+)-(\d+)-of-(\d+)\.safetensors")


class LocalCheckpoint(Checkpoint):
    """Safetensors files of one folder, memory-mapped: opening reads headers only.

    `files` maps each tensor to the file that holds it. Raises CheckpointError if a header cannot be read, is not
    covered by its file, or disagrees with the index.
    """

    def __init__(
        self,
        spec: str,
        files: dict[Path, list[str] | None],
        folder: Path,
        revision: str | None = None,
    ):
        self.spec, self.folder, self.revision = spec, folder, revision
        self._home: dict[str, Path] = {}
        self._files = sorted(files)
        self.tensors = {}
        for path in self._files:
            listed, handle = files[path], self._handles[path]
            stored = sorted(handle.keys())
            if listed is not None and sorted(listed) != stored:
                stray = sorted(set(listed).symmetric_difference(stored))
                raise CheckpointError(
                    f"{path}: the index lists {len(listed)} tensors in this shard, the shard holds {len(stored)}; "
                    f"they differ in {stray[0]!r}. Index and shards must come from one save; copy them again"
                )
            for name in stored:
                if name in self._home:
                    raise CheckpointError(
                        f"{path}: tensor {name!r} is also in {self._home[name].name}; a tensor belongs to one shard. "
                        "Remove the file that is not part of the checkpoint"
                    )
                piece = handle.get_slice(name)
                self._home[name] = path
                self.tensors[name] = TensorInfo(tuple(piece.get_shape()), str(piece.get_dtype()))
        if not self.tensors:
            raise CheckpointError(f"{spec}: its safetensors files hold no tensor; wanted a model's weights")

    def read(self, name: str) -> torch.Tensor:
        self.info(name)
        tensor: torch.Tensor = self._handles[self._home[name]].get_tensor(name)
        return tensor

    @cached_property
    def _handles(self) -> dict[Path, Any]:
        return {path: _open_file(path) for path in self._files}

    def __getstate__(self) -> dict[str, Any]:
        # Memory maps do not travel to worker processes; each opens its own.
        return {key: value for key, value in self.__dict__.items() if key != "_handles"}


def open_local(path: Path, spec: str, revision: str | None = None) -> LocalCheckpoint:
    """Open a safetensors file, an index of shards, or a folder that holds either.

    Pickles (.bin, .pt) are never read: they can run code. Raises CheckpointError with what was found and what to do.
    """
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


def _in_folder(folder: Path) -> dict[Path, list[str] | None]:
    indices = sorted(folder.glob("*.safetensors.index.json"))
    weights = sorted(folder.glob("*.safetensors"))
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
    pickles = sorted(p for p in folder.iterdir() if p.suffix in PICKLES)
    if pickles:
        raise CheckpointError(_pickle_message(pickles[0]))
    found = "an empty folder" if not any(folder.iterdir()) else "no weights in this folder"
    raise CheckpointError(f"{folder}: {found}; wanted *.safetensors or an index of shards")


def _unlisted_shards(folder: Path, weights: list[Path]) -> dict[Path, list[str] | None]:
    """Shards without an index are taken only if their own names prove that the set is complete."""
    matches = [SHARD.fullmatch(p.name) for p in weights]
    stems = {(m[1], int(m[3])) for m in matches if m}
    if all(matches) and len(stems) == 1:
        total = next(iter(stems))[1]
        present = {int(m[2]) for m in matches if m}
        missing = sorted(set(range(1, total + 1)) - present)
        if not missing:
            return dict.fromkeys(weights)
        raise CheckpointError(f"{folder}: shard {missing[0]} of {total} is missing; copy the checkpoint again")
    raise CheckpointError(
        f"{folder}: {len(weights)} safetensors files and no index ({weights[0].name}, {weights[1].name}, ...); "
        "name one file, or add the index that lists them"
    )


def _from_index(index: Path) -> dict[Path, list[str] | None]:
    try:
        content = json.loads(index.read_text(encoding="utf8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{index}: not readable as JSON ({error}); copy the index again") from error
    weight_map = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{index}: no 'weight_map' of tensor names to file names; copy the index again")
    files: dict[Path, list[str] | None] = {}
    for name, shard in weight_map.items():
        if not isinstance(shard, str) or Path(shard).name != shard or "\\" in shard:
            raise CheckpointError(
                f"{index}: {name!r} is said to lie in {shard!r}; wanted the plain name of a file beside it. "
                "An index must not point outside its folder"
            )
        path = index.parent / shard
        names = files.setdefault(path, [])
        if names is not None:
            names.append(name)
    for path in files:
        if not path.is_file():
            raise CheckpointError(f"{path}: missing, though {index.name} lists it; copy or download the shard again")
    return files


def _open_file(path: Path) -> Any:
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path}: not a whole safetensors file ({error}); copy or download the file again"
        ) from error


def _pickle_message(path: Path) -> str:
    return (
        f"{path}: a pickle, which can run code when it is loaded, so it is not read; "
        "convert the checkpoint to safetensors (transformers: model.save_pretrained)"
    )
