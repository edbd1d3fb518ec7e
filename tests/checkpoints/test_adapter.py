"""LoRA adapters, written, merged and saved by PEFT over models of transformers."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from opdlib.checkpoints import open_checkpoint
from opdlib.errors import CheckpointError
from opdlib.measurement.align import align
from tests.conftest import pico_weights, write_checkpoint

pytestmark = pytest.mark.filterwarnings("ignore")  # PEFT warns of what it decides itself


def llama(tied: bool, dtype: torch.dtype) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = LlamaConfig(**sizes, num_key_value_heads=2, vocab_size=40, tie_word_embeddings=tied)
    return LlamaForCausalLM(config).to(dtype)


def gpt2(tied: bool, dtype: torch.dtype) -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(vocab_size=40, n_positions=16, n_embd=16, n_layer=2, n_head=4)).to(dtype)


def lora(**options: Any) -> Any:
    from peft import LoraConfig

    common = {"r": 4, "lora_alpha": 12, "target_modules": ["q_proj", "v_proj", "down_proj"]}
    return LoraConfig(**(common | options))


def adapted(
    at: Path, config: Any, model: Any = llama, dtype: torch.dtype = torch.float32, tied: bool = False, larger: int = 0
) -> Path:
    """Folders `base`, `adapter` and `merged`, of an adapter in which every tensor was trained; tokens may be new."""
    from peft import get_peft_model

    base = model(tied, dtype)
    base.save_pretrained(at / "base")
    if larger:
        base.resize_token_embeddings(base.config.vocab_size + larger, mean_resizing=False)
    wrapped = get_peft_model(base, config)
    wrapped.peft_config["default"].base_model_name_or_path = str(at / "base")
    generator = torch.Generator().manual_seed(1)
    for parameter in wrapped.parameters():
        if parameter.requires_grad:
            parameter.data += 0.02 * torch.randn(parameter.shape, generator=generator).to(parameter.dtype)
    wrapped.save_pretrained(at / "adapter")
    wrapped.merge_and_unload().save_pretrained(at / "merged")
    return at


CASES: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any]]] = {
    "plain": ({}, {}),
    "rank-stabilized": ({"use_rslora": True}, {}),
    "ranks and alphas": ({"rank_pattern": {"q_proj": 2, r"layers\.1\.mlp\..*": 8}, "alpha_pattern": {"v_proj": 5}}, {}),
    "over bf16": ({}, {"dtype": torch.bfloat16}),
    "with a whole head": ({"modules_to_save": ["lm_head"]}, {}),
    "with an embedding": ({"target_modules": ["embed_tokens", "q_proj"]}, {}),
    "with biases": ({"bias": "all", "target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": True}, {"model": gpt2}),
    "input x output": ({"target_modules": ["c_attn", "c_fc", "c_proj"], "fan_in_fan_out": True}, {"model": gpt2}),
    "tied": ({}, {"tied": True}),
    "of a larger vocabulary": ({"modules_to_save": ["embed_tokens", "lm_head"]}, {"larger": 3}),
}


@pytest.mark.parametrize("case", CASES)
def test_merged_here_and_merged_by_peft_are_the_same(tmp_path: Path, case: str) -> None:
    options, how = CASES[case]
    adapted(tmp_path, lora(**options), **how)
    ours, theirs = open_checkpoint(str(tmp_path / "adapter")), open_checkpoint(str(tmp_path / "merged"))
    assert set(ours.tensors) == set(theirs.tensors)
    base = open_checkpoint(str(tmp_path / "base"))
    changed = 0
    for name, info in theirs.tensors.items():
        own = ours.read(name)
        assert (own.dtype, own.shape) == (torch.float32 if name in ours._products else own.dtype, info.shape)  # type: ignore[attr-defined]
        assert torch.equal(own.to(theirs.read(name).dtype), theirs.read(name)), name
        changed += name in base.tensors and not torch.equal(own.float(), base.read(name).float())
    assert changed >= 3
    assert ours.tied == theirs.tied
    assert ours.beside == (), "its own file is nothing else"
    assert {key: ours.origin()[key] for key in ("format", "base")} == {
        "format": "LoRA over safetensors",
        "base": str(tmp_path / "base"),
    }


def test_a_head_of_its_own_over_a_tied_base_is_compared_with_the_embedding(tmp_path: Path) -> None:
    adapted(tmp_path, lora(modules_to_save=["lm_head"]), tied=True)
    found = align(*(open_checkpoint(str(tmp_path / name)) for name in ("base", "adapter")))
    assert "compared with model.embed_tokens.weight" in found.notes["lm_head.weight"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return adapted(tmp_path_factory.mktemp("plain"), lora())


def copied(folders: Path, to: Path, **changes: Any) -> Path:
    """The plain adapter with another configuration."""
    to.mkdir()
    config = json.loads((folders / "adapter" / "adapter_config.json").read_text()) | changes
    (to / "adapter_config.json").write_text(json.dumps(config))
    save_file(load_file(folders / "adapter" / "adapter_model.safetensors"), to / "adapter_model.safetensors")
    return to


def test_the_change_has_the_rank_of_the_adapter(folders: Path) -> None:
    base, trained = (open_checkpoint(str(folders / name)) for name in ("base", "adapter"))
    name = "model.layers.0.self_attn.q_proj.weight"
    singular = torch.linalg.svdvals(trained.read(name).double() - base.read(name).double())
    assert singular[3] > 1e4 * singular[4]


def test_every_way_to_name_it(folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = open_checkpoint(str(folders / "adapter")).digest()
    adapter = folders / "adapter"
    specs = [f"lora:{adapter}", f"lora:{adapter}@{folders / 'base'}", str(adapter / "adapter_model.safetensors")]
    beside = copied(folders, tmp_path / "a", base_model_name_or_path="../base")
    (tmp_path / "base").symlink_to(folders / "base")
    assert {open_checkpoint(spec).digest() for spec in [*specs, str(beside)]} == {wanted}
    pickled = copied(folders, tmp_path / "b")
    torch.save(load_file(pickled / "adapter_model.safetensors"), pickled / "adapter_model.bin")
    (pickled / "adapter_model.safetensors").unlink()
    (pickled / "optimizer.pt").write_bytes(b"left alone")
    assert open_checkpoint(str(pickled)).digest() == wanted


REFUSED: Mapping[str, tuple[Mapping[str, Any], str]] = {
    "dora": ({"use_dora": True}, "DoRA .*merge it with PEFT"),
    "pissa": ({"init_lora_weights": "pissa_niter_4"}, "'pissa_niter_4' trains over a changed base"),
    "another method": ({"peft_type": "IA3"}, "kind IA3, of which only LORA"),
    "experts as parameters": ({"target_parameters": ["mlp.experts.down_proj"]}, "sets target_parameters"),
    "what is not known yet": ({"use_tomorrow": 3}, "sets use_tomorrow, which plain LoRA has not"),
    "tokens": ({"trainable_token_indices": [1, 2]}, "sets trainable_token_indices"),
    "another rank": ({"r": 8}, "where adapter_config.json says rank 8"),
    "no base": ({"base_model_name_or_path": None}, "names no base.*give it: lora:ADAPTER@BASE"),
    "a base that is not there": ({"base_model_name_or_path": "./gone"}, "base cannot be opened.*lora:ADAPTER@BASE"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_plain_lora_is_refused_by_name(folders: Path, tmp_path: Path, case: str) -> None:
    changes, match = REFUSED[case]
    folder = copied(folders, tmp_path / "a", **changes)
    with pytest.raises(CheckpointError, match=match) as caught:
        open_checkpoint(str(folder))
    assert "\n" not in str(caught.value)


def test_adapters_that_do_not_fit(folders: Path, tmp_path: Path) -> None:
    folder = copied(folders, tmp_path / "a")
    pico = write_checkpoint(tmp_path / "pico", {"model.norm.weight": torch.ones(16)})
    with pytest.raises(CheckpointError, match="has no tensor for; give the base"):
        open_checkpoint(f"lora:{folder}@{pico}")
    wide = {name: w.repeat(2, 1) if w.ndim == 2 else w for name, w in pico_weights().items()}
    with pytest.raises(CheckpointError, match=r"adds a \(16, 24\) matrix to .* which is \(32, 24\)"):
        open_checkpoint(f"lora:{folder}@{write_checkpoint(tmp_path / 'wide', wide)}")
    tensors = load_file(folder / "adapter_model.safetensors")
    half = {name: w for name, w in tensors.items() if "lora_A" not in name}
    save_file(half, folder / "adapter_model.safetensors")
    with pytest.raises(CheckpointError, match=r"has only .*lora_B"):
        open_checkpoint(str(folder))
    save_file(tensors | {"x.lora_magnitude_vector": torch.ones(1)}, folder / "adapter_model.safetensors")
    with pytest.raises(CheckpointError, match=r"holds x\.lora_magnitude_vector, which plain LoRA has not"):
        open_checkpoint(str(folder))
    write_checkpoint(folder, pico_weights())
    with pytest.raises(CheckpointError, match=r"which may be two checkpoints; give .*model\.safetensors"):
        open_checkpoint(str(folder))
    (folder / "adapter_model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"without adapter_model\.safetensors"):
        open_checkpoint(f"lora:{folder}@{pico}")
    with pytest.raises(CheckpointError, match=r"no adapter_config\.json in"):
        open_checkpoint(f"lora:{pico}")
