"""Which instructions compute: chosen before torch is loaded, refused afterwards, and recorded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from opdlib.errors import RecipeError
from opdlib.files import data_root
from opdlib.registry.recipes import load_recipe
from opdlib.train.arithmetic import KERNELS, VARIABLES, choose, chosen

STAGED = data_root() / "recipes" / "fp32"


@pytest.fixture
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("kernels", KERNELS)
def test_the_environment_is_set_before_torch_is_loaded(
    monkeypatch: pytest.MonkeyPatch, nothing_set: None, kernels: str
) -> None:
    monkeypatch.delitem(sys.modules, "torch")
    choose("any-x86")
    choose(kernels)
    assert {name: value for name, value in chosen().items() if value} == KERNELS[kernels]
    for name in VARIABLES:  # what was set here is not monkeypatch's to forget
        os.environ.pop(name, None)


def test_afterwards_another_choice_is_refused(monkeypatch: pytest.MonkeyPatch, nothing_set: None) -> None:
    choose("native")
    with pytest.raises(RecipeError, match="MKL_CBWR=AVX2") as error:
        choose("intel-avx2")
    assert "\n" not in str(error.value)
    for name, value in KERNELS["intel-avx2"].items():
        monkeypatch.setenv(name, value)
    choose("intel-avx2")
    with pytest.raises(RecipeError, match="none of them"):
        choose("native")


def test_what_computes_is_recorded(nothing_set: None) -> None:
    code = (
        "from opdlib.train.arithmetic import choose; choose('any-x86'); import json\n"
        "from opdlib.train.environment import environment; print(json.dumps(environment()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    made = json.loads(done.stdout)
    assert made["kernels"] == KERNELS["any-x86"]
    assert "AVX512" not in made["device"]
    assert made["cpu"]["model"]


@pytest.mark.parametrize("scale", ["pico", "smollm2"])
def test_staged_arms_differ_in_the_lines_that_are_named(scale: str) -> None:
    arms = yaml.safe_load((STAGED / "study.yaml").read_text(encoding="utf8"))[scale]["arms"]
    recipes = {name: yaml.safe_load((STAGED / f"{scale}-{name}.yaml").read_text(encoding="utf8")) for name in arms}
    computed = {"pico": ("fp32", "any-x86", 1), "smollm2": ("fp32", "intel-avx2", 2)}[scale]
    for name, entry in arms.items():
        own, partner = recipes[name], recipes[entry.get("partner", name)]
        differing = {key for key in {*own, *partner} if own.get(key) != partner.get(key)} - {"name"}
        assert differing == {*entry.get("differs", ())}, name
        if not differing & {"precision", "kernels"}:
            assert (own["precision"], own["kernels"], own["threads"]) == computed


@pytest.mark.parametrize(
    ("scale", "parents"), [("pico", {"source", "teacher", "teacher-other"}), ("smollm2", {"teacher"})]
)
def test_every_staged_recipe_is_an_arm_or_what_arms_stand_on(scale: str, parents: set[str]) -> None:
    arms = yaml.safe_load((STAGED / "study.yaml").read_text(encoding="utf8"))[scale]["arms"]
    names = {path.stem.removeprefix(f"{scale}-") for path in Path(STAGED).glob(f"{scale}-*.yaml")}
    assert names == {*arms, *parents}


def test_staged_pico_recipes_are_the_first_ones_in_another_arithmetic() -> None:
    """The source alone has other steps: in float32 it learns later."""
    for path in STAGED.parent.glob("pico-*.yaml"):
        first, now = (load_recipe(place).model_dump() for place in (path, STAGED / path.name))
        differing = {key for key in first if first[key] != now[key]}
        assert differing == {"precision", "kernels"} | ({"steps"} if path.stem == "pico-source" else set()), path.name
