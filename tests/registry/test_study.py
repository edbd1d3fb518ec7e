"""The study: its arms, and that each differs from its partner in exactly the lines that define it."""

from pathlib import Path

import pytest
import yaml

from opdlib.checkpoints import open_checkpoint
from opdlib.errors import RegistryError
from opdlib.files import data_root
from opdlib.registry import entries, study
from opdlib.registry.pairs import find_pair
from opdlib.registry.recipes import load_recipe, recipe_digest
from opdlib.registry.study import Arm, Scale, find_run, find_scale
from opdlib.registry.weights import Weights, find_weights, weights
from opdlib.results.study import open_study
from opdlib.tables.matched.arms import ARITHMETIC

ARMS = [arm for scale in study.study().values() for arm in scale.arms.values()]


@pytest.mark.parametrize("arm", ARMS, ids=lambda arm: f"{arm.scale}-{arm.name}")
def test_an_arm_differs_from_its_partner_in_the_lines_it_says(arm: study.Arm) -> None:
    ours = yaml.safe_load(arm.recipe.read_text(encoding="utf8"))
    assert ours["name"] == f"{Path(arm.recipes).name}-{arm.name}"
    assert ours["seed"] == 0
    assert len(arm.seeds) >= (1 if "smollm2" in arm.scale else 3 if arm.name in ARITHMETIC else 5)
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


def test_a_run_is_found_by_its_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # where no run lies
    found = find_run("pico-sgd-1e-2-s4")
    assert found is not None
    scale, arm, seed = found
    assert (scale.name, arm.name, seed) == ("pico", "sgd-1e-2", 4)
    listed = find_run("smollm2-h100-opd-s3")
    assert listed is not None
    assert (listed[0].name, listed[2]) == ("smollm2-h100", 3)
    assert find_run("pico-sgd-1e-2-s5") is None
    assert find_run("pico-opd") is None
    pair = find_pair("pico-rlvr-s1")
    assert pair.regime == "RLVR"
    assert pair.source.endswith("data/weights/pico-source-s0"), "it travels"
    assert pair.trained == "runs/train/pico-rlvr-s1/bf16"
    assert "opd study pico --arms rlvr --seeds 1" in pair.why


def test_runs_over_recipes_in_a_folder_lie_in_one_too() -> None:
    pair = find_pair("pico-bf16-rlvr-s1")
    assert pair.trained == "runs/train/bf16/pico-rlvr-s1/bf16"
    assert pair.source == "runs/train/bf16/pico-source-s0/bf16", "what travels is of another recipe"


def test_the_registry_wins_over_the_study() -> None:
    assert find_pair("smollm2-opd-s0").trained == "patch:data/patches/smollm2-opd.safetensors"


def test_runs_are_made_by_priority_then_seed_by_seed() -> None:
    common = {"scale": "pico", "recipes": "pico"}
    arms = {
        "last": Arm(name="last", seeds=2, **common),
        "b": Arm(name="b", seeds=[4, 0], priority=2, **common),
        "a": Arm(name="a", seeds=[4], priority=2, **common),
        "first": Arm(name="first", seeds=[7], priority=1, **common),
    }
    planned = [(arm.name, seed) for arm, seed in Scale(name="pico", source="x", arms=arms).planned]
    assert planned == [("first", 7), ("b", 0), ("b", 4), ("a", 4), ("last", 0), ("last", 1)]
    assert arms["b"].pairs == ["pico-b-s4", "pico-b-s0"]


def test_the_studies_differ_in_how_they_compute() -> None:
    """The recipes of pico are those of the first study in another arithmetic; its source alone learns longer."""
    for arm in find_scale("pico-bf16").arms.values():
        first, now = (load_recipe(each.recipe).model_dump() for each in (arm, find_scale("pico").arms[arm.name]))
        assert {key for key in first if first[key] != now[key]} == {"precision", "kernels"}, arm.name
    for scale, computed in {"pico": ("fp32", "any-x86", 1), "smollm2": ("fp32", "intel-avx2", 2)}.items():
        arms = [arm for arm in find_scale(scale).arms.values() if arm.name not in ARITHMETIC]
        for recipe in (load_recipe(arm.recipe) for arm in arms):
            assert (recipe.precision, recipe.kernels, recipe.threads) == computed


def test_every_recipe_is_an_arm_or_what_arms_stand_on() -> None:
    parents = {"pico": {"source", "teacher", "teacher-other"}, "smollm2": {"teacher"}}
    for scale, own in parents.items():
        recipes = (data_root() / "recipes").glob(f"{scale}-*.yaml")
        assert {path.stem.removeprefix(f"{scale}-") for path in recipes} == {*find_scale(scale).arms, *own}


def test_a_scale_may_take_the_recipes_of_another() -> None:
    scale = find_scale("smollm2-h100")
    assert scale.arms["opd"].recipe == data_root() / "recipes" / "h100" / "smollm2-opd.yaml"
    assert scale.arms["opd"].seeds == (3, 4, 5, 6, 7, 8)
    assert scale.apart


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[pico]", r"study\.yaml: wanted a mapping of keys to values, found \['pico'\]"),
        ("pico: {arms: {}}", "pico: source is missing; an entry has source, recipes, apart, arms"),
        ("pico: {source: x}", "pico: arms: wanted a mapping of keys to values, found None"),
        ("pico: {source: x, arms: {opd: 3}}", "pico: opd: wanted a mapping of keys to values, found 3"),
        ("pico: {source: x, arms: {opd: {seed: 1}}}", "pico: opd: seeds is missing; .* seeds, partner, differs"),
        ("pico: {source: x, arms: {opd: {seeds: 1, rate: 2}}}", "pico: opd: rate is 2: Extra inputs are not permitted"),
        ("pico: {source: x, arms: {opd: {seeds: 0}}}", "pico: opd: seeds is 0: "),
        ("pico: {source: x, arms: {opd: {seeds: [-1]}}}", r"pico: opd: seeds\.0 is -1: "),
        ("pico: {source: x, arms: {opd: {seeds: 1, regime: magic}}}", "pico: opd: regime is 'magic': "),
        ("pico: {source: x, arms: {opd: {seeds: 1, partner: y}}}", "opd: partner 'y' is no arm"),
    ],
)
def test_a_malformed_study_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str) -> None:
    (tmp_path / "study.yaml").write_text(text)
    monkeypatch.setattr(entries, "data_root", lambda: tmp_path)
    study.study.cache_clear()
    with pytest.raises(RegistryError, match=message):
        study.study()
    study.study.cache_clear()


def test_an_unknown_scale_is_named() -> None:
    with pytest.raises(RegistryError, match=r"no scale 'giant' in study\.yaml; choose one of: pico, smollm2"):
        find_scale("giant")


@pytest.mark.parametrize("scale", study.study().values(), ids=lambda scale: scale.name)
def test_committed_runs_are_of_the_committed_recipes(scale: Scale) -> None:
    """What was run is what the recipe says now: recipes are fixed before their runs."""
    runs = open_study(scale.name).runs
    assert len(runs) or not scale.apart, "those that are still to be run are not apart"
    for arm, own in runs.groupby("arm"):
        recipe = load_recipe(scale.arms[arm].recipe)
        for seed, digests in own.groupby("seed")["recipe_sha256"]:
            assert set(digests) == {recipe_digest(recipe.model_copy(update={"seed": seed}))}, (arm, seed)


@pytest.mark.parametrize("entry", weights().values(), ids=lambda entry: entry.run)
def test_committed_weights_are_those_of_the_committed_recipes(entry: Weights) -> None:
    name, seed = entry.run.rsplit("-s", 1)
    recipe = load_recipe(data_root() / "recipes" / f"{name}.yaml").model_copy(update={"seed": int(seed)})
    assert find_weights(recipe) == entry, "the recipe is another, or the file is missing"
    assert open_checkpoint(entry.spec).digest() == entry.digest
