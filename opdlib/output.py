"""Writing results so that they are whole or absent, whatever happens meanwhile."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from opdlib.errors import OutputError


def write_together(folder: Path, files: Mapping[str, str | bytes], last: str) -> None:
    """Write `files` (name -> content) into `folder`, the one named `last` at the end.

    Everything is written to a hidden folder first and then renamed, so a full disk or a kill leaves the earlier files
    untouched and no new `last`. Raises OutputError, with nothing of its own left behind.
    """
    staging = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=".writing-", dir=folder))
        for name, content in files.items():
            (staging / name).write_bytes(content.encode() if isinstance(content, str) else content)
        (folder / last).unlink(missing_ok=True)
        for name in [*(n for n in files if n != last), last]:
            (staging / name).replace(folder / name)
    except OSError as error:
        raise OutputError(
            f"{folder}: results cannot be written ({error.strerror or error}); free some space or choose another --out"
        ) from error
    finally:
        if staging is not None:
            shutil.rmtree(staging, ignore_errors=True)
