"""Safetensors on this machine: one file, or shards listed by an index."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from opdlib.checkpoints.checkpoint import Checkpoint, TensorInfo
from opdlib.checkpoints.shards import Files, check_shard, files_in, files_of_index, whole_file
from opdlib.checkpoints.watched import Watched, unreadable
from opdlib.errors import CheckpointError
from opdlib.foreign import foreign

WEIGHTS = "*.safetensors"
COMPANIONS = ("*.json", "*.jinja", "*.model", "tokenizer*", "merges.txt", "vocab.txt")
"""Configuration and tokenizer, and the index of shards."""


class LocalCheckpoint(Checkpoint):
    """Safetensors files of one folder. Opening reads headers only; the memory in use is that of the tensors that are
    alive, however large the files are.

    A tensor is read into memory of its own: a file that is cut short under a map would end the process without a word.
    Raises CheckpointError if a header cannot be read, is not covered by its file, or disagrees with the index, and for
    a file that has changed since it was opened.
    """

    def __init__(self, spec: str, files: Files, folder: Path, empty: bool = False):
        self.spec, self.folder, self.format = spec, folder, "safetensors"
        self.watched = Watched(files)
        self._places: dict[str, tuple[Path, int, int]] = {}  # file, start, stop
        self.tensors = {}
        self.metadata: dict[str, str] | None = None
        """What the first file that has any says about itself, usually {"format": "pt"}."""
        for path, listed in sorted(files.items()):
            header, begin = _header(path)
            metadata = header.pop("__metadata__", None)
            self.metadata = self.metadata or metadata
            check_shard(path, listed, header, {name: place[0] for name, place in self._places.items()})
            if "" in header:
                raise CheckpointError(f"{path}: holds a tensor without a name; save the checkpoint again")
            for name, entry in header.items():
                start, stop = entry["data_offsets"]
                self._places[name] = path, begin + start, begin + stop
                self.tensors[name] = TensorInfo(tuple(entry["shape"]), entry["dtype"])
        if not self.tensors and not empty:
            raise CheckpointError(f"{spec}: its safetensors files hold no tensor; wanted a model's weights")

    def read(self, name: str) -> torch.Tensor:
        shape = self.info(name).shape
        return self._read(name, *self._places[name], shape)

    def read_rows(self, name: str, start: int, stop: int) -> torch.Tensor:
        shape = self.info(name).shape
        file, begin, end = self._places[name]
        row = (end - begin) // max(1, shape[0])
        return self._read(name, file, begin + start * row, begin + stop * row, (stop - start, *shape[1:]))

    def _read(self, name: str, file: Path, start: int, stop: int, shape: tuple[int, ...]) -> torch.Tensor:
        dtype = self.dtype_of(name)
        content = torch.empty(stop - start, dtype=torch.uint8)
        unread = content.numpy().data
        try:
            with file.open("rb", buffering=0) as stream:
                stream.seek(start)
                while unread and (count := stream.readinto(unread)):
                    unread = unread[count:]
        except OSError as error:
            raise unreadable(file, error) from error
        self.watched.check(file)
        with foreign(f"{self.spec}: {name}", CheckpointError, "no such shape can be held, leave the tensor out"):
            return content.view(dtype).reshape(shape)


def holds(path: Path) -> bool:
    """Whether there are safetensors at `path`: a file, an index of shards, or a folder with either."""
    if path.is_dir():
        own = (file for file in path.glob(WEIGHTS) if not file.name.startswith("adapter_"))
        return any(own) or any(path.glob(f"{WEIGHTS}.index.json"))
    return path.suffix == ".safetensors" or path.name.endswith(".safetensors.index.json")


def open_local(path: Path, spec: str) -> LocalCheckpoint:
    """Open a safetensors file, an index of shards, or a folder that holds either. Raises CheckpointError with what was
    found and what to do."""
    if path.is_dir():
        indices, weights = sorted(path.glob(f"{WEIGHTS}.index.json")), sorted(path.glob(WEIGHTS))
        return LocalCheckpoint(spec, files_in(path, "model.safetensors", indices, weights), path)
    files = files_of_index(path) if path.suffix == ".json" else whole_file(path)
    return LocalCheckpoint(spec, files, path.parent)


def _header(path: Path) -> tuple[dict[str, Any], int]:
    """The header as it stands, and where the data begin; safetensors itself judges whether the file is whole."""
    if not path.is_file():
        raise CheckpointError(f"{path}: is no regular file; wanted a safetensors file, copy or download it again")
    with foreign(f"{path}: not a whole safetensors file", CheckpointError, "copy or download the file again"):
        with safe_open(path, framework="pt"):
            pass
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(length))
    return header, 8 + length
