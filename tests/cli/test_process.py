"""The process of the command: what an interrupt means, and what is never written over."""

import io
import json
import os
import shutil
import subprocess
import sys
from contextlib import redirect_stderr
from pathlib import Path

import pytest

from opdlib.cli.process import interrupted
from tests.cli.test_cli import complains
from tests.conftest import Command, moved, pico_weights, write_checkpoint


def test_ended_by_the_system_with_stdout_closed_and_in_ascii() -> None:
    ended = (
        "import opdlib.registry.pairs as p, os, sys, signal; from opdlib.cli.process import run\n"
        "p.registry = lambda: os.kill(os.getpid(), signal.SIGTERM)\nsys.argv = ['opd', 'pairs']\nsys.exit(run())"
    )
    done = subprocess.run(
        ["sh", "-c", 'exec "$0" -c "$1" >&-', sys.executable, ended],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
    )
    assert (done.returncode, done.stderr) == (143, "opd: interrupted; the same command starts again\n")


def test_what_an_interrupt_means_is_true_of_the_command(opd: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("opdlib.registry.pairs.registry", stop)
    done = opd("--debug", "pairs")
    assert (done.returncode, done.stderr) == (130, "opd: interrupted; the same command starts again\n")
    monkeypatch.setattr("opdlib.cli.orders.open_checkpoint", stop)
    again, on = "the same command starts again", "the same command goes on from here"
    for words, said in (
        (("measure", "--source", "a", "--trained", "b"), on),
        (("overlap", "--source", "a", "--a", "b", "--b", "c"), again),
        (("train", "x.yaml"), "with --resume"),
        (("study", "pico"), on),
        (("study", "pico", "--repeat", "pico-opd-s0"), again),
    ):
        with redirect_stderr(io.StringIO()) as told:
            assert interrupted(words, KeyboardInterrupt()) == 130
        assert said in told.getvalue()
    assert on in opd("measure", "--source", "a", "--trained", "b").stderr


@pytest.mark.slow
def test_nothing_of_the_user_is_written_over(opd: Command, pico_pair: tuple[Path, Path], tmp_path: Path) -> None:
    source, trained = pico_pair
    weights = trained / "model.safetensors"
    pair = ("--source", source, "--trained", trained, "--only", "sparsity")
    for name in ("../x", "a/b", ".hidden", "", ".."):
        complains(opd("measure", *pair, f"--name={name}" if name else "--name=/"), "results folder")
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "summary.json").write_text("mine")
    complains(opd("measure", *pair, "--out", tmp_path / "own"), "in the way")
    assert opd("measure", *pair, "--out", tmp_path / "out").returncode == 0
    other = write_checkpoint(tmp_path / "other" / "bf16", moved(pico_weights(), scale=0.1))
    others = ("--source", source, "--trained", other, "--only", "sparsity")
    complains(opd("measure", *others, "--out", tmp_path / "out"), "another measurement", "trained")
    complains(opd("patch", "make", source, trained, weights), "in the way")
    assert opd("patch", "make", source, trained, tmp_path / "x.safetensors").returncode == 0
    complains(opd("patch", "make", source, f"patch:{tmp_path / 'x.safetensors'}", tmp_path / "x.safetensors"), "way")
    complains(opd("patch", "apply", source, tmp_path / "x.safetensors", weights), "in the way")
    complains(opd("evaluate", source, "--answers", weights), "holds no answers")
    shutil.copytree(trained, tmp_path / "mine" / "bf16")
    for side in (other, tmp_path / "mine" / "bf16"):
        assert opd("measure", "--source", source, "--trained", side, "--only", "sparsity").returncode == 0
    assert len(list((tmp_path / "runs" / "measured").glob("bf16-*"))) == 2
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["pair"] == "trained"
