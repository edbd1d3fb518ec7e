"""Writing of patches and of what they give fails without a trace."""

import re
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from opdlib.checkpoints import open_checkpoint
from opdlib.checkpoints.patch import apply, make
from opdlib.checkpoints.patched import PatchedCheckpoint
from opdlib.errors import OutputError
from tests.conftest import ODD

pytestmark = pytest.mark.slow


@contextmanager
def full_disk() -> Iterator[None]:
    """A file of more than 3,000 bytes cannot be written."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(
    ("action", "out"), [("make", "y.safetensors"), ("apply", "y.safetensors"), ("apply", "folder")]
)
def test_a_full_disk_leaves_what_was_there(patched: tuple[Path, Path, Path], action: str, out: str) -> None:
    source, trained, file = patched
    target = file.with_name(out)
    if action == "make":
        shutil.copy(file, target)
    before = sorted(file.parent.rglob("*"))
    before_it, after_it = open_checkpoint(str(source)), open_checkpoint(str(trained))
    told = re.escape(f"{target}: cannot be written (File too large)")
    with full_disk(), pytest.raises(OutputError, match=f"^{told}"):
        make(before_it, after_it, target) if action == "make" else apply(before_it, file, target)
    assert sorted(file.parent.rglob("*")) == before
    if action == "make":
        assert target.read_bytes() == file.read_bytes(), "from an earlier run"


def test_what_is_in_the_way_is_kept(patched: tuple[Path, Path, Path]) -> None:
    source, trained, file = patched
    checkpoint = open_checkpoint(str(source))
    before = sorted(file.parent.rglob("*"))
    with pytest.raises(OutputError, match="in the way"):
        apply(checkpoint, file, trained)
    with pytest.raises(OutputError, match="cannot be written"):
        make(checkpoint, checkpoint, trained)
    with pytest.raises(OutputError, match="cannot be written"):
        make(checkpoint, checkpoint, file / "below-a-file")
    assert sorted(file.parent.rglob("*")) == before
    (file.parent / "empty").mkdir()
    assert apply(checkpoint, file, file.parent / "empty").is_dir()


def test_an_interrupted_patch_leaves_nothing(patched: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    source, _, file = patched
    read = PatchedCheckpoint.read

    def interrupted(self: PatchedCheckpoint, name: str) -> torch.Tensor:
        if name == ODD:
            raise KeyboardInterrupt
        return read(self, name)

    monkeypatch.setattr(PatchedCheckpoint, "read", interrupted)
    before = sorted(file.parent.rglob("*"))
    for out in ("y.safetensors", "folder"):
        with pytest.raises(KeyboardInterrupt):
            apply(open_checkpoint(str(source)), file, file.with_name(out))
    assert sorted(file.parent.rglob("*")) == before
