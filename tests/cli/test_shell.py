"""`opd` as a program in a shell: its process, its exit codes, its version and its completion."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import opdlib
from tests.cli.test_cli import complains
from tests.conftest import Command


@pytest.mark.slow
def test_the_process(opd_process: Command, pico_pair: tuple[Path, Path], tmp_path: Path) -> None:
    done = opd_process("measure", "--source", pico_pair[0], "--trained", pico_pair[1], "--out", tmp_path / "out")
    assert (done.returncode, done.stderr) == (0, ""), "no progress bar where nobody looks"
    summary = opd_process("summary", tmp_path / "out", "--json").stdout
    assert json.loads(summary) == json.loads((tmp_path / "out" / "summary.json").read_text())
    complains(opd_process("summary", "nowhere/at/all"), "no pair")


@pytest.mark.slow
def test_debug_shows_the_traceback(opd_process: Command) -> None:
    done = opd_process("summary", "no-such-pair", "--debug")
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_version(opd: Command) -> None:
    assert opd("--version").stdout == f"opdlib {opdlib.__version__}\n"


def test_completion_is_installed_for_the_shell(opd: Command, tmp_path: Path) -> None:
    done = opd("--install-completion", "--shell", "bash", HOME=str(tmp_path))
    assert done.returncode == 0, done.stderr
    scripts = [p for p in tmp_path.rglob("opd") if p.is_file()]
    assert len(scripts) == 1
    assert "--overlaps" in scripts[0].read_text()


@pytest.mark.slow
def test_ctrl_c_and_a_closed_pipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a shell expects: 130, and 141 without a word."""
    closed = subprocess.run(
        [
            sys.executable,
            "-c",
            "import os, sys; from opdlib.cli.main import main; r, w = os.pipe(); os.close(r); "
            "os.dup2(w, 1); sys.exit(main(['pairs']))",
        ],
        capture_output=True,
        text=True,
    )
    assert (closed.returncode, closed.stderr) == (141, "")
    stopped = (
        "import opdlib.registry.pairs as p, sys; from opdlib.cli.main import main\n"
        "def stop(): raise KeyboardInterrupt\np.registry = stop\nsys.exit(main(['pairs']))"
    )
    done = subprocess.run([sys.executable, "-c", stopped], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "opd: interrupted; the same command starts again\n")
