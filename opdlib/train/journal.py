"""Files of one JSON line a step that a killed run continues as if it had never died."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


class Journal:
    """Appends rows to a file. Every row has a `step`, and rows come in its order."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def cut(self, step: int) -> list[dict[str, Any]]:
        """Forget what was written after `step` (a torn last line, too) and return the rest."""
        text = self.path.read_text(encoding="utf8") if self.path.exists() else ""
        whole = [line for line in text.splitlines(keepends=True) if line.endswith("\n")]
        rows = [row for row in map(json.loads, whole) if row["step"] <= step]
        new = self.path.with_suffix(".new")
        new.write_text("".join(map(_line, rows)), encoding="utf8")
        new.replace(self.path)
        return rows

    def append(self, row: dict[str, Any]) -> None:
        """Write one row. Raises ValueError for NaN and infinity."""
        with self.path.open("a", encoding="utf8") as stream:
            stream.write(_line(row))


def _line(row: dict[str, Any]) -> str:
    return json.dumps(row, allow_nan=False) + "\n"
