from pathlib import Path
from typing import Any

import pytest
import yaml

from opdlib.errors import RecipeError
from opdlib.registry.recipes import DistillRecipe, SftRecipe, check_recipe, find_recipe, load_recipe
from opdlib.registry.study import FULL, RUNS, run_folder, study
from tests.registry.recipe_files import recipe_writer

write_recipe = recipe_writer("org/student", "org/teacher")
SHIPPED = sorted((Path(__file__).parents[2] / "data" / "recipes").glob("*.yaml"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_recipes_load_under_their_own_name(path: Path) -> None:
    assert load_recipe(path).name == path.stem


def test_the_embedded_run_is_what_the_book_says() -> None:
    opd, teacher = (load_recipe(p) for p in SHIPPED if p.stem in {"smollm2-opd", "smollm2-teacher"})
    assert isinstance(opd, DistillRecipe)
    assert isinstance(teacher, SftRecipe)
    assert opd.teacher == f"recipe:{teacher.name}"
    assert opd.student == teacher.student
    assert (opd.steps, opd.learning_rate) == (150, 1e-5)
    assert (teacher.steps, teacher.learning_rate) == (250, 5e-5)
    assert opd.evaluation_size == teacher.evaluation_size >= 400
    assert opd.evaluation_seed == teacher.evaluation_seed


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, r"steps is 0; input should be greater than or equal to 1"),
        ({"steps": "six"}, r"steps is 'six'; input should be a valid integer"),
        ({"steps": True}, r"steps is True; input should be a valid integer"),
        ({"steps": None}, r"key 'steps' is missing"),
        ({"learning_rate": -1.0}, r"learning_rate is -1.0; input should be greater than 0"),
        ({"learning_rate": float("nan")}, r"learning_rate is nan; input should be a finite"),
        ({"clip": float("inf")}, r"clip is inf; input should be a finite"),
        ({"optimizer": "sgdd"}, r"optimizer is 'sgdd'; input should be 'adamw'"),
        ({"precision": "fp16"}, r"precision is 'fp16'; input should be 'bf16' or 'fp32'"),
        ({"task": "algebra"}, r"task is 'algebra'; .*choose one of: arithmetic"),
        ({"name": "Pico/../x"}, r"name is 'Pico/../x'; string should match"),
        ({"seed": -1}, r"seed is -1; input should be greater than or equal to 0"),
        ({"learningrate": 1.0}, r"key 'learningrate' = 1.0 is unknown for .*allowed: name, student"),
        ({"objective": "grpo"}, r"objective is 'grpo'; choose one of: offline, offline-rkl, opd, opd-ce"),
        ({"objective": None}, r"objective is missing; choose one of: offline, offline-rkl, opd, opd-ce"),
        ({"objective": ["opd"]}, r"objective is \['opd'\]; choose one of: offline, offline-rkl, opd, opd-ce"),
        ({"objective": "sft"}, r"key '(teacher|max_new_tokens|temperature)' = .* is unknown for"),
        ({"objective": "opd-topk"}, r"key 'top_k' is missing"),
        (
            {"objective": "rlvr", "teacher": None, "generations": 3},
            r"generations is 3; .*wanted a divisor of batch_size 4",
        ),
        ({"accumulate": 3}, r"accumulate is 3; .*wanted a divisor of batch_size 4"),
        ({"optimizer": "adamw", "learning_rate": 1.0}, r"learning_rate is 1.0; .*below 1 with optimizer adamw"),
        ({"optimizer": "sgd", "learning_rate": 1000}, r"learning_rate is 1000; .*below 1000 with optimizer sgd"),
        ({"mask": {"kind": "delta", "of": "x"}}, r"key 'mask.threshold' is missing"),
        (
            {"mask": {"kind": "own", "of": "x", "threshold": 0.0}},
            r"mask.kind is 'own'; input should be 'delta', 'random'",
        ),
        (
            {"mask": {"kind": "delta", "of": "x", "threshold": 0.0, "q": 1}},
            r"key 'mask.q' = 1 is unknown for mask; allowed: kind, of, threshold",
        ),
        ({"gradient": "none"}, r"gradient is 'none'; input should be 'true' or 'zero'"),
        ({"threads": 0}, r"threads is 0; input should be greater"),
        ({"activation_checkpointing": 1}, r"activation_checkpointing is 1; input should be a valid boolean"),
        ({"rollout": "vllm", "vllm_memory": 0}, r"vllm_memory is 0; input should be greater than 0"),
        ({"rollout": "vllm", "vllm_memory": 1.0}, r"vllm_memory is 1.0; input should be less than 1"),
        ({"objective": "offline", "rollout": "vllm"}, r"objective is 'offline'; .*the teacher samples; leave rollout"),
        ({"vllm_memory": 0.3}, r"vllm_memory is 0.3; .*say rollout: vllm"),
        ({"warmup": 6}, r"warmup is 6; .*wanted fewer than steps, 6"),
        ({"teacher": None}, r"key 'teacher' is missing"),
        ({"temperature": 0.0}, r"temperature is 0.0; input should be greater than or equal to 0.000001"),
    ],
    ids=str,
)
def test_bad_values_are_named_in_one_line(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = write_recipe(tmp_path, "opd", name="bad")
    content = yaml.safe_load(path.read_text()) | changes
    path.write_text(yaml.safe_dump({k: v for k, v in content.items() if v is not None}))
    with pytest.raises(RecipeError, match=message) as caught:
        load_recipe(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n- b\n", "holds a list, wanted a mapping"),
        ("", "holds a NoneType, wanted a mapping"),
        ("name: [", "not readable as YAML"),
        ("seed: 1\nname: a\nseed: 2\n", "key 'seed' occurs twice"),
        ("a: !!python/object/apply:os.getcwd []", "not readable as YAML"),
    ],
)
def test_files_that_are_no_recipe(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=message) as caught:
        load_recipe(path)
    assert "\n" not in str(caught.value)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"none\.yaml: no such recipe"):
        load_recipe(tmp_path / "none.yaml")
    with pytest.raises(RecipeError, match=r"pico-odp: no such recipe.* did you mean pico-opd"):
        load_recipe(find_recipe("pico-odp"))


def test_a_shipped_recipe_has_a_name_and_a_file_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shipped = {name: load_recipe(find_recipe(name)).precision for name in ("pico-opd", "bf16/pico-opd")}
    assert shipped == {"pico-opd": "fp32", "bf16/pico-opd": "bf16"}
    assert load_recipe(find_recipe("data/recipes/pico-opd.yaml")) == load_recipe(find_recipe("pico-opd"))
    (tmp_path / "pico-opd").write_text("- mine\n")
    with pytest.raises(RecipeError, match="pico-opd: holds a list"):
        load_recipe(find_recipe("pico-opd"))


def test_runs_lie_below_their_folder_as_recipes_lie_below_theirs(tmp_path: Path) -> None:
    for scale in study().values():
        arm = scale.arms[FULL]
        assert run_folder(arm.recipe, load_recipe(arm.recipe)) == arm.folder(0), scale.name
    own = write_recipe(tmp_path, "opd")
    assert run_folder(own, load_recipe(own)) == RUNS / "pico-opd-s0"


def test_a_rate_without_a_dot_is_a_number(tmp_path: Path) -> None:
    path = write_recipe(tmp_path, "sft")
    path.write_text(path.read_text().replace("learning_rate: 0.001", "learning_rate: 1e-3"))
    assert load_recipe(path).learning_rate == 0.001


def test_a_resolved_recipe_is_a_recipe(tmp_path: Path) -> None:
    recipe = load_recipe(write_recipe(tmp_path, "opd"))
    assert check_recipe(recipe.model_dump(exclude_none=True), "again") == recipe
