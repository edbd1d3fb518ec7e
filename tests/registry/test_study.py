"""The study: its arms, and that each differs from its partner in exactly the lines that define it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from opdlib.errors import RegistryError
from opdlib.files import data_root
from opdlib.registry import study
from opdlib.registry.pairs import find_pair
from opdlib.registry.recipes import load_recipe
from opdlib.registry.study import find_run, find_scale

ARMS = [arm for scale in study.study().values() for arm in scale.arms.values()]


@pytest.mark.parametrize("arm", ARMS, ids=lambda arm: f"{arm.scale}-{arm.name}")
def test_an_arm_differs_from_its_partner_in_the_lines_it_says(arm: study.Arm) -> None:
    ours = yaml.safe_load(arm.recipe.read_text(encoding="utf8"))
    assert ours["name"] == f"{arm.scale}-{arm.name}"
    assert ours["seed"] == 0
    assert arm.seeds >= (5 if arm.scale == "pico" else 1)
    if arm.partner is None:
        assert arm.name == "opd"
        assert not arm.differs
        return
    partner = find_scale(arm.scale).arms[arm.partner]
    theirs = yaml.safe_load(partner.recipe.read_text(encoding="utf8"))
    differ = {key for key in {*ours, *theirs} if ours.get(key) != theirs.get(key)}
    assert differ == {"name", *arm.differs}


@pytest.mark.parametrize("arm", ARMS, ids=lambda arm: f"{arm.scale}-{arm.name}")
def test_every_arm_has_a_recipe_that_loads(arm: study.Arm) -> None:
    recipe = load_recipe(arm.recipe)
    assert recipe.student == find_scale(arm.scale).source
    assert recipe.keep_every
    assert recipe.probe_every
    assert recipe.evaluate_every


def test_the_arms_are_those_of_the_issue() -> None:
    wanted = {
        *("opd", "opd-fkl", "opd-jsd", "opd-topk", "opd-k1", "opsd", "rlvr", "offline", "offline-rkl", "opd-ce", "sft"),
        *("mask-own", "mask-rlvr", "mask-random", "mask-magnitude", "mask-smallest", "adam-zero"),
    }
    assert wanted <= set(find_scale("pico").arms)
    for optimizer in ("adamw", "sgd", "sgdm", "rmsprop"):
        assert sum(name.startswith(f"{optimizer}-") for name in find_scale("pico").arms) >= 3


def test_a_run_is_found_by_its_key() -> None:
    found = find_run("pico-sgd-1e-2-s4")
    assert found is not None
    scale, arm, seed = found
    assert (scale.name, arm.name, seed) == ("pico", "sgd-1e-2", 4)
    assert find_run("pico-sgd-1e-2-s5") is None
    assert find_run("pico-opd") is None
    pair = find_pair("pico-rlvr-s1")
    assert (pair.regime, pair.source) == ("RLVR", "runs/train/pico-source-s0/bf16")
    assert "opd study pico --arms rlvr --seeds 1" in pair.why


def test_the_registry_wins_over_the_study() -> None:
    assert find_pair("smollm2-opd-s0").trained == "patch:data/patches/smollm2-opd.safetensors"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pico: {arms: {}}", "pico: wanted a mapping with source and arms"),
        ("pico: {source: x, arms: {opd: {seed: 1}}}", "pico: opd: .*an arm has seeds, partner, differs, regime"),
        ("pico: {source: x, arms: {opd: {seeds: 1, partner: y}}}", "partner 'y' is no arm"),
    ],
)
def test_a_malformed_study_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str) -> None:
    (tmp_path / "study.yaml").write_text(text)
    monkeypatch.setattr(study, "data_root", lambda: tmp_path)
    study.study.cache_clear()
    with pytest.raises(RegistryError, match=message):
        study.study()
    study.study.cache_clear()


def test_an_unknown_scale_is_named() -> None:
    with pytest.raises(RegistryError, match=r"no scale 'giant' in study\.yaml; choose one of: pico, smollm2"):
        find_scale("giant")


def test_committed_runs_are_of_the_committed_recipes() -> None:
    """What was run is what the recipe says now: recipes are fixed before their runs."""
    for arm in ARMS:
        for seed, key in enumerate(arm.pairs):
            recorded = data_root() / "results" / key / "training" / "recipe.yaml"
            if recorded.is_file():
                expected = load_recipe(arm.recipe).model_dump(exclude_none=True) | {"seed": seed}
                found = load_recipe(recorded).model_dump(exclude_none=True)
                assert found == expected, key
