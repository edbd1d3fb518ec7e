"""How architectures store their matrices: which words of a name hold several, in which order, and which lie turned.

A matrix maps inputs to outputs and has its outputs as rows. Some files hold it turned round, several in one tensor, or
the experts of a layer in one stack. What shapes do not show stands in these tables; a new architecture is a new row.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from torch import Tensor

from opdlib.checkpoints.names import embedding_of, is_vision

GATED = ("gate_proj", "up_proj")
QKV = ("q_proj", "k_proj", "v_proj")


@dataclass(frozen=True)
class Cut:
    """A matrix within a stored tensor: the steps that lead to it, in their order."""

    expert: int | None = None
    """Its place in a stack."""
    experts: int = 0
    """Of a stack whose matrices lie one below the other: how many there are."""
    turned: bool = False
    """Whether the tensor has the inputs as rows."""
    groups: int = 1
    """Rows come in so many groups of equal height, and the matrix has in each those from `start` to `stop`."""
    start: int = 0
    stop: int | None = None

    def of(self, tensor: Tensor) -> Tensor:
        """The matrix, or the vector of a bias; a view of the tensor where there can be one."""
        return self.of_rows(tensor[slice(*self.rows(tuple(tensor.shape)))])

    def rows(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """Where its expert, or all of it, begins and ends along the first dimension of a tensor of this shape."""
        height = shape[0] if self.expert is None else shape[0] // self.experts if self.experts else 1
        return (self.expert or 0) * height, ((self.expert or 0) + 1) * height

    def of_rows(self, rows: Tensor) -> Tensor:
        """The same as `of`, from these rows alone."""
        tensor = rows if self.expert is None or self.experts else rows[0]
        if self.turned and tensor.ndim == 2:
            tensor = tensor.mT
        if self.stop is not None:
            grouped = tensor.reshape(self.groups, -1, *tensor.shape[1:])[:, self.start : self.stop]
            tensor = grouped.reshape(-1, *tensor.shape[1:])
        return tensor

    def __str__(self) -> str:
        """In words, for tables."""
        words = [] if self.expert is None else [f"expert {self.expert}"]
        words += ["turned"] if self.turned else []
        if self.stop is not None:
            words.append(f"rows {self.start}:{self.stop}" + (f" of {self.groups} groups" if self.groups > 1 else ""))
        return ", ".join(words)


@dataclass(frozen=True)
class Fused:
    """A module's word whose rows are those of several matrices."""

    word: str
    parts: tuple[str, ...]
    """What the matrices are called where each is stored on its own, in the order of their rows."""
    order: str
    """`equal`: one after the other, all of one height. `qkv`: one after the other, the last two of one height.
    `grouped`: a group of rows for each key head, with its query heads, its key and its value. `blocks`: as `equal`,
    but so in each of `BLOCKS_OF_CODEGEN` blocks of rows. `linear`: a group for each key head of linear attention."""
    beside: tuple[str, ...] = ()
    """Words of the matrix that takes their output; its width tells how the rows are shared out."""
    models: tuple[str, ...] = ()
    """Only these model types of config.json; empty: all that no row above takes."""
    needs: str = ""
    """Only where config.json says so under this key."""


BLOCKS_OF_CODEGEN = 4

FUSED = (
    Fused("qkv_proj", ("q_proj", "v_proj", "k_proj"), "blocks", models=("codegen",)),
    Fused("c_attn", QKV, "grouped", ("c_proj",), models=("gpt_bigcode",)),
    Fused("query_key_value", QKV, "qkv", ("dense",), models=("bailing", "bailing_moe", "bailing_moe_v2")),
    Fused("query_key_value", QKV, "qkv", ("dense",), models=("chatglm",), needs="multi_query_attention"),
    Fused("query_key_value", QKV, "grouped", ("dense",)),
    Fused("wqkv", QKV, "grouped", ("wo",)),
    Fused("linear_qkv", QKV, "grouped", ("linear_proj",)),
    Fused("qkv_proj", QKV, "qkv", ("o_proj", "out_proj")),
    Fused("Wqkv", QKV, "qkv", ("out_proj", "Wo")),
    Fused("W_pack", QKV, "qkv", ("o_proj",)),
    Fused("c_attn", QKV, "qkv", ("c_proj",)),
    Fused("att_proj", QKV, "qkv", ("attn_out",)),
    Fused("qkv", QKV, "qkv", ("proj", "dense", "projection", "out_proj")),
    Fused("gate_up_proj", GATED, "equal"),
    Fused("up_gate_proj", ("up_proj", "gate_proj"), "equal"),
    Fused("ff_proj", ("up_proj", "gate_proj"), "equal", ("ff_out",)),
    Fused("input_linear", GATED, "equal", ("output_linear",)),
    Fused("dense_h_to_4h", GATED, "equal", ("dense_4h_to_h",)),
    Fused("linear_fc1", GATED, "equal", ("linear_fc2",)),
    Fused("Wi", GATED, "equal", ("Wo",)),
    Fused("in_proj_qkvz", ("in_proj_q", "in_proj_k", "in_proj_v", "in_proj_z"), "linear"),
    Fused("in_proj_ba", ("in_proj_b", "in_proj_a"), "linear"),
    Fused("in_proj_qkv", ("in_proj_q", "in_proj_k", "in_proj_v"), "linear"),
)
"""The first row that fits a name holds."""

ALTERNATING = ("gpt_oss",)
"""Model types whose experts have gate and up in alternating rows, the gate first."""

TURNED_EXPERTS = ("gpt_oss", "openai_privacy_filter", "llama4", "llama4_text", "qwen3_vl_moe", "qwen3_vl_moe_text")
"""Model types whose stacked experts are stored input by output. Asked only where the shapes leave it open."""

TURNED_WORDS = ("c_attn", "q_attn", "c_proj", "c_fc")
"""Modules that GPT-2 and its kin store input by output, and others under the same names output by input."""
TURNED_MODELS = ("gpt2", "openai-gpt", "imagegpt", "decision_transformer", "clvp")

INWARDS, OUTWARDS = ("gate_up_proj", "gate_proj", "up_proj", "input_linear", "w1", "w3"), ("down_proj", "w2")
"""Words of experts that take the model's hidden state, and of those that give it back."""

STACKED_ROWS = {"dbrx": {"w1": False, "v1": False, "w2": True}}
"""Model type -> words of experts whose matrices lie one below the other in a matrix -> do they lie turned?"""


class Architecture:
    """What config.json and the shapes of a checkpoint's parameters, by name, say of its layout."""

    def __init__(self, config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]):
        self._shapes = shapes
        parts = (config.get("text_config"), config.get("llm_config"), config, config.get("ffn_config"))
        self._configs = [part for part in parts if isinstance(part, Mapping)]
        self._models = {model for part in self._configs if isinstance(model := part.get("model_type"), str)}
        self.notes: dict[str, str] = {}
        """Name -> why a fused tensor is taken as one matrix."""

    def parts(self, name: str) -> Iterator[tuple[str, Cut | None]]:
        """The matrices that the tensor `name` holds, by their names; itself alone where it is one, or a vector."""
        shape = self._shapes[name]
        path, word, kind = _split(name)
        if 0 in shape or not shape:
            yield name, None
        elif stack := self._stack(path, word, kind, shape):
            own, count, turned, inner = stack
            cuts = list(self._cuts(path, own, kind, inner, turned))
            at, experts, rest = path.partition("experts.")
            for expert in range(count):
                for part, cut in cuts:
                    place = replace(cut, expert=expert, experts=count if len(inner) == len(shape) else 0)
                    yield f"{at}{experts or 'experts.'}{expert}.{rest}{part}.{kind}", place
        else:
            turned = self._is_turned(path, word, kind, shape)
            for part, cut in self._cuts(path, word, kind, shape[::-1] if turned else shape, turned):
                yield (f"{path}{part}.{kind}", cut) if cut != Cut() else (name, None)

    def _cuts(self, path: str, word: str, kind: str, shape: tuple[int, ...], turned: bool) -> Iterator[tuple[str, Cut]]:
        """Part -> its cut of a matrix that has outputs first in `shape`, or of its bias."""
        rule = next((rule for rule in FUSED if rule.word == word and self._fits(rule)), None)
        shared = self._shared(rule, path, kind, shape) if rule else None
        if rule is None or shared is None:
            yield word, Cut(turned=turned)
            return
        groups, heights = shared
        start = 0
        for part, height in zip(rule.parts, heights, strict=True):
            yield part, Cut(turned=turned, groups=groups, start=start, stop=start + height)
            start += height

    def _fits(self, rule: Fused) -> bool:
        told = not rule.needs or any(config.get(rule.needs) is True for config in self._configs)
        return told and (not rule.models or not self._models.isdisjoint(rule.models))

    def _stack(
        self, path: str, word: str, kind: str, shape: tuple[int, ...]
    ) -> tuple[str, int, bool, tuple[int, ...]] | None:
        """Of a stack of experts: word, their number, whether they lie turned, shape of one with outputs first."""
        within = "experts" in path.split(".")
        for model in self._models & set(STACKED_ROWS) if within else ():
            count = self._number("moe_num_experts")
            if count and len(shape) == 2 and word in STACKED_ROWS[model]:
                turned, inner = STACKED_ROWS[model][word], (shape[0] // count, shape[1])
                return word, count, turned, inner[::-1] if turned else inner
        if len(shape) != (3 if kind == "weight" else 2):
            return None
        if within:
            turned = kind == "weight" and self._experts_turned(path, word, shape)
            return word, shape[0], turned, shape[:0:-1] if turned else shape[1:]
        own = {"input_linear": "input_linear", "output_linear": "down_proj"}.get(word)
        return (own, shape[0], False, shape[1:]) if own and kind == "weight" else None

    def _experts_turned(self, path: str, word: str, shape: tuple[int, ...]) -> bool:
        """Are the experts of a stack stored input by output? Both halves of an expert say so together, or its width."""
        up, down = (self._shape(f"{path}{w}") for w in ("gate_up_proj", "down_proj"))
        if up and down and len(up) == len(down) == 3:
            straight, turned = up[1:] == (2 * down[2], down[1]), up[1:] == (down[2], 2 * down[1])
            if straight != turned:
                return turned
        side = 2 if word in INWARDS else 1 if word in OUTWARDS else None
        hidden = self._hidden
        if side and hidden and (shape[side] == hidden) != (shape[3 - side] == hidden):
            return shape[side] != hidden
        return not self._models.isdisjoint(TURNED_EXPERTS) or self._alternates(path)

    def _alternates(self, path: str) -> bool:
        """Do gate and up alternate in these experts? No other architecture has both fused, and a bias."""
        told = not self._models.isdisjoint(ALTERNATING)
        return told or (not self._models and f"{path}gate_up_proj_bias" in self._shapes)

    def _is_turned(self, path: str, word: str, kind: str, shape: tuple[int, ...]) -> bool:
        """Is this the matrix of a Conv1D? Where others have a Linear under these names, c_attn is taller than wide."""
        if word not in TURNED_WORDS or kind != "weight" or len(shape) != 2:
            return False
        block = path.removesuffix(".").rpartition(".")[0]
        fused = self._shape(f"{block}.attn.c_attn" if block else "attn.c_attn")
        return fused[1] > fused[0] if fused else not self._models.isdisjoint(TURNED_MODELS)

    def _shared(self, rule: Fused, path: str, kind: str, shape: tuple[int, ...]) -> tuple[int, tuple[int, ...]] | None:
        """Groups of rows, and the height of each part in a group; None where it is not fused, or nobody says how."""
        rows, count = shape[0], len(rule.parts)
        width = next((own for word in rule.beside if (own := self._width(path, word))), None)
        if rule.order == "equal":
            if rows % count or (rule.beside and rows != count * (width or 0)):
                return None
            alternates = "experts" in path.split(".") and self._alternates(path)
            return (rows // count, (1,) * count) if alternates else (1, (rows // count,) * count)
        whole = self._shape(f"{path}{rule.word}") or ()
        if width is None and len(whole) == 2 and max(whole) == 3 * min(whole):
            width = min(whole)
        found: tuple[int, tuple[int, ...]] | None = None
        if rule.order == "blocks" and rows % (count * BLOCKS_OF_CODEGEN) == 0:
            found = BLOCKS_OF_CODEGEN, (rows // count // BLOCKS_OF_CODEGEN,) * count
        elif rule.order == "qkv" and width and rows > width and (rows - width) % 2 == 0:
            found = 1, (width, (rows - width) // 2, (rows - width) // 2)
        elif rule.order == "grouped" and width and not is_vision(path):
            found = self._grouped(rows, width)
        elif rule.order == "linear":
            found = self._linear(rule.parts, rows)
        if found is None:
            self.notes[f"{path}{rule.word}.{kind}"] = (
                "fused, and neither config.json nor the shapes beside it say how; taken as one"
            )
        return found

    def _grouped(self, rows: int, width: int) -> tuple[int, tuple[int, ...]] | None:
        """A group for each key head: `width` rows in all are of queries, and keys and values have heads of one size."""
        heads = self._number("num_attention_heads", "n_head", "n_heads", "num_heads")
        if not heads or width % heads:
            return None
        size = width // heads
        groups, rest = divmod(rows - width, 2 * size)
        return (groups, (heads // groups * size, size, size)) if rest == 0 < groups and heads % groups == 0 else None

    def _linear(self, parts: tuple[str, ...], rows: int) -> tuple[int, tuple[int, ...]] | None:
        """Qwen3-Next has a group for each key head; its successors store q, k and v one after the other."""
        wanted = ("num_key_heads", "key_head_dim", "num_value_heads", "value_head_dim")
        keys, size, values, value = (self._number(f"linear_{key}") or 0 for key in wanted)
        if not keys or values % keys:
            return None
        each = values // keys
        heights = {"q": size, "k": size, "v": each * value, "z": each * value, "b": each, "a": each}
        own = tuple(heights[part.rpartition("_")[2]] for part in parts)
        if sum(own) * keys != rows:
            return None
        return (1, tuple(keys * height for height in own)) if len(parts) == 3 else (keys, own)

    def _width(self, path: str, word: str) -> int | None:
        """The number of inputs of the matrix `word` beside another; of a stack, of one of its matrices."""
        shape = self._shape(f"{path}{word}")
        return None if shape is None else shape[0 if self._is_turned(path, word, "weight", shape) else -1]

    def _shape(self, name: str) -> tuple[int, ...] | None:
        return self._shapes.get(name) or self._shapes.get(f"{name}.weight")

    def _number(self, *keys: str) -> int | None:
        """The first positive whole number under one of these keys, first of the language model."""
        found = (config.get(key) for config in self._configs for key in keys)
        return next((n for n in found if isinstance(n, int) and n > 0), None)

    @cached_property
    def _hidden(self) -> int | None:
        """The width of the model's hidden state: that of config.json, else of the embedding."""
        embedding = self._shapes.get(embedding_of(self._shapes) or "")
        return self._number("hidden_size") or (embedding[-1] if embedding else None)


def _split(name: str) -> tuple[str, str, str]:
    """Path with its last dot, word, and weight or bias; what has no such last segment is a weight."""
    head, dot, last = name.rpartition(".")
    if last in ("weight", "bias") and head:
        path, dot, word = head.rpartition(".")
        return f"{path}{dot}", word, last
    if last.endswith("_bias") and "experts" in head.split("."):
        return f"{head}{dot}", last.removesuffix("_bias"), "bias"
    return f"{head}{dot}", last, "weight"
