"""Models with random weights: where a study begins that needs no download.

`fresh:pico` is a Qwen3 (0.8 M parameters, tied head) that reads one character as one token.
"""

from dataclasses import dataclass
from pathlib import Path

from opdlib.errors import RecipeError

FRESH = "fresh:"


@dataclass(frozen=True)
class Architecture:
    """The shape of a Qwen3 and the characters that it reads; every other character is one unknown token."""

    characters: str
    hidden: int
    mlp: int
    layers: int
    heads: int
    key_value_heads: int


ARCHITECTURES = {"pico": Architecture("0123456789+= \n", hidden=128, mlp=384, layers=4, heads=4, key_value_heads=2)}


def find_architecture(spec: str) -> Architecture:
    """The architecture of `fresh:NAME`. Raises RecipeError that lists the known names."""
    name = spec.removeprefix(FRESH)
    if name not in ARCHITECTURES:
        raise RecipeError(f"student is {spec!r}; fresh models are: {', '.join(FRESH + name for name in ARCHITECTURES)}")
    return ARCHITECTURES[name]


def write_fresh(architecture: Architecture, seed: int, folder: Path) -> None:
    """Write the model, weights drawn from `seed` and rounded to bf16, and its tokenizer into the existing `folder`."""
    # Here, because a recipe that names an architecture is refused before libraries are loaded, which takes seconds.
    import torch
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

    vocabulary = {"<eos>": 0, "<unk>": 1} | {c: i for i, c in enumerate(architecture.characters, start=2)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", unk_token="<unk>").save_pretrained(folder)
    config = Qwen3Config(
        vocab_size=len(vocabulary),
        hidden_size=architecture.hidden,
        intermediate_size=architecture.mlp,
        num_hidden_layers=architecture.layers,
        num_attention_heads=architecture.heads,
        num_key_value_heads=architecture.key_value_heads,
        head_dim=architecture.hidden // architecture.heads,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen3ForCausalLM(config)
    model.to(torch.bfloat16).save_pretrained(folder)
