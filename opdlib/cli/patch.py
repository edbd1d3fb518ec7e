"""What `opd` makes of two checkpoints: a patch, a checkpoint with a part of the update, one with noise."""

from collections.abc import Iterable
from dataclasses import asdict
from json import dumps
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from opdlib.checkpoints import open_checkpoint
from opdlib.cli.shares import Whole


def _bar(names: Iterable[Any]) -> Iterable[Any]:
    """A progress bar over tensors, on a terminal only."""
    from tqdm import tqdm

    return tqdm(names, unit="tensor", disable=None)


def make(source: str, trained: str, file: Path, /, *, json: bool = False) -> None:
    """Write TRAINED as a patch over SOURCE.

    example: opd patch make org/base runs/x/bf16 x.safetensors

    Args:
        json: what was written as JSON
    """
    from opdlib.checkpoints.patch import make

    said = make(open_checkpoint(source), open_checkpoint(trained), file, _bar)
    print(dumps(asdict(said), indent=1) if json else said)


def apply(source: str, file: Path, out: Path, /, *, json: bool = False) -> None:
    """Rebuild the trained checkpoint.

    example: opd patch apply org/base x.safetensors rebuilt/

    Args:
        out: a folder, or a file ending in .safetensors
        json: what was rebuilt as JSON
    """
    from opdlib.checkpoints.patch import apply

    rebuilt = apply(open_checkpoint(source), file, out, _bar)
    print(dumps({"rebuilt": str(rebuilt)}, indent=1) if json else f"rebuilt: {rebuilt}")


def verify(source: str, file: Path, trained: str, /, *, json: bool = False) -> None:
    """Check that SOURCE and FILE give TRAINED bit for bit.

    example: opd patch verify org/base x.safetensors runs/x/bf16

    Args:
        json: what was checked as JSON
    """
    from opdlib.checkpoints.patch import verify

    verify(open_checkpoint(source), file, open_checkpoint(trained), _bar)
    facts = {"file": str(file), "source": source, "trained": trained, "agrees": True}
    print(dumps(facts, indent=1) if json else f"{file} over {source} gives {trained} bit for bit")


def edit(
    source: str,
    trained: str,
    out: Path,
    /,
    *,
    keep: Annotated[tuple[str, ...], Parameter(show_default=False)] = (),
    complement: bool = False,
    restore_spectrum: bool = False,
    seed: Whole = 0,
    json: bool = False,
) -> None:
    """Write a checkpoint with a part of an update.

    example: opd edit org/base runs/x/fp32 edited --keep singular:16 --keep block:mlp

    Rules: singular:K, visible, largest:P, random:P, mask:principal:P, mask:low:P, block:NAME, layers:A-B, scale:C, none

    Args:
        out: a new folder
        keep: the part that is kept, by a rule; of several what all of them keep (default: everything)
        complement: keep the rest instead
        restore_spectrum: give every matrix the source's singular values
        seed: of what is drawn (default: 0)
        json: what was kept as JSON
    """
    from opdlib.measurement.edit import edit

    sides = open_checkpoint(source), open_checkpoint(trained)
    options: dict[str, Any] = {"complement": complement, "restore_spectrum": restore_spectrum, "seed": seed}
    kept = edit(*sides, out, keep, **options, progress=_bar)
    if json:
        print(dumps({"folder": str(out)} | asdict(kept), indent=1))
        return
    print(
        f"{out}: {kept.energy:.2%} of the update's energy, {kept.changed:.2%} of all coordinates changed, "
        f"relative norm {kept.rel_norm:.4g}"
    )


def noise(source: str, like: str, out: Path, /, *, seed: Whole = 0, json: bool = False) -> None:
    """Write SOURCE plus Gaussian noise as large as what training changed.

    example: opd noise org/base runs/x/bf16 runs/noise

    In each tensor the noise has the norm of what is changed in LIKE.

    Args:
        like: the checkpoint whose change gives the norms
        out: a new folder
        seed: of the draws
        json: what was written as JSON
    """
    from opdlib.measurement.noise import noise

    norm = noise(open_checkpoint(source), open_checkpoint(like), out, seed, _bar)
    facts = {"folder": str(out), "rel_norm": norm}
    print(dumps(facts, indent=1) if json else f"{out}: relative norm {norm:.4%} in bf16")
