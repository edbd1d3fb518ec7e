"""`opd trajectory` and `opd compare`: their numbers are those of the pairs, and a killed run ends in the same bytes."""

import json
import math
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import opdlib
from opdlib.checkpoints import open_checkpoint
from opdlib.figures import maps
from opdlib.measurement import several
from opdlib.measurement.path import measure_path
from opdlib.report.inputs import gathered
from opdlib.results.measure import ledger_of
from opdlib.results.several import compare, follow
from tests.cli.test_cli import complains
from tests.conftest import Command, Weights, write_checkpoint
from tests.measurement.test_trajectory import NAMES, weights

pytestmark = pytest.mark.usefixtures("without_a_screen")

STEPS = (5, 10, 100)


@pytest.fixture(scope="module")
def models() -> list[Weights]:
    """A bf16 source and three checkpoints in float32, each the one before plus noise."""
    now = {name: w.bfloat16().float() for name, w in weights(0).items()}
    found = [{name: w.bfloat16() for name, w in now.items()}]
    for step in STEPS:
        now = {name: w + 2e-3 * weights(step)[name] for name, w in now.items()}
        found.append(now)
    return found


@pytest.fixture(scope="module")
def training(models: list[Weights], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("training")
    write_checkpoint(folder / "source", models[0])
    for step, model in zip(STEPS, models[1:], strict=True):
        write_checkpoint(folder / "run" / f"checkpoint-{step}", model)
    return folder


def killed_at(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The part with this number is never stored."""
    known, stored = several.Ledger.store, []

    def store(self, part, records, arrays):  # type: ignore[no-untyped-def]
        stored.append(part)
        if len(stored) > number:
            raise KeyboardInterrupt
        known(self, part, records, arrays)

    monkeypatch.setattr(several.Ledger, "store", store)


@pytest.mark.slow
@pytest.mark.parametrize("view", ["bf16", "stored"])
def test_a_trajectory_has_the_numbers_of_each_pair(training: Path, tmp_path: Path, view: str) -> None:
    source = open_checkpoint(str(training / "source"))
    steps = [(s, str(s), open_checkpoint(str(training / "run" / f"checkpoint-{s}"))) for s in reversed(STEPS)]
    table = follow(tmp_path / "out", source, steps, view=view, workers=2)
    assert [*table["step"]] == [*STEPS]
    for _, row in table.iterrows():
        trained = training / "run" / f"checkpoint-{row['step']}"
        numbers = opdlib.measure(source, trained, view=view, metrics=("sparsity", "geometry")).numbers
        shared = [key for key in row.index if key in numbers]
        assert len(shared) == 9
        assert {k: row[k] for k in shared} == pytest.approx({k: numbers[k] for k in shared}, rel=1e-9)
    last = table.iloc[-1]
    assert [last[f"locking{of}.{side}"] for of in ("", "_norms") for side in ("left", "right")] == pytest.approx(
        [1] * 4
    )
    assert 0.3 < table["locking.right"][1] < 0.98
    assert table["locking_norms.right"][1] == pytest.approx(table["locking.right"][1], abs=0.12), (
        "the walk is isotropic"
    )


def test_the_cosine_of_strides_is_that_of_plain_numpy(training: Path, models: list[Weights]) -> None:
    flat = [np.concatenate([model[n].double().numpy().ravel() for n in model]) for model in models]
    strides = np.diff(flat, axis=0)
    expected = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in pairwise(strides)]
    steps = [open_checkpoint(str(training / "run" / f"checkpoint-{step}")) for step in STEPS]
    rows = measure_path(open_checkpoint(str(training / "source")), steps, view="stored", workers=1)
    assert math.isnan(rows[0]["step_cosine"])
    assert [row["step_cosine"] for row in rows[1:]] == pytest.approx(expected)
    assert measure_path(open_checkpoint(str(training / "source")), steps, view="stored", workers=3)[1:] == rows[1:]


def test_a_comparison_has_the_numbers_of_each_overlap(training: Path, models: list[Weights], tmp_path: Path) -> None:
    source = open_checkpoint(str(training / "source"))
    named = [(str(s), open_checkpoint(str(training / "run" / f"checkpoint-{s}"))) for s in STEPS]
    table = compare(tmp_path / "out", source, named, atol=1e-3, workers=2)
    assert [*zip(table["a"], table["b"], strict=True)] == [*combinations(map(str, STEPS), 2)]
    for (_, row), (a, b) in zip(table.iterrows(), combinations(range(3), 2), strict=True):
        known = opdlib.overlap(source, named[a][1], named[b][1], atol=1e-3)
        for key in ("o1", "o2", "jaccard", "density_a", "cosine", "latent_cosine", "equal_signs"):
            assert row[key] == pytest.approx(known[key], rel=1e-9), key
        for parts in ("global", "tensor", "magnitude"):
            assert row[f"expected.{parts}.jaccard"] == pytest.approx(known["expected"][parts]["jaccard"], rel=1e-9)
        deltas = [
            {n: (models[m + 1][n].bfloat16().double() - models[0][n].double()).numpy() for n in NAMES} for m in (a, b)
        ]
        alike = []
        for name in NAMES:
            one, other = (list(d[name]) if d[name].ndim == 3 else [d[name]] for d in deltas)
            for x, y in zip(one, other, strict=True):
                bases = [np.linalg.svd(m, full_matrices=False)[2][:16].T for m in (x, y)]
                alike.append(np.linalg.norm(bases[0].T @ bases[1]) ** 2 / 16)
        assert row["subspace.right"] == pytest.approx(np.median(alike), rel=1e-6)
        assert row["subspace_matrices"] == len(alike) == 4
    ax = maps.matrix(table)
    assert ax.get_title() == ""
    drawn = {text.get_text() for text in ax.texts}
    assert f"{100 * table['jaccard'][0]:.2f}%" in drawn


@pytest.mark.slow
@pytest.mark.parametrize("command", ["trajectory", "compare"])
def test_killed_and_resumed_to_equal_bytes(
    opd: Command, training: Path, tmp_path: Path, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = training / "run"
    words = (command, run, "--source", training / "source")
    whole = opd(*words, "--out", tmp_path / "whole", "--json")
    assert whole.returncode == 0, whole.stderr
    with monkeypatch.context() as here:
        killed_at(2, here)
        assert opd(*words, "--out", tmp_path / "killed").returncode == 130
    assert not (tmp_path / "killed" / "provenance.json").exists()
    again = opd(*words, "--out", tmp_path / "killed", "--json")
    assert again.stdout == whole.stdout
    files = {file.name for file in (tmp_path / "whole").iterdir()}
    assert len(files) == {"trajectory": 4, "compare": 3}[command]
    for file in files:
        assert (tmp_path / "killed" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes(), file
    rows = json.loads(whole.stdout)
    assert len(rows) == 3
    table = pd.read_csv(tmp_path / "whole" / f"{'trajectory' if command == 'trajectory' else 'comparison'}.csv")
    assert {*rows[0]} == {*table.columns}
    left = ledger_of(tmp_path / "killed")
    several.Ledger(left, "of one that was killed when it had written its table")
    assert opd(*words, "--out", tmp_path / "killed", "--json").stdout == whole.stdout
    assert not left.exists()


@pytest.mark.slow
def test_names_that_differ_are_renamed(
    opd: Command, training: Path, models: list[Weights], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever checkpoints are compared: with the other names come the numbers of the same ones."""
    for step, model in zip(STEPS, models[1:], strict=True):
        other = {name.replace("model.", "actor.net.", 1): w for name, w in model.items()}
        write_checkpoint(tmp_path / "run" / f"checkpoint-{step}", other)
    source, rename = ("--source", training / "source"), ("--rename", "actor.net.=model.")
    two = [("--a", run / "checkpoint-5", "--b", run / "checkpoint-10") for run in (training / "run", tmp_path / "run")]
    for command in ("trajectory", "compare"):
        plain = opd(command, training / "run", *source, "--out", tmp_path / f"plain-{command}", "--json")
        words = (command, tmp_path / "run", *source, "--out", tmp_path / f"renamed-{command}", "--json")
        complains(opd(*words), "actor.net.")
        assert json.loads(opd(*words, *rename).stdout) == json.loads(plain.stdout)
    overlaps = [json.loads(opd("overlap", *source, *two[0], "--json").stdout)]
    overlaps.append(json.loads(opd("overlap", *source, *two[1], *rename, "--json").stdout))
    assert overlaps[0] == overlaps[1]
    words = [str(training / "source"), str(tmp_path / "run")]
    monkeypatch.setenv("OPDLIB_CACHE", str(tmp_path / "cache"))
    found = gathered(words, rename={"actor.net.": "model."}, metrics=("sparsity",))
    assert [results.provenance["identity"]["rename"] for results in found] == [{"actor.net.": "model."}] * len(STEPS)
    assert [results.summary["tensors"] for results in found] == [len(models[0]) + 1] * len(STEPS), "two experts in one"


@pytest.mark.slow
def test_what_they_refuse(opd: Command, training: Path, tmp_path: Path) -> None:
    source, run = training / "source", training / "run"
    complains(opd("trajectory", "--source", source), "FOLDER", "--trained")
    complains(opd("trajectory", source, "--source", source), "checkpoint-10")
    complains(opd("trajectory", "--source", source, "--trained", run / "checkpoint-5"), "two or more")
    complains(opd("compare", "--source", source, run / "checkpoint-5"), "two checkpoints")
    words = "compare", "--source", source, "--out", "out", run / "checkpoint-5"
    assert opd(*words, run / "checkpoint-10").returncode == 0
    complains(opd(*words, run / "checkpoint-100"), "other results")
    broken = {name: w.clone() for name, w in weights(0).items()}
    broken[NAMES[1]][2, 3] = float("nan")
    write_checkpoint(tmp_path / "broken", broken)
    for first in ("trajectory", "compare"):
        flag = ["--trained"] if first == "trajectory" else []
        complains(opd(first, "--source", source, *flag, tmp_path / "broken", run / "checkpoint-5"), NAMES[1], "NaN")
