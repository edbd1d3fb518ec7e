"""Runs made again: what is said of them, and two steps whose bits are the same on every x86 CPU."""

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from opdlib.errors import CheckpointError, RegistryError
from opdlib.files import data_root
from opdlib.registry.study import Arm, Scale
from opdlib.results.study import StudyResults
from opdlib.study import repeat
from opdlib.train import arithmetic, run

SEEDS = {"scale": "pico", "recipes": "pico", "seeds": 5}
SCALE = Scale(name="pico", source="recipe:pico-source", arms={name: Arm(name=name, **SEEDS) for name in ("opd", "sft")})
KEYS = ["pico-opd-s0", "pico-opd-s1"]
TWO_STEPS = "65f791ae439649b88815d0a154f04bc8455ac3f592d10668f3b0015a83789a60"
"""Digest of the float32 weights of pico-source after two steps, on every x86 CPU."""


@pytest.mark.slow
def test_two_steps_give_the_committed_weights() -> None:
    assert repeat.emulated(data_root() / "recipes" / "pico-source.yaml") == TWO_STEPS


def test_what_a_failed_process_said_last_is_shown(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"^two steps on this CPU: ended with status 1: .*none.yaml"):
        repeat.emulated(tmp_path / "none.yaml")


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What runs end at, form -> digest, instead of training; two steps give on each CPU what stands under its name."""
    rows = [{"arm": "opd", "seed": s, "digest.fp32": f"fp32 of s{s}", "digest.bf16": "rounded"} for s in (0, 1)]
    digests = {"here": "a", "Haswell": "a", "EPYC": "a", "s0": "fp32 of s0", "s1": "fp32 of s1"}

    def train(recipe: Path, folder: Path, seed: int, **_: Any) -> Path:
        folder.mkdir()
        ended = {"fp32": digests[f"s{seed}"], "bf16": "rounded"}
        (folder / "complete.json").write_text(json.dumps({"digests": ended}))
        return folder

    monkeypatch.setattr(repeat, "open_study", lambda scale: StudyResults(scale, Path()))
    monkeypatch.setattr(StudyResults, "runs", pd.DataFrame(rows))
    monkeypatch.setattr(run, "train", train)
    monkeypatch.setattr(repeat, "emulated", lambda recipe, cpu="here": digests[cpu])
    monkeypatch.setattr(arithmetic, "choose", lambda kernels: None)
    monkeypatch.setattr(shutil, "which", lambda program: program)
    return digests


@pytest.mark.usefixtures("made")
def test_equal_weights_are_said_of_each_run_and_cpu() -> None:
    assert [*repeat.repeat(SCALE, KEYS)] == [
        "pico-opd-s0: the committed weights",
        "pico-opd-s1: the committed weights",
        "two steps on Haswell: the same weights as here",
        "two steps on EPYC: the same weights as here",
    ]


def test_other_weights_are_an_error_once_all_is_done(made: dict[str, str]) -> None:
    made |= {"s0": "b", "EPYC": "c"}
    lines = []
    with pytest.raises(CheckpointError, match=r"^pico-opd-s0, two steps on EPYC: other weights came out"):
        lines += repeat.repeat(SCALE, KEYS)
    said = iter(repeat.repeat(SCALE, KEYS))
    assert [next(said) for _ in range(4)][::3] == [
        "pico-opd-s0: OTHER weights than the committed ones",
        "two steps on EPYC: OTHER weights than here",
    ]


@pytest.mark.usefixtures("made")
def test_without_qemu_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda program: None)
    assert [*repeat.repeat(SCALE, KEYS[:1])][1:] == [
        f"two steps on {cpu}: not tried, qemu-x86_64 is not installed (Debian: apt install qemu-user)"
        for cpu in repeat.EMULATED["any-x86"]
    ]


def test_what_cannot_be_repeated_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("pico-opd", "smollm2-opd-s0"):
        with pytest.raises(RegistryError, match=rf"scale pico: no run '{key}'; see them with: opd study pico --list"):
            next(repeat.repeat(SCALE, [key]))
    monkeypatch.setattr(repeat, "open_study", lambda scale: StudyResults(scale, Path()))
    with pytest.raises(RegistryError, match=r"pico-sft-s4: not run yet, .* run: opd study pico --arms sft --seeds 4"):
        next(repeat.repeat(SCALE, ["pico-sft-s4"]))
