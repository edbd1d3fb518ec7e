"""What a measurement has done so far, on disk, so that a killed run goes on where it stopped.

A measurement has fixed parts: groups of tensors, or single ones. A finished part is one file, which appears whole or
not at all. The ledger of another measurement (other digests, view or options) is thrown away, never mixed in.
"""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from opdlib.errors import ParameterError
from opdlib.files import write_together

MARKER = "identity.json"
Arrays = Mapping[str, NDArray[Any]]


class Ledger:
    """Finished parts of one measurement, in `folder`. `identity` says which measurement it is: any JSON value."""

    def __init__(self, folder: Path, identity: Any):
        self._folder = folder
        text = json.dumps(identity, sort_keys=True)
        marker = folder / MARKER
        if not (marker.is_file() and marker.read_text(encoding="utf8") == text):
            shutil.rmtree(folder, ignore_errors=True)
            write_together(folder, {marker.name: text}, last=marker.name)

    def __contains__(self, part: str) -> bool:
        return self._file(part).is_file()

    def load(self, part: str) -> tuple[Any, Arrays] | None:
        """The records (JSON) and arrays of a finished part, None if it is not finished."""
        file = self._file(part)
        if not file.is_file():
            return None
        with np.load(file, allow_pickle=False) as content:
            arrays = dict(content)
        return json.loads(str(arrays.pop("records"))), arrays

    def store(self, part: str, records: Any, arrays: Arrays) -> None:
        """Write a finished part. Raises OutputError if that cannot be done."""
        stream = io.BytesIO()
        np.savez(stream, allow_pickle=False, records=np.array(json.dumps(records)), **dict(arrays))
        name = self._file(part).name
        write_together(self._folder, {name: stream.getvalue()}, last=name)

    def take(self, other: Path) -> None:
        """Copy the finished parts of the ledger in `other`. Raises ParameterError if it is of another measurement,
        OutputError if they cannot be written."""
        marker = other / MARKER
        if not marker.is_file():
            raise ParameterError(f"{other}: no ledger of a measurement; wanted a folder that opd measure --shard wrote")
        if marker.read_text(encoding="utf8") != (self._folder / MARKER).read_text(encoding="utf8"):
            raise ParameterError(
                f"{other}: of another measurement than {self._folder} (other weights, view or options); "
                "merge shards that were started with the same options over the same checkpoints"
            )
        for file in sorted(other.glob("*.npz")):
            write_together(self._folder, {file.name: file.read_bytes()}, last=file.name)

    def _file(self, part: str) -> Path:
        return self._folder / f"{part}.npz"
