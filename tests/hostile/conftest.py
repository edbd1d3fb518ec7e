"""One folder of good files for all hostile ones of a module, and the command in this process."""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from opdlib.cli.main import main
from tests.hostile import made

Run = Callable[..., tuple[int, str, str]]
"""Takes the words of a command line and gives its exit status, and what it wrote on both streams."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made.base(tmp_path_factory.mktemp("hostile"))


@pytest.fixture
def run(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[Run]:
    """The command, in the folder of good files, with a `y` for whoever asks a question on standard input."""
    monkeypatch.chdir(place)
    monkeypatch.setenv("OPDLIB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    reading, writing = os.pipe()
    os.write(writing, b"y\n" * 100)
    os.close(writing)
    with os.fdopen(reading) as answers:
        monkeypatch.setattr(sys, "stdin", answers)

        def command(*words: object) -> tuple[int, str, str]:
            capfd.readouterr()
            code = main(list(map(str, words)))
            return code, *capfd.readouterr()

        yield command
        assert answers.readline() == "y\n", "standard input was read"
