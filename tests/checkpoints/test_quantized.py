"""Quantized weights: fp8 and MXFP4 as transformers' own functions read them, packed integers refused by name."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from opdlib.checkpoints import open_checkpoint
from opdlib.errors import CheckpointError

DRAW = torch.Generator().manual_seed(0)


def saved(folder: Path, weights: dict[str, torch.Tensor], **quantization: object) -> Path:
    folder.mkdir(exist_ok=True)
    save_file(weights, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"quantization_config": quantization}))
    return folder


def fp8(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=DRAW).to(torch.float8_e4m3fn)


def test_fp8_in_blocks_as_transformers_dequantizes_it(tmp_path: Path) -> None:
    from transformers.integrations.finegrained_fp8 import Fp8Dequantize

    weight, scale = fp8(96, 64), torch.rand(3, 2, generator=DRAW)
    weights = {
        "a.weight": weight,
        "a.weight_scale_inv": scale,
        "a.input_scale": torch.ones(()),
        "b.weight": scale.clone(),
    }
    checkpoint = open_checkpoint(str(saved(tmp_path / "m", weights, weight_block_size=[32, 32])))
    assert {name: info.dtype for name, info in checkpoint.tensors.items()} == {"a.weight": "F32", "b.weight": "F32"}
    found = checkpoint.read("a.weight")
    theirs = Fp8Dequantize(None)._dequantize_one(weight, scale, torch.float32)
    assert torch.equal(found, theirs)
    assert torch.equal(found[40:41, 33:34], weight.float()[40:41, 33:34] * scale[1, 1])
    assert torch.equal(checkpoint.read("b.weight"), scale)
    assert checkpoint.origin()["format"] == "safetensors, dequantized from fp8"


@pytest.mark.parametrize(
    ("shape", "scales", "whole"),
    [
        ((5, 6), (), (1, 1)),
        ((5, 6), (1,), (1, 1)),
        ((5, 6), (5, 1), (5, 1)),
        ((5, 6), (5,), (5, 1)),
        ((3, 5, 6), (3, 1, 1), (3, 1, 1)),
    ],
)
def test_fp8_with_one_scale_a_tensor_a_row_or_an_expert(
    tmp_path: Path, shape: tuple[int, ...], scales: tuple[int, ...], whole: tuple[int, ...]
) -> None:
    weight, scale = fp8(*shape), torch.rand(scales, generator=DRAW)
    checkpoint = open_checkpoint(str(saved(tmp_path, {"a.weight": weight, "a.weight_scale": scale})))
    assert torch.equal(checkpoint.read("a.weight"), weight.float() * scale.reshape(whole))


def test_fp8_whose_last_blocks_are_cut(tmp_path: Path) -> None:
    weight, scale = fp8(130, 200), torch.rand(2, 2, generator=DRAW)
    checkpoint = open_checkpoint(str(saved(tmp_path, {"a.weight": weight, "a.weight_scale_inv": scale})))
    found = checkpoint.read("a.weight")
    for rows, i in ((slice(0, 128), 0), (slice(128, 130), 1)):
        for columns, j in ((slice(0, 128), 0), (slice(128, 200), 1)):
            assert torch.equal(found[rows, columns], weight[rows, columns].float() * scale[i, j])


def test_mxfp4_as_transformers_dequantizes_it(tmp_path: Path) -> None:
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors

    blocks = torch.randint(0, 256, (3, 8, 2, 16), generator=DRAW, dtype=torch.uint8)
    scales = torch.randint(120, 130, (3, 8, 2), generator=DRAW, dtype=torch.uint8)
    name = "model.layers.0.mlp.experts.gate_up_proj"
    bias = torch.zeros(3, 8).bfloat16()
    weights = {f"{name}_blocks": blocks, f"{name}_scales": scales, f"{name}_bias": bias}
    checkpoint = open_checkpoint(str(saved(tmp_path, weights, quant_method="mxfp4")))
    assert set(checkpoint.tensors) == {name, f"{name}_bias"}
    found = checkpoint.read(name)
    assert checkpoint.tensors[name].shape == found.shape == (3, 64, 8)
    assert torch.equal(found, convert_moe_packed_tensors(blocks, scales))
    steps = (0, 0.5, 1, 1.5, 2, 3, 4, 6)
    low = int(blocks[1, 5, 1, 7]) & 15
    value = (-1 if low & 8 else 1) * steps[low & 7] * 2.0 ** (int(scales[1, 5, 1]) - 127)
    assert found[1, 32 + 2 * 7, 5] == value
    assert checkpoint.origin()["format"] == "safetensors, dequantized from MXFP4"


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("a.qweight", r"packed by GPTQ or AWQ; install gptqmodel \(GPTQ\) or autoawq \(AWQ\)"),
        ("a.weight_packed", "packed by compressed-tensors"),
        ("a.weight.absmax", "packed by bitsandbytes 4-bit; install bitsandbytes"),
        ("a.SCB", "packed by bitsandbytes int8"),
    ],
)
def test_packed_integers_are_refused_by_name(tmp_path: Path, name: str, match: str) -> None:
    folder = saved(tmp_path, {name: torch.zeros(2, 2, dtype=torch.int32), "norm.weight": torch.ones(2)})
    with pytest.raises(CheckpointError, match=match) as caught:
        open_checkpoint(str(folder))
    assert "\n" not in str(caught.value)


def test_scales_that_do_not_fit(tmp_path: Path) -> None:
    folder = saved(tmp_path, {"a.weight": fp8(64, 64), "a.weight_scale_inv": torch.ones(3, 2)})
    with pytest.raises(CheckpointError, match=r"with scales \(3, 2\), wanted \(1, 1\)"):
        open_checkpoint(str(folder)).read("a.weight")
    blocks = {"x_blocks": torch.zeros(2, 4, 2, 16, dtype=torch.uint8), "x_scales": torch.zeros(2, 4, dtype=torch.uint8)}
    with pytest.raises(CheckpointError, match="x has blocks"):
        open_checkpoint(str(saved(tmp_path / "b", blocks)))


def test_fp8_without_scales_is_left_as_it_is(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(str(saved(tmp_path, {"a.weight": fp8(4, 4)})))
    assert checkpoint.tensors["a.weight"].dtype == "F8_E4M3"
    assert checkpoint.origin()["format"] == "safetensors"
