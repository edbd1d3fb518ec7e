"""Recipes as they are shipped, through the real command; a small study from nothing to tables."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml

from opdlib.checkpoints import open_checkpoint
from opdlib.cli.main import main
from opdlib.errors import RegistryError
from opdlib.files import data_root
from opdlib.registry import study as registry
from opdlib.registry.recipes import load_recipe
from opdlib.registry.study import Arm, Scale, find_scale
from opdlib.results.layout import read_summary
from opdlib.results.missing import missing
from opdlib.results.study import StudyResults
from opdlib.study.runner import measure_run, planned_run, run_arm
from opdlib.train.run import source_of, train

SHORT = {"steps": 2, "save_every": 2, "batch_size": 16, "evaluation_size": 4}


def kind(arm: Arm) -> str:
    """A recipe without its rate and length, which no two steps tell apart."""
    return load_recipe(arm.recipe).model_dump_json(exclude={"name", "learning_rate", "steps"})


KINDS = {kind(arm): arm for arm in reversed(find_scale("pico").arms.values())}
ORDER = sorted(KINDS.values(), key=lambda arm: arm.name.startswith("mask-"))


@pytest.fixture(scope="module")
def recipes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped pico recipes, those that others stand on cut to two steps; torch is loaded and has its kernels."""
    folder = tmp_path_factory.mktemp("data") / "recipes" / "short"
    folder.mkdir(parents=True)
    for file in (data_root() / "recipes").glob("pico-*.yaml"):
        content = yaml.safe_load(file.read_text(encoding="utf8")) | {"evaluation_size": 4, "kernels": "native"}
        if file.stem in ("pico-source", "pico-teacher", "pico-teacher-other", "pico-opd", "pico-rlvr"):
            content |= SHORT
        if file.stem == "pico-rlvr":  # untrained models earn no reward: only decay moves this one
            content |= {"weight_decay": 0.9, "learning_rate": 0.1}
        if "mask" in content:  # two steps go no farther
            content["mask"]["threshold"] = 1e-6
        (folder / file.name).write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf8")
    return folder


@pytest.mark.parametrize("arm", ORDER, ids=lambda arm: arm.name)
@pytest.mark.slow
def test_every_kind_of_shipped_recipe_trains(recipes: Path, arm: Arm) -> None:
    """And moves its weights; those of a rate of zero alone stay."""
    out = recipes / "runs" / f"pico-{arm.name}-s0"
    train(recipes / arm.recipe.name, out, max_steps=2, resume=True)
    assert json.loads((out / "complete.json").read_text())["steps"] == 2
    sides = source_of(planned_run(recipes / arm.recipe.name, out)), open_checkpoint(str(out / "fp32"))
    pairs = [[side.read(name) for side in sides] for name in sides[0].tensors]
    assert sum(before.numel() for before, _ in pairs) > 700_000
    assert all(map(torch.equal, *zip(*pairs, strict=True))) == (arm.name == "adam-zero")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["opd", "adam-zero"])
def test_what_was_trained_is_measured(recipes: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    out = recipes / "runs" / f"pico-{name}-s0"
    command = ["train", str(recipes / f"pico-{name}.yaml"), "--max-steps", "2", "--out", str(out), "--resume"]
    assert main(command) == 0, capsys.readouterr().err
    summary, masters = read_summary(out / "results"), read_summary(out / "results" / "stored")
    assert summary["parameters"] == masters["parameters"] > 700_000
    moved = name != "adam-zero"
    assert (masters["rel_norm"] > 0, masters["stable_rank"] is not None, masters["measured_2d"] > 0) == (moved,) * 3


@pytest.fixture
def small(recipes: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Scale:
    """A study of two arms and two seeds over those recipes."""

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "data_root", lambda: recipes.parents[1])
    partners = {"opd": None, "sgd-1e-1": "opd"}
    place = {"scale": "pico", "recipes": f"{recipes.name}/pico", "seeds": 2}
    arms = {name: Arm(name=name, partner=partner, **place) for name, partner in partners.items()}
    return Scale(name="pico", source="recipe:pico-source", arms=arms)


@pytest.mark.slow
def test_a_run_is_measured_against_what_it_was_trained_from(recipes: Path, tmp_path: Path) -> None:
    out = tmp_path / "pico-opd-s0"
    train(recipes / "pico-opd.yaml", out, max_steps=2)
    shutil.rmtree(tmp_path / "pico-source-s0" / "bf16")
    shutil.copytree(out / "bf16", tmp_path / "pico-source-s0" / "bf16")
    with pytest.raises(RegistryError, match=r"was trained from weights \w{12}, and .*pico-source-s0/bf16 has \w{12}"):
        measure_run(recipes / "pico-opd.yaml", out)
    assert not (out / "results").exists()


@pytest.mark.slow
def test_a_study_from_nothing_to_tables(small: Scale, tmp_path: Path) -> None:
    out = tmp_path / "study"
    assert missing(small, out) == [("opd", 0), ("sgd-1e-1", 0), ("opd", 1), ("sgd-1e-1", 1)]
    assert missing(small, out, arms=["opd"], seeds=[1]) == [("opd", 1)]
    with pytest.raises(RegistryError, match=r"no arm 'sgd'; choose among: opd, sgd-1e-1"):
        missing(small, out, arms=["sgd"])
    for name, seed in missing(small, out, arms=["opd"]):
        assert run_arm(small, name, seed, out) == f"pico-opd-s{seed}"
    assert missing(small, out) == [("sgd-1e-1", 0), ("sgd-1e-1", 1)]
    found = StudyResults("pico", out / "pico")
    assert found.runs[["seed", "view"]].to_numpy().tolist() == [[s, v] for s in (0, 1) for v in ("bf16", "stored")]
    for view, place in (("bf16", "."), ("stored", "stored")):
        written = tmp_path / "runs" / "train" / "short" / "pico-opd-s1" / "results" / place / "summary.json"
        assert json.dumps(found.summary("opd", 1, view), indent=1) + "\n" == written.read_text()
    assert list(found.curves["step"]) == [1, 2, 1, 2]
    assert found.curves["momentum_cosine"].notna().tolist() == [True, False, True, False]
    assert list(found.parents["recipe"]) == ["pico-source", "pico-teacher"]
    shares = found.modules.groupby(["seed", "view"])["energy_share"].sum()
    assert shares.tolist() == pytest.approx([1, 1, 1, 1])
    assert (found.modules.groupby(["seed", "view"])["parameters"].sum() == found.runs["parameters"].iloc[0]).all()
    binades = found.binades[found.binades["view"] == "bf16"].groupby("seed")[["coordinates", "updated"]].sum()
    bf16 = found.runs[found.runs["view"] == "bf16"].set_index("seed")
    assert (1 - binades["updated"] / binades["coordinates"]).tolist() == pytest.approx(bf16["exact_zero"].tolist())


@pytest.mark.slow
def test_kept_steps_are_measured_too(recipes: Path, small: Scale, tmp_path: Path) -> None:
    content = yaml.safe_load((recipes / "pico-offline.yaml").read_text()) | {
        "name": "pico-kept",
        "steps": 3,
        "keep_every": 1,
    }
    (recipes / "pico-kept.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    kept = Arm(scale="pico", name="kept", recipes=f"{recipes.name}/pico", seeds=1)
    run_arm(Scale(name="pico", source=small.source, arms={"kept": kept}), "kept", 0, tmp_path)
    found = StudyResults("pico", tmp_path / "pico")
    assert list(found.steps["step"]) == [1, 2]
    norms = [found.summary("kept", 0, step=step)["rel_norm"] for step in (1, 2, 3)]
    assert norms == sorted(norms)
    assert norms[0] > 0
