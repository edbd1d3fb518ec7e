"""Mixtures of experts, whose module joins what checkpoints keep apart: trained from both forms, saved as the source."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, MixtralConfig, Qwen3MoeConfig

from opdlib.checkpoints import open_checkpoint
from opdlib.errors import CheckpointError, RecipeError
from opdlib.train.models import load_model, save_state
from opdlib.train.run import train

pytestmark = pytest.mark.slow
SHAPE: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1}
SHAPE |= {"vocab_size": 26, "intermediate_size": 64, "bos_token_id": None, "eos_token_id": 0}
CONFIGS = {
    "qwen3_moe": Qwen3MoeConfig(**SHAPE, moe_intermediate_size=16, num_experts=4, num_experts_per_tok=2, head_dim=16),
    "mixtral": MixtralConfig(**SHAPE, num_local_experts=4, num_experts_per_tok=2),
}


@pytest.fixture(scope="module", params=[(kind, form) for kind in CONFIGS for form in ("apart", "joined")], ids="-".join)
def mixture(request: pytest.FixtureRequest, pico: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A checkpoint whose experts are stored one by one, as such models are published, or as the module has them; and
    the module."""
    kind, form = request.param
    folder = tmp_path_factory.mktemp(kind) / form
    shutil.copytree(pico, folder)
    torch.manual_seed(0)
    module = AutoModelForCausalLM.from_config(CONFIGS[kind], dtype=torch.float32).eval()
    module.save_pretrained(folder)
    if form == "joined":
        save_file(module.state_dict(), folder / "model.safetensors", metadata={"format": "pt"})
    names = load_file(folder / "model.safetensors")
    assert any(".experts.0." in name for name in names) == (form == "apart")
    return folder, module


def test_it_is_the_same_model_and_keeps_its_names(mixture: tuple[Path, Any], tmp_path: Path) -> None:
    folder, module = mixture
    source = open_checkpoint(str(folder))
    model = load_model(source).eval()
    tokens = torch.arange(2, 20)[None]
    assert torch.equal(model(tokens).logits, module(tokens).logits)
    save_state(model.state_dict(), source, tmp_path, torch.float32)
    before, after = (load_file(place / "model.safetensors") for place in (folder, tmp_path))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_what_is_missing_is_named(mixture: tuple[Path, Any], tmp_path: Path) -> None:
    folder, _ = mixture
    shutil.copytree(folder, tmp_path / "cut")
    weights = load_file(folder / "model.safetensors")
    save_file({name: w for name, w in weights.items() if "q_proj" not in name}, tmp_path / "cut" / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"config.json describes another model than the tensors; 2 names differ"):
        load_model(open_checkpoint(str(tmp_path / "cut")))


@pytest.mark.parametrize("mixture", [("qwen3_moe", "apart"), ("qwen3_moe", "joined")], ids="-".join, indirect=True)
def test_it_trains_and_a_mask_is_of_what_is_stored(
    mixture: tuple[Path, Any], tmp_path: Path, write_recipe: Callable[..., Path]
) -> None:
    folder, _ = mixture
    shared = {"student": str(folder), "steps": 1, "evaluation_size": 1}
    run = train(write_recipe(tmp_path, "sft", **shared), tmp_path / "pico-sft-s0")
    before, after = (load_file(place / "model.safetensors") for place in (folder, run / "fp32"))
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[name], after[name]) for name in before if ".experts" in name)
    mask = {"kind": "delta", "of": "recipe:pico-sft", "threshold": 0.0}
    masked = write_recipe(tmp_path, "sft", name="masked", mask=mask, **shared)
    if folder.name == "joined":
        assert train(masked, tmp_path / "run").is_dir()
        return
    with pytest.raises(RecipeError, match="joins tensors that are stored apart"):
        train(masked, tmp_path / "run")
