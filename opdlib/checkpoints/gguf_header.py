"""The header of a GGUF file, walked before a package is let at it: everything that it announces lies in the file.

The package `gguf` believes a header. One that says it holds 2^60 strings is read for as long as memory lasts.
"""

import math
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path

from opdlib.errors import CheckpointError

MAGIC, VERSIONS = b"GGUF", (2, 3)
SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""Type of a value that is one number -> its bytes."""
STRING, ARRAY = 8, 9
WHOLE = {0: "<B", 2: "<H", 4: "<I", 10: "<Q", 1: "<b", 3: "<h", 5: "<i", 11: "<q"}
DIMENSIONS = 8
VALUES, ENTRIES = 10_000, 1 << 21
"""Values of a header, and entries of all its arrays: gguf and transformers go through them one by one. A model has some
dozens, and a vocabulary of 262,144 tokens not a million and a half entries."""
SMALLEST = 1 / 8
"""Bytes of a weight, at least."""


@dataclass(frozen=True)
class GgufHeader:
    """What a GGUF announces."""

    tensors: int
    weights: int
    """In all tensors together."""
    counts: dict[str, int]
    """Values that are one whole number, by key."""
    long: dict[int, int]
    """Where an array of more than `VALUES` entries begins -> its bytes. Of tokens alone are there so many."""


def read_gguf_header(file: Path) -> GgufHeader:
    """The header of a GGUF. Raises CheckpointError for a file that is none, or that holds less than it announces."""
    if not file.is_file():
        raise CheckpointError(f"{file}: no such file; wanted a GGUF")
    size = file.stat().st_size
    if not size:
        raise CheckpointError(f"{file}: an empty file; wanted a GGUF, copy or download it again")
    with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        try:
            return _Walk(content).header()
        except _ShortError as error:
            raise CheckpointError(f"{file}: not a whole GGUF ({error}); copy or download it again") from error


class _ShortError(Exception):
    """The header announces what is not there."""


class _Walk:
    """Goes through a header from its first byte."""

    def __init__(self, content: mmap.mmap):
        self._content, self._at, self._entries = content, 0, 0
        self._long: dict[int, int] = {}

    def header(self) -> GgufHeader:
        if (magic := self._take(4)) != MAGIC:
            raise _ShortError(f"it begins with {magic!r}")
        if (version := self._number("<I")) not in VERSIONS:
            raise _ShortError(f"version {version}, wanted {' or '.join(map(str, VERSIONS))}")
        tensors, values = self._number("<Q"), self._number("<Q")
        self._enough(tensors, 24)
        self._enough(values, 13)
        counts = {}
        self._at_most(values, VALUES)
        for _ in range(values):
            key, kind = self._string(), self._number("<I")
            if kind in WHOLE:
                counts[key] = self._number(WHOLE[kind])
            else:
                self._skip(kind)
        return GgufHeader(tensors, self._weights(tensors), counts, self._long)

    def _weights(self, tensors: int) -> int:
        total = 0
        for _ in range(tensors):
            name, dimensions = self._string(), self._number("<I")
            if dimensions > DIMENSIONS:
                raise _ShortError(f"tensor {name!r} has {dimensions} dimensions")
            total += math.prod(self._number("<Q") for _ in range(dimensions))
            self._take(12)  # type and offset
        if total * SMALLEST > len(self._content):
            raise _ShortError(f"{total} weights in {len(self._content)} bytes")
        return total

    def _skip(self, kind: int) -> None:
        if kind in SIZES:
            self._take(SIZES[kind])
        elif kind == STRING:
            self._string()
        elif kind == ARRAY:
            start, of, length = self._at, self._number("<I"), self._number("<Q")
            self._entries += length
            self._at_most(self._entries, ENTRIES)
            if of in SIZES:
                self._enough(length, SIZES[of])
                self._at += length * SIZES[of]
            elif of == STRING:
                self._enough(length, 8)
                for _ in range(length):
                    self._string()
            else:
                raise _ShortError(f"an array of type {of}")
            if length > VALUES:
                self._long[start] = self._at - start
        else:
            raise _ShortError(f"a value of type {kind}")

    def _at_most(self, count: int, most: int) -> None:
        if count > most:
            raise _ShortError(f"it announces {count} entries, where a model has at most {most}")

    def _string(self) -> str:
        return self._take(self._number("<Q")).decode(errors="replace")

    def _number(self, form: str) -> int:
        return int(struct.unpack(form, self._take(struct.calcsize(form)))[0])

    def _take(self, length: int) -> bytes:
        self._enough(length, 1)
        self._at += length
        return self._content[self._at - length : self._at]

    def _enough(self, count: int, size: int) -> None:
        if count * size > len(self._content) - self._at:
            raise _ShortError(f"it announces {count} more at byte {self._at} of {len(self._content)}")
