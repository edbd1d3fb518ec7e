"""Recipes as they are shipped, through the real command; a small study from nothing to tables."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from opdlib.cli.main import main
from opdlib.errors import RegistryError
from opdlib.files import data_root
from opdlib.registry.study import Arm, Scale, find_scale
from opdlib.results.layout import read_summary
from opdlib.study import runner as laboratory
from opdlib.study.runner import keep, missing, run_arm
from opdlib.tables import study as tables

SHORT = {"steps": 2, "save_every": 2, "batch_size": 16, "evaluation_size": 4}
ORDER = sorted(find_scale("pico").arms.values(), key=lambda arm: arm.name.startswith("mask-"))


@pytest.fixture(scope="module")
def recipes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped pico recipes, what others stand on cut to two steps."""
    folder = tmp_path_factory.mktemp("recipes")
    for file in (data_root() / "recipes").glob("pico-*.yaml"):
        content = yaml.safe_load(file.read_text(encoding="utf8")) | {"evaluation_size": 4}
        if file.stem in ("pico-source", "pico-teacher", "pico-teacher-other", "pico-opd", "pico-rlvr"):
            content |= SHORT
        if file.stem == "pico-rlvr":  # untrained models earn no reward: only decay moves this one
            content |= {"weight_decay": 0.9, "learning_rate": 0.1}
        if "mask" in content:  # two steps go no farther
            content["mask"]["threshold"] = 1e-6
        (folder / file.name).write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf8")
    return folder


@pytest.mark.parametrize("arm", ORDER, ids=lambda arm: arm.name)
def test_every_shipped_recipe_trains(recipes: Path, arm: Arm, capsys: pytest.CaptureFixture[str]) -> None:
    out = recipes / "runs" / f"pico-{arm.name}-s0"
    command = ["train", str(recipes / arm.recipe.name), "--max-steps", "2", "--out", str(out), "--resume"]
    assert main(command) == 0, capsys.readouterr().err
    assert json.loads((out / "complete.json").read_text())["steps"] == 2
    summary, masters = read_summary(out / "results"), read_summary(out / "results" / "stored")
    assert summary["parameters"] == masters["parameters"] > 700_000
    if arm.name == "adam-zero":
        assert masters["rel_norm"] == 0
        assert masters["stable_rank"] is None
    else:
        assert masters["rel_norm"] > 0
        assert masters["measured_2d"] > 0


@pytest.fixture
def small(recipes: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Scale:
    """A study of two arms and two seeds over those recipes."""

    class Shipped(Arm):
        @property
        def recipe(self) -> Path:
            return recipes / f"pico-{self.name}.yaml"

    monkeypatch.chdir(tmp_path)
    arms = {name: Shipped("pico", name, 2, partner) for name, partner in (("opd", None), ("sgd-1e-1", "opd"))}
    return Scale("pico", "recipe:pico-source", arms)


def test_a_study_from_nothing_to_tables(small: Scale, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    results = tmp_path / "results"
    assert list(missing(small, results)) == [("opd", 0), ("sgd-1e-1", 0), ("opd", 1), ("sgd-1e-1", 1)]
    assert list(missing(small, results, arms=["opd"], seeds=[1])) == [("opd", 1)]
    with pytest.raises(RegistryError, match=r"no arm 'sgd'; choose among: opd, sgd-1e-1"):
        list(missing(small, results, arms=["sgd"]))
    for name, seed in missing(small, results, arms=["opd"]):
        folder = run_arm(small, name, seed, results)
        assert folder == results / f"pico-opd-s{seed}"
    assert list(missing(small, results)) == [("sgd-1e-1", 0), ("sgd-1e-1", 1)]
    kept = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert kept == {
        *("summary.json", "provenance.json", "stored/summary.json", "stored/provenance.json"),
        *(f"training/{name}" for name in (*laboratory.TRAINING, "curve.csv")),
    }
    found = tables.runs("pico", results=results)
    assert list(found["seed"]) == [0, 1]
    weights = tmp_path / "runs" / "train" / "pico-opd-s1"
    assert found["rel_norm"].iloc[1] == read_summary(weights / "results")["rel_norm"]
    curve = tables.curves("pico", results=results)
    assert list(curve["step"]) == [1, 2, 1, 2]
    assert curve["momentum_cosine"].notna().tolist() == [True, False, True, False]


def test_kept_steps_are_measured_too(recipes: Path, tmp_path: Path) -> None:
    recipe = recipes / "pico-offline.yaml"
    content = yaml.safe_load(recipe.read_text()) | {"name": "pico-kept", "steps": 3, "keep_every": 1}
    (recipes / "pico-kept.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    out = recipes / "runs" / "pico-kept-s0"
    assert main(["train", str(recipes / "pico-kept.yaml"), "--out", str(out)]) == 0
    keep(out, tmp_path / "kept")
    norms = [read_summary(tmp_path / "kept" / place)["rel_norm"] for place in ("steps/1", "steps/2", ".")]
    assert norms == sorted(norms)
    assert norms[0] > 0
