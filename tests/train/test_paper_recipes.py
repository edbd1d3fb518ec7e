"""The paper's own runs: every number of its Tables 5 and 6, and a source or a reason beside every line."""

from pathlib import Path
from typing import Any

import pytest
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import launch_command_parser

from opdlib.errors import RecipeError
from opdlib.registry.recipes import Recipe, load_recipe
from opdlib.train.processes import check_processes

FOLDER = Path(__file__).parents[2] / "data" / "recipes" / "paper"
FSDP = FOLDER / "fsdp.yaml"
PATHS = {path.stem: path for path in sorted(FOLDER.glob("*.yaml")) if path != FSDP}

DS_QWEN = {
    "objective": "opd-k1",
    "student": "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B",
    "teacher": "agentica-org/DeepScaleR-1.5B-Preview",
    "task": "hub:dapo-math-17k",
    "rollout": "vllm",
    "generations": 4,
    "max_new_tokens": 7168,
    "optimizer": "adamw",
    "learning_rate": 1e-6,
    "mask": None,
}
JUSTRL = {"teacher": "hbx/JustRL-DeepSeek-1.5B"}
OWN = {"kind": "delta", "of": "recipe:ds-qwen-opd", "threshold": 1e-5}
DIFFERENCES: dict[str, dict[str, Any]] = {
    "ds-qwen-opd": {},
    "ds-qwen-opd-justrl": JUSTRL,
    "ds-qwen-opd-justrl-sgd": JUSTRL | {"optimizer": "sgd", "learning_rate": 1e-2},
    "ds-qwen-mask-own": {"mask": OWN},
    "ds-qwen-mask-rlvr": {"mask": OWN | {"of": "agentica-org/DeepScaleR-1.5B-Preview"}},
    "ds-qwen-mask-random": {"mask": OWN | {"kind": "random"}},
}
OBSERVED = {"name", "keep_every", "probe_every"}
"""What changes no weight."""


def load(name: str) -> dict[str, Any]:
    recipe: Recipe = load_recipe(PATHS[name])
    assert recipe.name == name
    return recipe.model_dump()


def test_there_are_no_others() -> None:
    assert set(PATHS) == {*DIFFERENCES, "qwen2.5-vl-opd"}


@pytest.mark.parametrize("name", DIFFERENCES)
def test_table_5_and_nothing_else_that_differs(name: str) -> None:
    found, base = load(name), load("ds-qwen-opd")
    expected = DS_QWEN | DIFFERENCES[name]
    assert {key: found[key] for key in expected} == expected
    assert {key for key in base if found[key] != base[key]} <= {*DIFFERENCES[name], *OBSERVED}
    prompts = found["batch_size"] // found["generations"]
    assert prompts == 32
    assert found["steps"] == 17398 // prompts  # one epoch
    assert found["evaluate_every"] == 10 * 128 // prompts
    assert found["evaluation_size"] == 60


def test_table_6() -> None:
    found = load("qwen2.5-vl-opd")
    assert (found["objective"], found["top_k"]) == ("opd-topk", 32)
    assert (found["student"], found["teacher"]) == ("Qwen/Qwen2.5-VL-3B-Instruct", "xyliu6/NoisyRollout-Geo3K-7B")
    assert (found["task"], found["evaluation_size"], found["rollout"]) == ("hub:geo3k", 601, "vllm")
    assert (found["optimizer"], found["learning_rate"], found["max_new_tokens"]) == ("adamw", 1e-6, 2048)
    assert (found["batch_size"], found["generations"]) == (32, 1)
    assert found["steps"] == 10 * 2101 // 32  # ten epochs
    assert found["evaluate_every"] == 10 * 128 // 32


@pytest.mark.parametrize("name", PATHS)
def test_every_value_has_its_source_or_is_our_choice(name: str) -> None:
    sources = ("Table", "Figure", "section", "appendix", "our choice")
    for line in PATHS[name].read_text(encoding="utf8").splitlines():
        key, _, value = line.partition(":")
        if line.startswith("#") or key in ("name", "mask", "  of"):
            continue
        assert any(source in value.partition("#")[2] for source in sources), line


def test_four_processes_share_what_has_no_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    refused = set()
    for name, path in PATHS.items():
        recipe = load_recipe(path)
        try:
            check_processes(recipe)
        except RecipeError:
            refused.add(name)
    assert refused == {name for name, path in PATHS.items() if load_recipe(path).mask is not None}


def test_accelerate_reads_the_file_for_fsdp() -> None:
    config = load_config_from_file(str(FSDP))
    assert (config.distributed_type, config.num_processes) == ("FSDP", 4)
    known = {option for action in launch_command_parser()._actions for option in action.option_strings}
    assert {f"--{key}" for key in config.fsdp_config} <= known
