"""What readers must refuse, and how a refusal is told."""

import os
from pathlib import Path

import pytest

from opdlib.checkpoints import open_checkpoint
from opdlib.errors import CheckpointError


class Bomb:
    """Makes the folder `target` when it is unpickled."""

    def __init__(self, target: Path):
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (os.mkdir, (str(self.target),))


def refused(path: Path, match: str) -> None:
    """The checkpoint at `path` is refused in one line, when it is opened or when it is asked for its ties."""
    with pytest.raises(CheckpointError, match=match) as caught:
        _ = open_checkpoint(str(path)).tied
    assert "\n" not in str(caught.value)
