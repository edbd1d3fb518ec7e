"""Tensor names: what they say about a parameter, and when two names mean the same one.

Architectures differ in words, not in grammar: dotted segments, one of them followed by the layer's number. The words
are the tables below; supporting a new architecture means adding to them. A word that no table knows is no error: the
parameter's block is then `other`, visible in every table.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

BLOCKS = ("attention", "mlp", "router", "embedding", "lm_head", "norm", "vision", "other")
"""The blocks of a summary, in the order of every table. `vision` is everything whose part is vision."""

PARTS = ("language", "vision")

MODULES: dict[str, tuple[str, ...]] = {
    "attention": (
        *("q_proj", "k_proj", "v_proj", "o_proj", "qkv_proj", "out_proj", "c_attn", "query_key_value", "qkv", "dense"),
        *("q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj", "sinks"),
        *("in_proj_qkvz", "in_proj_ba", "in_proj_qkv", "in_proj_z", "in_proj_a", "in_proj_b"),
        *("conv1d", "A_log", "dt_bias"),
    ),
    "mlp": (
        *("gate_proj", "up_proj", "down_proj", "gate_up_proj", "c_fc", "fc1", "fc2", "w1", "w2", "w3"),
        *("dense_h_to_4h", "dense_4h_to_h"),
    ),
    "router": ("router", "gate", "shared_expert_gate", "moe_statics", "e_score_correction_bias", "expert_bias"),
    "embedding": (
        *("embed_tokens", "wte", "wpe", "tok_embeddings", "embed_positions", "patch_embed", "position_embedding"),
        *("word_embeddings", "embed_in", "shared"),
    ),
    "lm_head": ("lm_head", "embed_out", "output_layer", "output"),
}
"""Block -> the module words that belong to it."""

HEAD = "lm_head.weight"
"""What the output head is called where none is stored."""
EMBEDDINGS = ("shared", "embed_tokens", "wte", "word_embeddings", "embed_in", "tok_embeddings")
"""Words of the input embedding; T5 stores its own under the first and twice under the second."""

PARENTS = dict.fromkeys(("self_attn", "attn", "attention", "linear_attn"), "attention") | dict.fromkeys(
    ("mlp", "shared_mlp", "ffn", "feed_forward", "block_sparse_moe", "experts", "shared_expert", "shared_experts"),
    "mlp",
)
"""Segment -> block of a module whose own word is unknown or ambiguous (GPT-2's c_proj is in both)."""

LAYER_WORDS = ("layers", "h", "blocks", "layer")
VISION_WORDS = ("visual", "vision_tower", "vision_model", "vision_encoder", "multi_modal_projector")

WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
"""Segments that a compiler or a trainer puts into names, anywhere."""
OUTER = ("module.", "pretrained_model.", "base_model.model.")
"""Prefixes of what is wrapped around a model for training."""
PREFIXES = (("model.language_model.", "model."), ("language_model.", ""), ("model.visual.", "visual."))
"""Prefix -> what it stands for: the same weights saved by different versions of a library."""
BASES = ("model.", "transformer.", "gpt_neox.")
"""What the names of a model with a head begin with, and those of the same model without one do not."""
SYNONYMS = {"w1": "gate_proj", "w2": "down_proj", "w3": "up_proj"}
"""Mixtral's words for the matrices of an expert -> everybody's."""
BUFFERS = ("inv_freq", "original_inv_freq", "position_ids", "masked_bias", "cos_cached", "sin_cached", "causal_mask")
"""Last segments of what is stored and not trained."""

NUMBER = re.compile("[0-9]{1,6}")
"""What numbers a layer or an expert; longer ones are words."""

_BLOCK_OF = {word: block for block, words in MODULES.items() for word in words}


@dataclass(frozen=True)
class Param:
    """What the name of one parameter says."""

    name: str
    """The full name, as the source checkpoint spells it."""
    layer: int | None
    """Layer number from 0 within its part; None outside the stack (embedding, final norm, head)."""
    module: str
    """The module's word: q_proj, down_proj, embed_tokens, input_layernorm, ..."""
    block: str
    """attention, mlp, embedding, lm_head, norm or other; a vision block keeps its own kind here."""
    part: str
    """language or vision."""
    expert: int | None = None
    """Number of the expert where each has tensors of its own."""

    @property
    def summary_block(self) -> str:
        """The block it is counted under in a summary: `vision` for the vision part, else `block`."""
        return "vision" if self.part == "vision" else self.block


def parse(name: str) -> Param:
    """Read a tensor's name. Any string gives a Param; unknown words end in block `other`.

    Whole segments are compared, so `qkv_proj` is not taken for `v_proj`. A bias belongs to its projection; everything
    whose word holds "norm" (q_norm and k_norm too) is `norm`.
    """
    segments = name.split(".")
    part = "vision" if is_vision(name) else "language"
    body = segments[:-1] if len(segments) > 1 and segments[-1] in ("weight", "bias") else segments
    layer, expert = _number_after(body, LAYER_WORDS), _number_after(body, ("experts",))
    last = body[-1] or name
    module = last if expert is None else SYNONYMS.get(last, last)
    return Param(name, layer, module, _block(body), part, expert)


def is_vision(name: str) -> bool:
    """Does this name belong to the vision part?"""
    return not set(name.split(".")).isdisjoint(VISION_WORDS)


def is_head(name: str) -> bool:
    """Is this the matrix of the output head?"""
    return name.endswith(".weight") and parse(name).summary_block == "lm_head"


def embedding_of(names: Iterable[str]) -> str | None:
    """Which of them is the matrix of the input embedding."""
    words = {name: word for name in names for word in EMBEDDINGS if f".{name}".endswith(f".{word}.weight")}
    return min(words, key=lambda name: EMBEDDINGS.index(words[name]), default=None)


def bias_behind(name: str) -> str | None:
    """The bias of the output head, if this is the second name under which BERT and its kin store it; else None."""
    return name.removesuffix(".decoder.bias") + ".bias" if name.endswith(".decoder.bias") else None


def is_buffer(name: str, dimensions: int) -> bool:
    """Is a tensor of this name stored, but not trained? The mask of GPT-2's attention is called a bias."""
    last = name.rpartition(".")[2]
    return last in BUFFERS or (dimensions == 4 and name.endswith((".attn.bias", ".attention.bias")))


def unwrapped(name: str) -> str:
    """The name without what compilers and trainers put into it; see `WRAPPERS` and `OUTER`."""
    name = ".".join(segment for segment in name.split(".") if segment not in WRAPPERS)
    while outer := next((prefix for prefix in OUTER if name.startswith(prefix)), None):
        name = name.removeprefix(outer)
    return name


def canonical(name: str) -> str:
    """The name as today's libraries have it; see `PREFIXES` and `SYNONYMS`."""
    for prefix, meaning in PREFIXES:
        if name.startswith(prefix):
            name = meaning + name.removeprefix(prefix)
            break
    segments = name.replace("block_sparse_moe.", "mlp.").replace("router.layer.", "router.").split(".")
    if _number_after(segments, ("experts",)) is not None:
        segments = [SYNONYMS.get(segment, segment) for segment in segments]
    return ".".join(segments)


def bare(name: str) -> str:
    """The canonical name as it is in a model without a head; see `BASES`."""
    known = canonical(name)
    return known.removeprefix(next(filter(known.startswith, BASES), ""))


def module_order(modules: Iterable[str]) -> list[str]:
    """Distinct modules in the order of the tables above, unknown ones last by name."""
    known = {word: i for i, word in enumerate(_BLOCK_OF)}
    return sorted(set(modules), key=lambda m: (known.get(m, len(known)), m))


def _number_after(segments: list[str], words: tuple[str, ...]) -> int | None:
    for word, number in pairwise(segments):
        if word in words and NUMBER.fullmatch(number):
            return int(number)
    return None


def _block(body: list[str]) -> str:
    module = body[-1]
    if "norm" in module or module.startswith("ln_"):
        return "norm"
    if _is_router(body):
        return "router"
    for parent in reversed(body[:-1]):
        if parent in PARENTS:
            return PARENTS[parent]
    return _BLOCK_OF.get(module, "other")


def _is_router(body: list[str]) -> bool:
    """What chooses experts, its correction included; a gate is a router in an mlp alone."""
    words = MODULES["router"]
    gates = [i for i, segment in enumerate(body) if segment in words]
    return any(body[i] == "router" or PARENTS.get(body[i - 1] if i else "") == "mlp" for i in gates)
