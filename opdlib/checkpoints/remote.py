"""Safetensors that stay where they are: opened by their headers, read a tensor at a time, a bounded part kept here."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from opdlib.checkpoints.checkpoint import DTYPES, Checkpoint, TensorInfo
from opdlib.checkpoints.shards import check_shard
from opdlib.errors import CheckpointError, ParameterError
from opdlib.files import build_once, cache_root
from opdlib.foreign import foreign

Fetch = Callable[[str, int, int], tuple[bytes, int]]
"""File, start, stop -> those bytes, all of them, and the size of the file. Raises CheckpointError."""

CACHE = 20_000_000_000
"""Bytes of tensors that are kept, unless $OPDLIB_CACHE_BYTES says otherwise."""
CONTENT = "content"
LONGEST_HEADER = 100_000_000
"""Bytes; the limit of safetensors itself."""


class RemoteCheckpoint(Checkpoint):
    """Safetensors files behind `fetch`. `files` says what an index lists for each, None without an index; `version`
    names their content, such as a commit: what is kept under one is never taken for another.

    Raises CheckpointError for a header that is not whole or disagrees with its file or the index.
    """

    def __init__(
        self,
        spec: str,
        files: Mapping[str, list[str] | None],
        fetch: Fetch,
        version: str,
        folder: Path | None = None,
        revision: str | None = None,
    ):
        self.spec, self.folder, self.revision, self.format = spec, folder, revision, "safetensors"
        self._fetch, self._version = fetch, version
        self._places: dict[str, tuple[str, int, int]] = {}  # file, start, stop
        self.tensors = {}
        for file, listed in sorted(files.items()):
            header, begin, size = self._header(file)
            header.pop("__metadata__", None)
            check_shard(Path(file), listed, header, {name: Path(place[0]) for name, place in self._places.items()})
            for name, entry in header.items():
                info, start, stop = _entry(f"{spec}: {file}", name, entry)
                if not 0 <= start <= stop <= size - begin:
                    raise CheckpointError(
                        f"{spec}: {file} has {size} bytes, and {name} would end at {begin + stop}; upload it again"
                    )
                self._places[name] = file, begin + start, begin + stop
                self.tensors[name] = info
        if not self.tensors:
            raise CheckpointError(f"{spec}: its safetensors files hold no tensor; wanted a model's weights")

    def read(self, name: str) -> torch.Tensor:
        info = self.info(name)
        file, start, stop = self._places[name]
        if start == stop:
            return torch.empty(info.shape, dtype=DTYPES[info.dtype])
        content = torch.from_numpy(self._kept(file, start, stop))
        return content.view(DTYPES[info.dtype]).reshape(info.shape)

    def to_download(self) -> int:
        """Bytes of tensors that are not kept here yet."""
        return sum(stop - start for f, start, stop in self._places.values() if not self._place(f, start, stop).is_dir())

    def _header(self, file: str) -> tuple[dict[str, Any], int, int]:
        """The header, where the data begin, and the size of the file."""
        length, size = self._fetch(file, 0, 8)
        begin = 8 + int.from_bytes(length, "little")
        if begin > min(size, LONGEST_HEADER):
            raise CheckpointError(f"{self.spec}: {file} has {size} bytes and a header of {begin}; upload it again")
        content = self._kept(file, 8, begin).tobytes()
        with foreign(f"{self.spec}: {file}: its header is no JSON", CheckpointError, "upload it again"):
            header = json.loads(content)
        if not isinstance(header, dict):
            raise CheckpointError(f"{self.spec}: {file}: its header is no JSON object; upload it again")
        return header, begin, size

    def _place(self, file: str, start: int, stop: int) -> Path:
        key = hashlib.sha256(f"{self._version}\n{file}\n{start}-{stop}".encode()).hexdigest()
        return cache_root() / "tensors" / key

    def _kept(self, file: str, start: int, stop: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """Bytes of a file, fetched if they are not kept."""
        place = self._place(file, start, stop)

        def fetch(folder: Path) -> None:
            (folder / CONTENT).write_bytes(self._fetch(file, start, stop)[0])

        while True:
            build_once(place, fetch)
            try:
                content = np.fromfile(place / CONTENT, np.uint8)
                os.utime(place)
            except FileNotFoundError:  # another process needed the room
                continue
            make_room(place.parent, place)
            return content


def _entry(where: str, name: str, entry: Any) -> tuple[TensorInfo, int, int]:
    """What a header says of a tensor, and where its data lie. Raises CheckpointError unless the two agree."""
    with foreign(f"{where}: {name}", CheckpointError, "wanted dtype, shape and data_offsets in its header"):
        info, (start, stop) = TensorInfo(tuple(map(int, entry["shape"])), str(entry["dtype"])), entry["data_offsets"]
        whole = min(info.shape, default=0) >= 0 and info.numel * DTYPES[info.dtype].itemsize == stop - start
    if not whole:
        raise CheckpointError(
            f"{where}: {name} has {stop - start} bytes, its shape and dtype want other; upload it again"
        )
    return info, start, stop


def make_room(folder: Path, newest: Path) -> None:
    """Remove what was used longest ago from the cache `folder` until it holds no more than it may; `newest` stays."""
    sizes = {}
    for place in folder.iterdir():
        content = place / CONTENT
        if place != newest and content.is_file():
            sizes[place] = (place.stat().st_mtime, content.stat().st_size)
    room = limit() - (newest / CONTENT).stat().st_size - sum(size for _, size in sizes.values())
    for place, (_, size) in sorted(sizes.items(), key=lambda entry: entry[1]):
        if room >= 0:
            return
        shutil.rmtree(place, ignore_errors=True)
        room += size


def limit() -> int:
    """Bytes of tensors that are kept. Raises ParameterError if $OPDLIB_CACHE_BYTES is no number."""
    chosen = os.environ.get("OPDLIB_CACHE_BYTES", str(CACHE))
    if not chosen.isdecimal():
        raise ParameterError(f"OPDLIB_CACHE_BYTES {chosen!r}; wanted a number of bytes, such as {CACHE}")
    return int(chosen)
