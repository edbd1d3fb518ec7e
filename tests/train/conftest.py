"""A pico Llama that reads characters, and recipes that train it in a second."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from tests.registry.recipe_files import recipe_writer

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


@pytest.fixture(scope="session")
def write_recipe(pico: Path, other_pico: Path) -> Callable[..., Path]:
    """See `tests.recipe_files`."""
    return recipe_writer(str(pico), str(other_pico))
