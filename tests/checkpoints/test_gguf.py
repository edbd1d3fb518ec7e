"""GGUF files by path, written with gguf as llama.cpp's converter writes them, against transformers' own reader."""

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
import transformers
from numpy.typing import NDArray

from opdlib.checkpoints import open_checkpoint
from opdlib.checkpoints.checkpoint import DTYPES
from opdlib.errors import CheckpointError
from tests.hostile import made

HIDDEN, INNER, HEADS, KV_HEADS, VOCABULARY, EXPERTS = 64, 96, 4, 2, 48, 3

ATTENTION = {"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj"}
ATTENTION |= {"attn_output": "self_attn.o_proj", "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
DENSE = {"ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
SHAPES = {
    "attn_q": (HIDDEN, HIDDEN),
    "attn_k": (HIDDEN // 2, HIDDEN),
    "attn_v": (HIDDEN // 2, HIDDEN),
    "attn_output": (HIDDEN, HIDDEN),
    "attn_norm": (HIDDEN,),
    "ffn_norm": (HIDDEN,),
    "ffn_gate": (INNER, HIDDEN),
    "ffn_up": (INNER, HIDDEN),
    "ffn_down": (HIDDEN, INNER),
}


def permuted(weights: NDArray[Any], heads: int) -> NDArray[Any]:
    """Rotary pairs as llama.cpp wants them: the halves of every head, interleaved."""
    pairs = weights.reshape(heads, 2, weights.shape[0] // heads // 2, *weights.shape[1:])
    return pairs.swapaxes(1, 2).reshape(weights.shape)


def random_weights(architecture: str, layers: int = 2) -> dict[str, NDArray[np.float32]]:
    """By GGUF name, as transformers would have them."""
    draw = np.random.default_rng(0)
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (VOCABULARY, HIDDEN), "output_norm.weight": (HIDDEN,)}
    for layer in range(layers):
        for name, shape in SHAPES.items():
            if architecture == "qwen3moe" and name in DENSE:
                # transformers 5.23 does not read the experts' own size from the header and takes the default
                expert = tuple(768 if size == INNER else size for size in shape)
                shapes[f"blk.{layer}.{name}_exps.weight"] = (EXPERTS, *expert)
            else:
                shapes[f"blk.{layer}.{name}.weight"] = shape
        if architecture == "qwen2":
            shapes |= {f"blk.{layer}.attn_{x}.bias": SHAPES[f"attn_{x}"][:1] for x in "qkv"}
        if architecture == "qwen3moe":
            shapes[f"blk.{layer}.ffn_gate_inp.weight"] = (EXPERTS, HIDDEN)
            shapes |= {f"blk.{layer}.attn_{x}_norm.weight": (HIDDEN // HEADS,) for x in "qk"}
    return {name: draw.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def written(
    file: Path,
    weights: Mapping[str, NDArray[np.float32]],
    architecture: str,
    kind: gguf.GGMLQuantizationType,
    merges: int = 0,
) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(file, architecture)
    writer.add_block_count(2)
    writer.add_context_length(128)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    if architecture == "qwen3moe":
        writer.add_expert_count(EXPERTS)
        writer.add_expert_used_count(2)
        writer.add_expert_feed_forward_length(768)
        writer.add_key_length(HIDDEN // HEADS)
    if architecture != "llama":
        writer.add_tokenizer_model("gpt2")
        writer.add_token_list([f"t{i}" for i in range(VOCABULARY)])
        writer.add_token_merges(["t t"] * merges)
    for name, weight in weights.items():
        stored = weight
        if architecture == "llama" and ".attn_q." in name:
            stored = permuted(weight, HEADS)
        if architecture == "llama" and ".attn_k." in name:
            stored = permuted(weight, KV_HEADS)
        own = kind if weight.ndim > 1 else gguf.GGMLQuantizationType.F32
        writer.add_tensor(name, gguf.quantize(stored, own), raw_dtype=own)
    if architecture == "llama":
        writer.add_tensor("rope_freqs.weight", np.ones(8, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def hf_name(name: str) -> str:
    fixed = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}
    if name in fixed:
        return fixed[name]
    _, layer, word, kind = name.split(".")
    return f"model.layers.{layer}.{(ATTENTION | DENSE)[word]}.{kind}"


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16"])
def test_rotary_permutation_is_undone_and_nothing_is_rounded(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    transformers.logging.set_verbosity_warning()
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    weights = random_weights("llama")
    checkpoint = open_checkpoint(str(written(tmp_path / "m.gguf", weights, "llama", gguf.GGMLQuantizationType[kind])))
    assert not caplog.messages
    assert set(checkpoint.tensors) == {hf_name(name) for name in weights}
    for name, weight in weights.items():
        dtype = torch.float32 if weight.ndim == 1 else DTYPES[kind]
        assert torch.equal(checkpoint.read(hf_name(name)), torch.from_numpy(weight).to(dtype)), name
        assert checkpoint.tensors[hf_name(name)].shape == weight.shape
    assert checkpoint.origin()["format"] == "GGUF"
    assert dict(checkpoint.tied) == {"lm_head.weight": "model.embed_tokens.weight"}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("architecture", ["qwen2", "qwen3moe"])
def test_dequantized_as_transformers_does(tmp_path: Path, architecture: str) -> None:
    from transformers import AutoModelForCausalLM

    file = written(tmp_path / "m.gguf", random_weights(architecture), architecture, gguf.GGMLQuantizationType.Q8_0)
    wanted = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=file.name, dtype=torch.float32).state_dict()
    wanted.pop("lm_head.weight")  # tied
    checkpoint = open_checkpoint(str(tmp_path))
    assert set(checkpoint.tensors) == set(wanted)
    for name, weight in wanted.items():
        assert checkpoint.tensors[name].shape == weight.shape
        assert torch.equal(checkpoint.read(name), weight), name
    assert checkpoint.origin()["format"] == "GGUF, dequantized from Q8_0"


@pytest.mark.slow
def test_a_vocabulary_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kind, weights, read = gguf.GGMLQuantizationType.F32, random_weights("qwen2"), gguf.GGUFReader._get_str
    texts: list[int] = []
    monkeypatch.setattr(gguf.GGUFReader, "_get_str", lambda self, at: texts.append(at) or read(self, at))
    few, many = (open_checkpoint(str(written(tmp_path / f"{n}.gguf", weights, "qwen2", kind, n))) for n in (1, 20_000))
    assert len(texts) < 1000, "none of 20,000 is read, twice"
    assert many.digest() == few.digest()
    assert many.config == few.config
    assert gguf.GGUFReader(tmp_path / "20000.gguf").get_field("tokenizer.ggml.merges").contents(0) == "t t"


def test_what_cannot_be_read(tmp_path: Path) -> None:
    file = written(tmp_path / "a.gguf", random_weights("llama"), "llama", gguf.GGMLQuantizationType.F16)
    whole = file.read_bytes()
    part = tmp_path / "parts" / "m-00001-of-00002.gguf"
    part.parent.mkdir()
    shutil.copyfile(file, part)
    foreign = written(
        tmp_path / "foreign.gguf",
        random_weights("llama") | {"blk.0.surprise.weight": np.ones((64, 64), np.float32)},
        "llama",
        gguf.GGMLQuantizationType.F16,
    )
    unknown = written(tmp_path / "unknown.gguf", random_weights("llama"), "nobody", gguf.GGMLQuantizationType.F16)
    deep = tmp_path / "deep" / "x.gguf"
    deep.parent.mkdir()
    many = [(f"blk.{n}.attn_norm.weight", (1,), 0, 0) for n in range(1001)]
    deep.write_bytes(
        made.gguf([made.LLAMA, ("llama.block_count", 4, (1001).to_bytes(4, "little"))], many, data=bytes(64))
    )
    cut, empty = tmp_path / "cut.gguf", tmp_path / "empty.gguf"
    cut.write_bytes(whole[: len(whole) // 2])
    empty.write_bytes(b"")
    small = {n: w[:, :32] if n.endswith("ffn_up.weight") else w for n, w in random_weights("llama").items()}
    other = written(tmp_path / "other.gguf", small, "llama", gguf.GGMLQuantizationType.F16)
    for path, match in (
        (other, r"ffn_up\.weight holds 3072 numbers, transformers wants \(96, 64\)"),
        (tmp_path, "6 GGUF files"),
        (deep, "announces 1001 layers for 1001 tensors, and 1000 are the most"),
        (part.parent, "part 00001 of 00002; join them"),
        (foreign, r"no name for tensor blk\.0\.surprise\.weight of a llama model"),
        (unknown, "GGUF model with architecture nobody is not supported"),
        (cut, "wanted a GGUF of a language model|not a whole GGUF"),
        (empty, "an empty file; wanted a GGUF"),
    ):
        with pytest.raises(CheckpointError, match=match) as caught:
            open_checkpoint(str(path))
        assert "\n" not in str(caught.value)
