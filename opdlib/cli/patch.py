"""What `opd patch` does: make, apply, verify."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from opdlib.checkpoints import open_checkpoint


def _bar(names: Iterable[str]) -> Iterable[str]:
    """A progress bar over tensors, on a terminal only."""
    from tqdm import tqdm

    return tqdm(names, unit="tensor", disable=None)


def make(source: str, trained: str, file: Path, /) -> None:
    """Write TRAINED as a patch over SOURCE.

    example: opd patch make org/base runs/x/bf16 x.safetensors
    """
    from opdlib.checkpoints.patch import make

    print(make(open_checkpoint(source), open_checkpoint(trained), file, _bar))


def apply(source: str, file: Path, out: Path, /) -> None:
    """Rebuild the trained checkpoint.

    example: opd patch apply org/base x.safetensors rebuilt/

    Args:
        out: a folder, or a file ending in .safetensors
    """
    from opdlib.checkpoints.patch import apply

    print(f"rebuilt: {apply(open_checkpoint(source), file, out, _bar)}")


def verify(source: str, file: Path, trained: str, /) -> None:
    """Check that SOURCE and FILE give TRAINED bit for bit.

    example: opd patch verify org/base x.safetensors runs/x/bf16
    """
    from opdlib.checkpoints.patch import verify

    verify(open_checkpoint(source), file, open_checkpoint(trained), _bar)
    print(f"{file} over {source} gives {trained} bit for bit")
