"""What a measurement has done so far, on disk, so that a killed run goes on where it stopped.

A measurement has fixed parts: groups of tensors, or single ones. A finished part is one file: its records and arrays as
npz, and after them a digest of the measurement's identity, the file's name and that content. What does not check, for
it is of another measurement, torn or damaged, counts as not finished. So the disk need not be waited for.
"""

import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from opdlib.errors import OutputError, ParameterError
from opdlib.files import explained

Arrays = Mapping[str, NDArray[Any]]

IDENTITY = "identity.json"
SIZE = 32
"""Bytes of the digest."""
LAYOUT = b"2"
"""Raised whenever parts hold something else; those of another layout count as not finished."""
OWN = (IDENTITY, "*.npz", "*.npz.part")
"""What a ledger's folder holds."""


def part_of(kind: str, tensor: str) -> str:
    """The name of a part of this kind that is about one tensor, whose name may hold what a file's must not."""
    return f"{kind}-{hashlib.sha256(tensor.encode()).hexdigest()[:16]}"


class Ledger:
    """Finished parts of one measurement, in `folder`. `identity` says which measurement it is: any JSON value.

    Parts of another measurement go. Raises OutputError for a folder that cannot be written, or holds anything else.
    """

    def __init__(self, folder: Path, identity: Any):
        self._folder = folder
        self._identity = json.dumps(identity, sort_keys=True).encode()
        own = {path for pattern in OWN for path in folder.glob(pattern)}
        strange = {path for path in own if path.is_symlink() or not path.is_file()}
        with explained(folder):
            if folder.is_symlink():
                strange = {folder}
            elif folder.exists():
                strange |= set(folder.iterdir()) - own
            if strange:
                raise OutputError(
                    f"{min(strange)}: is in the way, no measurement wrote it; move it or choose another --out"
                )
            if _bytes(folder / IDENTITY) != self._identity:
                self.clear()

    def __contains__(self, part: str) -> bool:
        return self._content(self._file(part)) is not None

    def load(self, part: str) -> tuple[Any, Arrays] | None:
        """The records (JSON) and arrays of a finished part, None if it is not finished."""
        content = self._content(self._file(part))
        if content is None:
            return None
        with np.load(io.BytesIO(content), allow_pickle=False) as found:
            arrays = dict(found)
        return json.loads(str(arrays.pop("records"))), arrays

    def store(self, part: str, records: Any, arrays: Arrays) -> None:
        """Write a finished part. Raises OutputError if that cannot be done."""
        stream = io.BytesIO()
        np.savez(stream, allow_pickle=False, records=np.array(json.dumps(records)), **dict(arrays))
        self._write(self._file(part), stream.getvalue())

    def take(self, other: Path) -> None:
        """Copy the finished parts of the ledger in `other`. Raises ParameterError if it is of another measurement,
        OutputError if they cannot be written."""
        marker = _bytes(other / IDENTITY)
        if marker is None:
            raise ParameterError(f"{other}: no ledger of a measurement; wanted a folder that opd measure --shard wrote")
        if marker != self._identity:
            raise ParameterError(
                f"{other}: of another measurement than {self._folder} (other weights, view or options); "
                "merge shards that were started with the same options over the same checkpoints"
            )
        for file in sorted(other.glob("*.npz")):
            content = self._content(file)
            if content is not None:
                self._write(self._folder / file.name, content)

    def clear(self) -> None:
        """Remove all parts, and the folder."""
        for pattern in OWN:
            for path in self._folder.glob(pattern):
                path.unlink()
        if self._folder.is_dir():
            self._folder.rmdir()

    def _content(self, file: Path) -> bytes | None:
        """What a file of a finished part holds; None where there is none, or it does not check."""
        stored = _bytes(file)
        if stored is None:
            return None
        content, check = stored[:-SIZE], stored[-SIZE:]
        return content if check == self._check(file, content) else None

    def _write(self, file: Path, content: bytes) -> None:
        staging = file.with_name(f"{file.name}.part")
        with explained(file):
            if not (self._folder / IDENTITY).exists():
                self._folder.mkdir(parents=True, exist_ok=True)
                (self._folder / IDENTITY).write_bytes(self._identity)
            staging.write_bytes(content + self._check(file, content))
            staging.replace(file)

    def _check(self, file: Path, content: bytes) -> bytes:
        return hashlib.sha256(b"\0".join((LAYOUT, self._identity, file.name.encode(), content))).digest()

    def _file(self, part: str) -> Path:
        return self._folder / f"{part}.npz"


def _bytes(file: Path) -> bytes | None:
    """What a file holds; None where there is none that can be read."""
    try:
        return file.read_bytes() if file.is_file() else None
    except OSError:
        return None
