"""Every format that a checkpoint on this machine can have, one row each. To add one, write its module and its row."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from opdlib.checkpoints import adapter, distributed, gguf, local, pickled, ranks, zero
from opdlib.checkpoints.checkpoint import Checkpoint
from opdlib.checkpoints.quantized import dequantized
from opdlib.errors import CheckpointError

_log = logging.getLogger(__name__)  # without a handler, on stderr


@dataclass(frozen=True)
class Format:
    """One way to write a checkpoint."""

    looks: str
    """What it looks like on disk, for people."""
    holds: Callable[[Path], bool]
    """Whether there is one at a path that exists, by names of files alone."""
    open: Callable[[Path, str], Checkpoint]
    """Opens path and spec; raises CheckpointError in one line."""


FORMATS = (
    Format("adapter_config.json (PEFT LoRA over its base)", adapter.holds, adapter.open_adapter),
    Format("*.safetensors", local.holds, local.open_local),
    Format(".metadata and *.distcp (torch.distributed.checkpoint)", distributed.holds, distributed.open_distributed),
    Format("model_world_size_N_rank_r.pt (verl)", ranks.holds, ranks.open_ranks),
    Format("latest and global_stepN (DeepSpeed ZeRO)", zero.holds, zero.open_zero),
    Format("pytorch_model.bin, *.pt, *.pth", pickled.holds, pickled.open_pickled),
    Format("*.gguf", gguf.holds, gguf.open_gguf),
)
"""In the order in which they are looked for: what stands first wins over what lies in the same folder."""


def open_path(path: Path, spec: str, revision: str | None = None) -> Checkpoint:
    """Open what lies at `path`, in the first of `FORMATS` that is there. Raises CheckpointError if there is none."""
    wanted = f"wanted one of: {'; '.join(f.looks for f in FORMATS)}"
    if not path.exists():
        raise CheckpointError(f"{path}: no such file or folder; {wanted}")
    if not (path.is_dir() or path.is_file()):
        raise CheckpointError(f"{path}: is no regular file; {wanted}")
    if present := [known for known in FORMATS if known.holds(path)]:
        checkpoint = present[0].open(path, spec)
        checkpoint.revision = revision
        checkpoint.beside = tuple(other.looks for other in present[1:])
        if checkpoint.beside:
            _log.warning(
                "%s: %s is read, not what lies beside it: %s", path, present[0].looks, "; ".join(checkpoint.beside)
            )
        return dequantized(checkpoint)
    if path.is_file():
        raise CheckpointError(f"{path}: a {path.suffix or 'nameless'} file; {wanted}")
    if series := sorted(path.glob("checkpoint-*")):
        raise CheckpointError(f"{path}: no weights, but {len(series)} checkpoints; name one, such as {series[-1]}")
    inside = (place for place in sorted(path.iterdir()) if place.is_dir() and any(f.holds(place) for f in FORMATS))
    if below := next(inside, None):
        raise CheckpointError(f"{path}: no weights in this folder itself; give one that is in it, such as {below}")
    found = "no weights in this folder" if any(path.iterdir()) else "an empty folder"
    raise CheckpointError(f"{path}: {found}; {wanted}")
