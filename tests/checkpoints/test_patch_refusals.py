"""Patches and pairs that are refused, and damage that does not go unnoticed."""

import contextlib
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from opdlib.checkpoints import open_checkpoint
from opdlib.checkpoints.checkpoint import TensorInfo
from opdlib.checkpoints.patch import apply, make, verify, write_safetensors
from opdlib.checkpoints.patch_header import read_header
from opdlib.checkpoints.patched import PatchedCheckpoint
from opdlib.errors import PatchError
from tests.conftest import ODD, Weights, write_checkpoint


def test_a_wrong_source_is_refused_with_both_digests(patched: tuple[Path, Path, Path], tmp_path: Path) -> None:
    source, trained, file = patched
    wrong = open_checkpoint(str(trained))
    right = open_checkpoint(str(source))
    for action in (
        lambda: apply(wrong, file, tmp_path / "out"),
        lambda: verify(wrong, file, wrong),
        lambda: PatchedCheckpoint(file, wrong, "x"),
    ):
        with pytest.raises(PatchError, match=f"{right.digest()[:12]}.*{wrong.digest()[:12]}.*give the") as caught:
            action()
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()
    shutil.copy(trained / "model.safetensors", source / "model.safetensors")
    with pytest.raises(PatchError, match="made over a source"):
        open_checkpoint(f"patch:{file}")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w | {ODD: w[ODD].float()}, rf"{ODD} is stored as F32.*round the checkpoint"),
        (lambda w: w | {ODD: w[ODD][:3].clone()}, rf"{ODD} is \(24, 16\).*\(3, 16\).*equal shapes"),
        (lambda w: {n: t for n, t in w.items() if n != ODD}, rf"lacks 1 of the .*{ODD}"),
        (lambda w: w | {"lm_head.weight": w[ODD].clone()}, r"source: lacks 1 of the .*lm_head"),
    ],
)
def test_pairs_that_no_patch_can_hold_are_refused(
    patched: tuple[Path, Path, Path], tmp_path: Path, change: Callable[[Weights], Weights], message: str
) -> None:
    source, trained, file = patched
    before = file.read_bytes()
    other = write_checkpoint(tmp_path / "other", change(load_file(trained / "model.safetensors")))
    for action in (
        lambda: make(open_checkpoint(str(source)), open_checkpoint(str(other)), file),
        lambda: verify(open_checkpoint(str(source)), file, open_checkpoint(str(other))),
    ):
        with pytest.raises(PatchError, match=message) as caught:
            action()
        assert "\n" not in str(caught.value)
    assert file.read_bytes() == before


def test_verify_names_the_first_tensor_that_differs(patched: tuple[Path, Path, Path], tmp_path: Path) -> None:
    source, trained, file = patched
    weights = load_file(trained / "model.safetensors")
    weights[ODD].view(torch.int16).view(-1)[7] ^= 1
    other = open_checkpoint(str(write_checkpoint(tmp_path / "other", weights)))
    with pytest.raises(PatchError, match=rf"{ODD} differs from .* in 1 of 384 coordinates, first at flat index 7"):
        verify(open_checkpoint(str(source)), file, other)


def test_a_patch_is_no_source(patched: tuple[Path, Path, Path], tmp_path: Path) -> None:
    _, trained, file = patched
    with pytest.raises(PatchError, match="a patch cannot be a patch's source"):
        make(open_checkpoint(f"patch:{file}"), open_checkpoint(str(trained)), tmp_path / "y.safetensors")
    forge(file, tmp_path / "z.safetensors", source=f"patch:{tmp_path / 'z.safetensors'}")
    with pytest.raises(PatchError, match="its source is a patch too"):
        open_checkpoint(f"patch:{tmp_path / 'z.safetensors'}")


def forge(file: Path, out: Path, **fields: str) -> None:
    """Copy a patch with other fields in its header, sealed like a true one."""
    header = read_header(file)
    forged = type(header)(**(header.__dict__ | fields)).to_metadata()
    with safe_open(file, "np") as stored, out.open("wb") as stream:
        contents = {name: stored.get_tensor(name).tobytes() for name in stored.keys()}  # noqa: SIM118
        infos = {name: TensorInfo((len(content),), "U8") for name, content in contents.items()}
        write_safetensors(stream, forged, infos, contents.values())


def test_what_is_no_patch_is_refused(patched: tuple[Path, Path, Path], tmp_path: Path) -> None:
    _, trained, file = patched
    (tmp_path / "text.safetensors").write_text("not a safetensors file at all")
    (tmp_path / "huge.safetensors").write_bytes((1 << 60).to_bytes(8, "little") + b"{}")
    (tmp_path / "empty.safetensors").write_bytes(b"")
    for path, message in (
        (trained / "model.safetensors", "a safetensors file, but no patch"),
        (trained, "no such file"),
        (tmp_path / "absent.safetensors", "no such file"),
        (tmp_path / "text.safetensors", "not a whole safetensors file"),
        (tmp_path / "huge.safetensors", "not a whole safetensors file"),
        (tmp_path / "empty.safetensors", "not a whole safetensors file"),
    ):
        with pytest.raises(PatchError, match=message) as caught:
            open_checkpoint(f"patch:{path}")
        assert "\n" not in str(caught.value)
    metadata = read_header(file).to_metadata()
    save_file({"x": torch.zeros(1)}, tmp_path / "next.safetensors", metadata | {"version": "2"})
    with pytest.raises(PatchError, match="a patch of version 2, this opdlib reads version 1"):
        open_checkpoint(f"patch:{tmp_path / 'next.safetensors'}")
    save_file({"x": torch.zeros(1)}, tmp_path / "edited.safetensors", metadata | {"source": "elsewhere"})
    with pytest.raises(PatchError, match="its header is damaged"):
        open_checkpoint(f"patch:{tmp_path / 'edited.safetensors'}")
    save_file({"x": torch.zeros(1)}, tmp_path / "stray.safetensors", metadata)
    with pytest.raises(PatchError, match=r"changes x, which .*source lacks"):
        open_checkpoint(f"patch:{tmp_path / 'stray.safetensors'}")


def test_a_truncated_patch_is_refused(patched: tuple[Path, Path, Path]) -> None:
    _, _, file = patched
    whole = file.read_bytes()
    for size in (7, 8, 200, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:size])
        with pytest.raises(PatchError, match="not a whole safetensors file"):
            open_checkpoint(f"patch:{file}")


@pytest.mark.slow
def test_no_flipped_bit_goes_unnoticed(patched: tuple[Path, Path, Path], tmp_path: Path) -> None:
    source, trained, file = patched
    whole = file.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    good, bad = open_checkpoint(str(source)), tmp_path / "bad.safetensors"
    generator = np.random.default_rng(0)
    positions = [*range(8), *generator.integers(8, header, 60), *generator.integers(header, len(whole), 60)]
    passed = 0
    for position in map(int, positions):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << int(generator.integers(8))
        bad.write_bytes(damaged)
        with contextlib.suppress(PatchError):
            # Where it goes through, the bit meant nothing: blanks after the header, or the filling of a last byte.
            apply(good, bad, tmp_path / "out.safetensors")
            assert (tmp_path / "out.safetensors").read_bytes() == (trained / "model.safetensors").read_bytes()
            (tmp_path / "out.safetensors").unlink()
            passed += 1
    assert passed < 0.1 * len(positions)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bad.safetensors", "source", "trained", "x.safetensors"]
