import pytest
from hypothesis import given
from hypothesis import strategies as st

from opdlib.checkpoints.names import BLOCKS, PARTS, bare, canonical, is_buffer, module_order, parse, unwrapped


@pytest.mark.parametrize(
    ("name", "layer", "module", "block", "part"),
    [
        ("model.embed_tokens.weight", None, "embed_tokens", "embedding", "language"),
        ("lm_head.weight", None, "lm_head", "lm_head", "language"),
        ("model.norm.weight", None, "norm", "norm", "language"),
        ("model.layers.0.self_attn.q_proj.weight", 0, "q_proj", "attention", "language"),
        ("model.layers.11.self_attn.k_proj.bias", 11, "k_proj", "attention", "language"),
        ("model.layers.3.self_attn.q_norm.weight", 3, "q_norm", "norm", "language"),
        ("model.layers.3.self_attn.qkv_proj.weight", 3, "qkv_proj", "attention", "language"),
        ("model.layers.3.mlp.gate_up_proj.weight", 3, "gate_up_proj", "mlp", "language"),
        ("model.layers.3.mlp.down_proj.weight", 3, "down_proj", "mlp", "language"),
        ("model.layers.3.mlp.gate.weight", 3, "gate", "router", "language"),
        ("model.layers.3.mlp.gate.e_score_correction_bias", 3, "e_score_correction_bias", "router", "language"),
        ("model.layers.3.mlp.shared_expert_gate.weight", 3, "shared_expert_gate", "router", "language"),
        ("model.layers.3.block_sparse_moe.router.layer.weight", 3, "layer", "router", "language"),
        ("model.layers.3.mlp.router.bias", 3, "router", "router", "language"),
        ("model.layers.3.block_sparse_moe.experts.2.w1.weight", 3, "gate_proj", "mlp", "language"),
        ("model.layers.3.self_attn.gate.weight", 3, "gate", "attention", "language"),
        ("model.layers.3.input_layernorm.weight", 3, "input_layernorm", "norm", "language"),
        ("model.layers.3.linear_attn.in_proj_qkvz.weight", 3, "in_proj_qkvz", "attention", "language"),
        ("model.layers.3.linear_attn.A_log", 3, "A_log", "attention", "language"),
        ("model.layers.3.self_attn.kv_b_proj.weight", 3, "kv_b_proj", "attention", "language"),
        ("model.layers.3.self_attn.kv_a_layernorm.weight", 3, "kv_a_layernorm", "norm", "language"),
        ("h.2.attn.c_proj.weight", 2, "c_proj", "attention", "language"),
        ("h.2.mlp.c_proj.weight", 2, "c_proj", "mlp", "language"),
        ("h.2.ln_1.weight", 2, "ln_1", "norm", "language"),
        ("visual.blocks.7.attn.qkv.weight", 7, "qkv", "attention", "vision"),
        ("model.visual.blocks.7.mlp.up_proj.weight", 7, "up_proj", "mlp", "vision"),
        ("visual.merger.mlp.0.weight", None, "0", "mlp", "vision"),
        ("model.language_model.layers.5.mlp.up_proj.weight", 5, "up_proj", "mlp", "language"),
        ("something.new.weight", None, "new", "other", "language"),
        ("transformer.word_embeddings.weight", None, "word_embeddings", "embedding", "language"),
        ("embed_out.weight", None, "embed_out", "lm_head", "language"),
        ("model.output.weight", None, "output", "lm_head", "language"),
        ("layers.1.attention.output.weight", 1, "output", "attention", "language"),
    ],
)
def test_what_a_name_says(name: str, layer: int | None, module: str, block: str, part: str) -> None:
    param = parse(name)
    assert (param.layer, param.module, param.block, param.part) == (layer, module, block, part)


def test_experts_are_numbered_and_the_vision_part_is_its_own_block() -> None:
    param = parse("model.layers.4.mlp.experts.17.down_proj.weight")
    assert (param.layer, param.expert, param.module, param.block) == (4, 17, "down_proj", "mlp")
    assert parse("model.layers.4.mlp.experts.gate_up_proj").expert is None
    assert parse("visual.blocks.0.norm1.weight").summary_block == "vision"
    assert parse("model.norm.weight").summary_block == "norm"


@pytest.mark.parametrize(
    ("name", "meaning"),
    [
        ("model.language_model.layers.0.mlp.up_proj.weight", "model.layers.0.mlp.up_proj.weight"),
        ("language_model.model.layers.0.mlp.up_proj.weight", "model.layers.0.mlp.up_proj.weight"),
        ("language_model.lm_head.weight", "lm_head.weight"),
        ("model.visual.blocks.0.attn.qkv.weight", "visual.blocks.0.attn.qkv.weight"),
        ("model.layers.0.mlp.up_proj.weight", "model.layers.0.mlp.up_proj.weight"),
    ],
)
def test_known_prefixes(name: str, meaning: str) -> None:
    assert canonical(name) == meaning


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("model.layers.0.mlp.up_proj.weight", "layers.0.mlp.up_proj.weight"),
        ("model.language_model.layers.0.mlp.up_proj.weight", "layers.0.mlp.up_proj.weight"),
        ("transformer.h.0.attn.c_proj.weight", "h.0.attn.c_proj.weight"),
        ("model.layers.0.block_sparse_moe.experts.1.w3.weight", "model.layers.0.mlp.experts.1.up_proj.weight"),
        ("model.layers.0.block_sparse_moe.router.layer.weight", "model.layers.0.block_sparse_moe.router.weight"),
    ],
)
def test_two_names_of_one_parameter(name: str, other: str) -> None:
    assert bare(name) == bare(other)


@pytest.mark.parametrize(
    "name",
    [
        "module.model.norm.weight",
        "_orig_mod.model.norm.weight",
        "module._orig_mod.model.norm.weight",
        "_fsdp_wrapped_module.model._fsdp_wrapped_module.norm._checkpoint_wrapped_module.weight",
        "pretrained_model.model.norm.weight",
        "base_model.model.model.norm.weight",
    ],
)
def test_what_trainers_wrap_around_a_name_is_taken_off(name: str) -> None:
    assert unwrapped(name) == "model.norm.weight"


def test_buffers_are_known_by_name() -> None:
    assert is_buffer("model.layers.0.self_attn.rotary_emb.inv_freq", 1)
    assert is_buffer("vision_model.embeddings.position_ids", 2)
    assert is_buffer("h.0.attn.bias", 4)
    assert not is_buffer("h.0.attn.bias", 1)
    assert not is_buffer("wpe.weight", 2)


@given(st.text(alphabet="abz._0123456789", max_size=40))
def test_any_string_is_a_name(name: str) -> None:
    param = parse(name)
    assert param.block in BLOCKS
    assert param.part in PARTS
    assert param.name == name
    assert canonical(canonical(name)) == canonical(name)


def test_modules_come_in_the_order_of_a_block() -> None:
    assert module_order(["zeta", "down_proj", "q_proj", "gate_proj", "q_proj", "alpha"]) == [
        *("q_proj", "gate_proj", "down_proj", "alpha", "zeta")
    ]
