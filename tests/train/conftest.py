"""A pico Llama that reads characters, and recipes that train it in a second."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

CHARACTERS = "Calcute: Rs0123456789+*\n"


def write_pico(folder: Path, seed: int) -> Path:
    """A random Llama (hidden 32, 2 layers, tied head) with a tokenizer of single characters."""
    vocabulary = {"<eos>": 0, "<unk>": 1} | {c: i for i, c in enumerate(CHARACTERS, start=2)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", unk_token="<unk>").save_pretrained(folder)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def pico(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The student."""
    return write_pico(tmp_path_factory.mktemp("student"), seed=0)


@pytest.fixture(scope="session")
def other_pico(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another model over the same vocabulary: a teacher."""
    return write_pico(tmp_path_factory.mktemp("teacher"), seed=1)


def recipe_content(objective: str, pico: Path, other_pico: Path) -> dict[str, Any]:
    """A complete recipe of 6 steps of 4 problems."""
    content: dict[str, Any] = {
        "name": f"pico-{objective}",
        "objective": objective,
        "student": str(pico),
        "task": "arithmetic",
        "seed": 0,
        "steps": 6,
        "batch_size": 4,
        "optimizer": "adamw",
        "learning_rate": 0.001,
        "schedule": "constant",
        "weight_decay": 0.0,
        "clip": 1.0,
        "precision": "bf16",
        "save_every": 2,
        "evaluation_size": 3,
        "evaluation_seed": 0,
    }
    if objective != "sft":
        content |= {"max_new_tokens": 4, "temperature": 1.0}
    if objective not in ("sft", "opsd", "rlvr"):
        content["teacher"] = str(other_pico)
    return content | {"opd-topk": {"top_k": 3}, "rlvr": {"generations": 2}}.get(objective, {})


@pytest.fixture(scope="session")
def write_recipe(pico: Path, other_pico: Path) -> Callable[..., Path]:
    """`write_recipe(folder, objective, **changes)` writes a recipe; a change to None leaves it out."""

    def write(folder: Path, objective: str, **changes: Any) -> Path:
        content = recipe_content(objective, pico, other_pico) | changes
        content = {key: value for key, value in content.items() if value is not None}
        path = folder / f"{content['name']}.yaml"
        path.write_text(yaml.safe_dump(content), encoding="utf8")
        return path

    return write
