"""What a measurement has done so far, on disk, so that a killed run goes on where it stopped.

Tensors are measured in fixed groups. A finished group is one file; its name is its number, and it appears whole or not
at all. The ledger of another measurement (other digests, view or options) is thrown away, never mixed in.
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

from opdlib.output import write_together

Arrays = Mapping[str, NDArray[Any]]


class Ledger:
    """Finished groups of one measurement, in `folder`. `identity` says which measurement it is: any JSON value."""

    def __init__(self, folder: Path, identity: Any):
        self._folder = folder
        text = json.dumps(identity, sort_keys=True)
        marker = folder / "identity.json"
        if not (marker.is_file() and marker.read_text(encoding="utf8") == text):
            shutil.rmtree(folder, ignore_errors=True)
            write_together(folder, {marker.name: text}, last=marker.name)

    def load(self, group: int) -> tuple[Any, Arrays] | None:
        """The records (JSON) and arrays of a finished group, None if it is not finished."""
        file = self._file(group)
        if not file.is_file():
            return None
        with np.load(file, allow_pickle=False) as content:
            arrays = dict(content)
        return json.loads(str(arrays.pop("records"))), arrays

    def store(self, group: int, records: Any, arrays: Arrays) -> None:
        """Write a finished group. Raises OutputError if that cannot be done."""
        stream = io.BytesIO()
        np.savez(stream, allow_pickle=False, records=np.array(json.dumps(records)), **dict(arrays))
        name = self._file(group).name
        write_together(self._folder, {name: stream.getvalue()}, last=name)

    def _file(self, group: int) -> Path:
        return self._folder / f"{group:05d}.npz"
