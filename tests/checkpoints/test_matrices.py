"""Every layout, made by hand from matrices: they come out again, outputs first, under the names of no layout at all."""

from pathlib import Path

import pytest
import torch

from opdlib.checkpoints import open_checkpoint
from opdlib.checkpoints.matrices import matrices
from opdlib.errors import CheckpointError
from tests.conftest import Weights, write_checkpoint
from tests.layouts import EXPERTS, HEADS, HIDDEN, INNER, KEY_HEADS, SIZE, alternating, grouped, numbers, stacked

Case = tuple[dict[str, object] | None, Weights, Weights]
"""config.json, what is stored, the matrices in it."""

q, k, v = (numbers(heads * SIZE, HIDDEN, seed=seed) for seed, heads in enumerate((HEADS, KEY_HEADS, KEY_HEADS)))
K, V = numbers(HEADS * SIZE, HIDDEN, seed=3), numbers(HEADS * SIZE, HIDDEN, seed=4)
o = numbers(HIDDEN, HEADS * SIZE, seed=5)
square = [numbers(HIDDEN, HIDDEN, seed=seed) for seed in range(6, 10)]
gate, up, down = numbers(INNER, HIDDEN, seed=10), numbers(INNER, HIDDEN, seed=11), numbers(HIDDEN, INNER, seed=12)
gates, ups = numbers(EXPERTS, INNER, HIDDEN, seed=13), numbers(EXPERTS, INNER, HIDDEN, seed=14)
downs = numbers(EXPERTS, HIDDEN, INNER, seed=15)
one = numbers(3 * HIDDEN, seed=16)
heads = {"num_attention_heads": HEADS}


def qkv(at: str, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> Weights:
    return {f"{at}.q_proj.weight": q, f"{at}.k_proj.weight": k, f"{at}.v_proj.weight": v}


def experts(at: str, gates: torch.Tensor, ups: torch.Tensor, downs: torch.Tensor, kind: str = "weight") -> Weights:
    return {
        f"{at}.{number}.{word}_proj.{kind}": stack[number]
        for word, stack in (("gate", gates), ("up", ups), ("down", downs))
        for number in range(EXPERTS)
    }


gated = {"mlp.gate_proj.weight": gate, "mlp.up_proj.weight": up}
bias = {"gates": gates[..., 0], "ups": ups[..., 0], "downs": downs[..., 0]}
own = {"mlp.down_proj.weight": down}
oss: Weights = {
    "mlp.experts.gate_up_proj": alternating(gates, ups).mT,
    "mlp.experts.gate_up_proj_bias": alternating(bias["gates"], bias["ups"]),
    "mlp.experts.down_proj": downs.mT,
    "mlp.experts.down_proj_bias": bias["downs"],
}
of_oss = experts("mlp.experts", gates, ups, downs) | experts("mlp.experts", **bias, kind="bias")
attention = {"a.o_proj.weight": o}

CASES: dict[str, Case] = {
    "gpt-2": (
        {"model_type": "gpt2"},
        {
            "h.0.attn.c_attn.weight": torch.cat(square[:3]).mT,
            "h.0.attn.c_attn.bias": one,
            "h.0.attn.c_proj.weight": square[3].mT,
            "h.0.mlp.c_fc.weight": gate.mT,
            "h.0.mlp.c_proj.weight": down.mT,
        },
        {
            **qkv("h.0.attn", *square[:3]),
            **{f"h.0.attn.{x}_proj.bias": b for x, b in zip("qkv", one.split(HIDDEN), strict=True)},
            "h.0.attn.c_proj.weight": square[3],
            "h.0.mlp.c_fc.weight": gate,
            "h.0.mlp.c_proj.weight": down,
        },
    ),
    "gpt-2 without its attention": (
        {"model_type": "gpt2"},
        {"h.0.mlp.c_fc.weight": gate.mT},
        {"h.0.mlp.c_fc.weight": gate},
    ),
    "linear under the names of gpt-2": (
        None,
        {
            "h.0.attn.c_attn.weight": torch.cat(square[:3]),
            "h.0.attn.c_proj.weight": square[3],
            "h.0.mlp.c_fc.weight": gate,
        },
        {**qkv("h.0.attn", *square[:3]), "h.0.attn.c_proj.weight": square[3], "h.0.mlp.c_fc.weight": gate},
    ),
    "starcoder, one key head": (
        {"model_type": "gpt_bigcode", "n_head": HEADS},
        {"h.0.attn.c_attn.weight": torch.cat([q, k[:SIZE], v[:SIZE]]), "h.0.attn.c_proj.weight": o},
        {**qkv("h.0.attn", q, k[:SIZE], v[:SIZE]), "h.0.attn.c_proj.weight": o},
    ),
    "starcoder, all key heads": (
        {"model_type": "gpt_bigcode", "n_head": HEADS},
        {"h.0.attn.c_attn.weight": grouped(q, K, V, HEADS), "h.0.attn.c_proj.weight": o},
        {**qkv("h.0.attn", q, K, V), "h.0.attn.c_proj.weight": o},
    ),
    "phi-3": (
        None,
        {
            "a.qkv_proj.weight": torch.cat([q, k, v]),
            **attention,
            "mlp.gate_up_proj.weight": torch.cat([gate, up]),
            **own,
        },
        {**qkv("a", q, k, v), **attention, **gated, **own},
    ),
    "codegen": (
        {"model_type": "codegen"},
        {"a.qkv_proj.weight": torch.cat([x.chunk(4)[block] for block in range(4) for x in (q, V, K)])},
        qkv("a", q, K, V),
    ),
    "gpt-neox": (
        heads | {"model_type": "gpt_neox"},
        {
            "a.query_key_value.weight": grouped(q, K, V, HEADS),
            "a.query_key_value.bias": grouped(q, K, V, HEADS)[:, 0],
            "a.dense.weight": o,
        },
        {
            **qkv("a", q, K, V),
            **{f"a.{x}_proj.bias": m[:, 0] for x, m in zip("qkv", (q, K, V), strict=True)},
            "a.dense.weight": o,
        },
    ),
    "falcon": (
        heads | {"model_type": "falcon", "new_decoder_architecture": True},
        {"a.query_key_value.weight": grouped(q, k, v, KEY_HEADS), "a.dense.weight": o},
        {**qkv("a", q, k, v), "a.dense.weight": o},
    ),
    "chatglm": (
        heads | {"model_type": "chatglm", "multi_query_attention": True},
        {
            "a.query_key_value.weight": torch.cat([q, k, v]),
            "a.dense.weight": o,
            "mlp.dense_h_to_4h.weight": torch.cat([gate, up]),
            "mlp.dense_4h_to_h.weight": down,
        },
        {**qkv("a", q, k, v), "a.dense.weight": o, **gated, "mlp.dense_4h_to_h.weight": down},
    ),
    "nothing fused under chatglm's names": (
        None,
        {"mlp.dense_h_to_4h.weight": gate, "mlp.dense_4h_to_h.weight": down},
        {"mlp.dense_h_to_4h.weight": gate, "mlp.dense_4h_to_h.weight": down},
    ),
    "internlm-2": (
        {"model_type": "internlm2", **heads},
        {"a.wqkv.weight": grouped(q, k, v, KEY_HEADS), "a.wo.weight": o},
        {**qkv("a", q, k, v), "a.wo.weight": o},
    ),
    "baichuan": (None, {"a.W_pack.weight": torch.cat(square[:3])}, qkv("a", *square[:3])),
    "mpt": (
        None,
        {"a.Wqkv.weight": torch.cat([q, k, v]), "a.out_proj.weight": o},
        {**qkv("a", q, k, v), "a.out_proj.weight": o},
    ),
    "modernbert": (
        None,
        {"mlp.Wi.weight": torch.cat([gate, up]), "mlp.Wo.weight": down},
        {**gated, "mlp.Wo.weight": down},
    ),
    "vision": (
        None,
        {"visual.blocks.0.attn.qkv.weight": torch.cat(square[:3]), "visual.blocks.0.attn.proj.weight": square[3]},
        {**qkv("visual.blocks.0.attn", *square[:3]), "visual.blocks.0.attn.proj.weight": square[3]},
    ),
    "qwen3-next": (
        {"linear_num_key_heads": 2, "linear_key_head_dim": 3, "linear_num_value_heads": 4, "linear_value_head_dim": 4},
        {
            "a.in_proj_qkvz.weight": torch.cat(
                [x.chunk(2)[head] for head in range(2) for x in (q[:6], K[:6], V[:16], up[:16])]
            )
        },
        {
            "a.in_proj_q.weight": q[:6],
            "a.in_proj_k.weight": K[:6],
            "a.in_proj_v.weight": V[:16],
            "a.in_proj_z.weight": up[:16],
        },
    ),
    "experts": (
        {"model_type": "qwen3_moe"},
        {
            "mlp.experts.gate_up_proj": stacked(gates, ups),
            "mlp.experts.down_proj": downs,
            "mlp.gate.weight": gates[:, 0],
        },
        {**experts("mlp.experts", gates, ups, downs), "mlp.gate.weight": gates[:, 0]},
    ),
    "experts, input by output": (
        None,
        {"mlp.experts.gate_up_proj": stacked(gates, ups).mT, "mlp.experts.down_proj": downs.mT},
        experts("mlp.experts", gates, ups, downs),
    ),
    "experts apart, input by output": (
        {"hidden_size": HIDDEN},
        {"mlp.experts.gate_proj": gates.mT, "mlp.experts.up_proj": ups.mT, "mlp.experts.down_proj": downs.mT},
        experts("mlp.experts", gates, ups, downs),
    ),
    "gpt-oss": ({"model_type": "gpt_oss"}, oss, of_oss),
    "gpt-oss without config.json": (None, oss, of_oss),
    "granite": (
        None,
        {
            "block_sparse_moe.input_linear.weight": stacked(gates, ups),
            "block_sparse_moe.output_linear.weight": downs,
            "shared_mlp.input_linear.weight": torch.cat([gate, up]),
            "shared_mlp.output_linear.weight": down,
        },
        {
            **experts("block_sparse_moe.experts", gates, ups, downs),
            "shared_mlp.gate_proj.weight": gate,
            "shared_mlp.up_proj.weight": up,
            "shared_mlp.output_linear.weight": down,
        },
    ),
    "dbrx": (
        {"model_type": "dbrx", "ffn_config": {"moe_num_experts": EXPERTS}},
        {
            "ffn.experts.mlp.w1": gates.flatten(0, 1),
            "ffn.experts.mlp.v1": ups.flatten(0, 1),
            "ffn.experts.mlp.w2": downs.mT.flatten(0, 1),
        },
        {
            f"ffn.experts.{number}.mlp.{word}.weight": stack[number]
            for number in range(EXPERTS)
            for word, stack in (("w1", gates), ("v1", ups), ("w2", downs))
        },
    ),
    "neither fused nor stacked": (
        None,
        {**qkv("a", q, k, v), **attention, **gated, **own, "linear_attn.conv1d.weight": numbers(4, 1, 3, seed=1)},
        {**qkv("a", q, k, v), **attention, **gated, **own, "linear_attn.conv1d.weight": numbers(4, 1, 3, seed=1)},
    ),
}


@pytest.mark.parametrize("layout", CASES)
def test_the_matrices_of_a_layout(tmp_path: Path, layout: str) -> None:
    config, stored, wanted = CASES[layout]
    checkpoint = open_checkpoint(write_checkpoint(tmp_path, contiguous(stored), config=config))
    found = matrices(checkpoint)
    assert found.notes == {}
    assert sorted(found.places) == sorted(wanted)
    for name, place in found.places.items():
        values = place.read(checkpoint)
        assert values.is_contiguous()
        assert values.shape == place.info.shape, name
        assert torch.equal(values, wanted[name]), name


def contiguous(weights: Weights) -> Weights:
    return {name: w.clone(memory_format=torch.contiguous_format) for name, w in weights.items()}


def test_what_cannot_be_split_without_a_config_is_one_matrix_and_said(tmp_path: Path) -> None:
    stored = {"a.query_key_value.weight": grouped(q, K, V, HEADS), "a.dense.weight": o}
    found = matrices(open_checkpoint(write_checkpoint(tmp_path, stored)))
    assert set(found.places) == set(stored)
    assert "config.json" in found.notes["a.query_key_value.weight"]


def test_whole_tensors_are_as_they_lie(tmp_path: Path) -> None:
    found = matrices(open_checkpoint(write_checkpoint(tmp_path, contiguous(oss))), whole=True)
    assert {name: place.info.shape for name, place in found.places.items()} == {n: w.shape for n, w in oss.items()}


def test_a_place_says_how_it_is_read(tmp_path: Path) -> None:
    places = matrices(open_checkpoint(write_checkpoint(tmp_path, contiguous(oss)))).places
    assert str(places["mlp.experts.2.up_proj.weight"]) == (
        f"mlp.experts.gate_up_proj: expert 2, turned, rows 1:2 of {INNER} groups"
    )


def test_names_are_renamed_unwrapped_and_must_not_meet(tmp_path: Path) -> None:
    stored = {"module.actor.a.weight": gate, "actor.rotary_emb.inv_freq": gate[0].clone()}
    checkpoint = open_checkpoint(write_checkpoint(tmp_path / "one", stored))
    found = matrices(checkpoint, {"module.actor.": "model.", "act": "x."})
    assert list(found.places) == ["model.a.weight"], "a beginning ends at a dot"
    assert found.buffers == {"actor.rotary_emb.inv_freq": "a buffer, not trained"}
    two = {"a.q_proj.weight": q, "a.qkv_proj.weight": torch.cat(square[:3]), "module.b": q, "b": q}
    for names, told in ((list(two)[:2], "is there twice"), (list(two)[2:], "both stand for")):
        folder = write_checkpoint(tmp_path / told.replace(" ", ""), {name: two[name].clone() for name in names})
        with pytest.raises(CheckpointError, match=told):
            matrices(open_checkpoint(folder))
