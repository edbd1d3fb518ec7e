"""Runs with LoRA: what is trained, what is saved, and that the two forms of the result are one."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from opdlib.checkpoints import open_checkpoint
from opdlib.errors import RecipeError
from opdlib.registry.recipes import load_recipe
from opdlib.train.models import load_model
from opdlib.train.run import train

pytestmark = pytest.mark.slow
LORA = {"rank": 2, "alpha": 8.0, "targets": ["q_proj", "down_proj"], "rslora": True}


def write_lora(folder: Path, write_recipe: Callable[..., Path], objective: str) -> Path:
    return write_recipe(
        folder, objective, lora=LORA, keep_every=5, precision="fp32", learning_rate=0.01, evaluation_size=1
    )


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # PEFT reads it
@pytest.mark.parametrize("objective", ["sft", "opd", "opd-k1", "rlvr"])
def test_merged_is_source_and_factors(
    tmp_path: Path, pico: Path, write_recipe: Callable[..., Path], objective: str
) -> None:
    folder = train(write_lora(tmp_path, write_recipe, objective), tmp_path / "run")
    source, merged = (load_file(place / "model.safetensors") for place in (pico, folder / "fp32"))
    factors = load_file(folder / "adapter" / "adapter_model.safetensors")
    assert merged.keys() == source.keys()
    for name, weight in source.items():
        a, b = (factors.get(f"base_model.model.{name.removesuffix('weight')}lora_{x}.weight") for x in "AB")
        assert (a is not None) == name.endswith(("q_proj.weight", "down_proj.weight"))
        delta = torch.zeros(()) if a is None or b is None else 8 / 2**0.5 * (b @ a)
        assert torch.allclose(merged[name], weight + delta, rtol=0, atol=1e-7)
        moved = not torch.equal(merged[name], weight)
        assert moved == (a is not None and objective != "rlvr"), "no random answer is right"
    config = json.loads((folder / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(pico)
    model = load_model(open_checkpoint(str(pico)))
    read = PeftModel.from_pretrained(model, folder / "adapter").merge_and_unload()
    tokens = torch.arange(2, 12)[None]
    whole = load_model(open_checkpoint(str(folder / "fp32")))
    assert torch.allclose(read(tokens).logits, whole(tokens).logits, atol=1e-5)
    kept = load_file(folder / "steps" / "5" / "model.safetensors")
    assert kept.keys() == source.keys()


def test_it_goes_on_to_the_same_bits(tmp_path: Path, write_recipe: Callable[..., Path]) -> None:
    recipe = write_lora(tmp_path, write_recipe, "opd")

    def stumble(*_: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(recipe, tmp_path / "stopped", keep=(5, stumble))
    assert not (tmp_path / "stopped" / "fp32").exists()
    again, whole = (
        train(recipe, tmp_path / name, resume=True, keep=(5, lambda *_: None)) for name in ("stopped", "whole")
    )
    for file in ("fp32/model.safetensors", "adapter/adapter_model.safetensors", "adapter/adapter_config.json"):
        assert (again / file).read_bytes() == (whole / file).read_bytes(), file


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gradient": "zero"}, r"lora is .*; .*leave one of them out"),
        ({"mask": {"kind": "delta", "of": "x", "threshold": 0.0}}, r"lora is .*; .*leave one of them out"),
        ({"probe_every": 1}, r"probe_every is 1; .*probes look at weights"),
        ({"lora": {"rank": 0, "alpha": 1}}, r"lora.rank is 0"),
        ({"lora": {"rank": 1, "alpha": 1, "r": 2}}, r"key 'lora.r' = 2 is unknown for lora; allowed: rank, alpha"),
    ],
)
def test_what_does_not_go_together(
    tmp_path: Path, write_recipe: Callable[..., Path], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        load_recipe(write_recipe(tmp_path, "opd", **{"lora": LORA} | changes))
