"""Files of torch.save, written by torch and, for the Trainer's folder, by transformers."""

import json
import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from opdlib.checkpoints import open_checkpoint, pickled
from opdlib.checkpoints.checkpoint import TensorInfo
from opdlib.errors import CheckpointError
from tests.checkpoints.refusals import Bomb, refused
from tests.conftest import pico_weights, write_checkpoint

WEIGHTS = pico_weights() | {"scalar": torch.tensor(2.5), "none": torch.zeros(0, 4), "ids": torch.arange(5)}


def saved(folder: Path, content: Any, name: str = "pytorch_model.bin", **how: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(content, folder / name, **how)
    return folder / name


def sharded(folder: Path, shards: int = 3) -> Path:
    """As transformers 4 wrote large models."""
    weight_map = {}
    for number in range(shards):
        name = f"pytorch_model-{number + 1:05d}-of-{shards:05d}.bin"
        own = dict([*WEIGHTS.items()][number::shards])
        saved(folder, own, name)
        weight_map |= dict.fromkeys(own, name)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return folder


class Trained(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = torch.nn.Parameter(torch.ones(2, 3))


LAYOUTS: dict[str, Callable[[Path], Path]] = {
    "a folder": lambda at: saved(at, WEIGHTS).parent,
    "a file": lambda at: saved(at, WEIGHTS, "model.pt"),
    "another name": lambda at: saved(at, WEIGHTS, "weights.pth").parent,
    "an ordered dict": lambda at: saved(at, OrderedDict(WEIGHTS)),
    "parameters": lambda at: saved(
        at, {n: torch.nn.Parameter(w, requires_grad=w.is_floating_point()) for n, w in WEIGHTS.items()}
    ),
    "columns first": lambda at: saved(
        at, {n: w.t().contiguous().t() if w.ndim == 2 else w for n, w in WEIGHTS.items()}
    ),
    "of torch before 1.6": lambda at: saved(at, WEIGHTS, _use_new_zipfile_serialization=False),
    "model": lambda at: saved(at, {"model": WEIGHTS, "optimizer": {"state": {0: torch.ones(3)}}, "step": 7}),
    "state_dict": lambda at: saved(at, {"state_dict": WEIGHTS, "epoch": 1}, "epoch.ckpt"),
    "deep": lambda at: saved(at, {"app": {"model": WEIGHTS, "step": torch.tensor(1)}}),
    "shards": sharded,
    "an index": lambda at: sharded(at) / "pytorch_model.bin.index.json",
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_was_saved_is_read(tmp_path: Path, layout: str) -> None:
    checkpoint = open_checkpoint(str(LAYOUTS[layout](tmp_path / "m")))
    assert set(checkpoint.tensors) == set(WEIGHTS)
    assert checkpoint.tensors["model.embed_tokens.weight"] == TensorInfo((40, 16), "BF16")
    assert checkpoint.origin()["format"] == "torch"
    plain = open_checkpoint(str(write_checkpoint(tmp_path / "s", WEIGHTS)))
    assert checkpoint.digest() == plain.digest()
    for name, weight in WEIGHTS.items():
        assert torch.equal(checkpoint.read(name), weight)


def test_what_was_read_leaves_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickled, "RENEWED", 4096)
    loads = []
    real = pickled.load
    monkeypatch.setattr(pickled, "load", lambda path, allowed: loads.append(path) or real(path, allowed))
    checkpoint = open_checkpoint(str(saved(tmp_path, WEIGHTS)))
    for name, weight in WEIGHTS.items():
        assert torch.equal(checkpoint.read(name), weight)
    size = sum(w.nbytes for w in WEIGHTS.values())
    assert size / 8192 < len(loads) - 1 < size / 2048


def test_a_copy_in_another_process_reads_on(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(str(saved(tmp_path, WEIGHTS)))
    assert pickle.loads(pickle.dumps(checkpoint)).digest() == checkpoint.digest()


def test_an_output_folder_of_the_trainer(tmp_path: Path) -> None:
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth", "scaler.pt", "training_args.bin"):
        (tmp_path / "checkpoint-20").mkdir(exist_ok=True)
        (tmp_path / "checkpoint-20" / name).write_bytes(b"left alone")
    saved(tmp_path / "checkpoint-20", WEIGHTS)
    assert len(open_checkpoint(str(tmp_path / "checkpoint-20")).tensors) == len(WEIGHTS)
    with pytest.raises(CheckpointError, match=r"no weights, but 1 checkpoints; name one, such as .*checkpoint-20"):
        open_checkpoint(str(tmp_path))
    (tmp_path / "checkpoint-20").rename(tmp_path / "final")
    with pytest.raises(CheckpointError, match=r"no weights in this folder itself; give one that is in it, .*final"):
        open_checkpoint(str(tmp_path))
    (tmp_path / "final").rename(tmp_path / "checkpoint-20")
    (tmp_path / "checkpoint-20" / "pytorch_model.bin").unlink()
    with pytest.raises(CheckpointError, match="no weights in this folder"):
        open_checkpoint(str(tmp_path / "checkpoint-20"))


def test_safetensors_win_and_this_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_checkpoint(tmp_path, pico_weights(seed=1))
    alone = open_checkpoint(str(tmp_path)).origin()
    assert "not read" not in alone
    saved(tmp_path, WEIGHTS)
    both = open_checkpoint(str(tmp_path)).origin()
    assert both == alone | {"not read": "pytorch_model.bin, *.pt, *.pth"}
    (said,) = caplog.messages
    assert said == f"{tmp_path}: *.safetensors is read, not what lies beside it: pytorch_model.bin, *.pt, *.pth"


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_wants_more_is_refused_and_never_run(tmp_path: Path, zipped: bool) -> None:
    canary = tmp_path / "canary"
    content = WEIGHTS | {"more": Bomb(canary)}
    file = saved(tmp_path / "m", content, _use_new_zipfile_serialization=zipped)
    refused(file, "posix.mkdir.*nothing of it was run")
    assert not canary.exists()
    torch.load(file, weights_only=False)
    assert canary.exists(), "the bomb must work, or this test shows nothing"


REFUSED: dict[str, tuple[Any, str]] = {
    "a whole module": (Trained(), "wants more than weights .*Trained"),
    "a list": ([torch.ones(2)], "no weights in it \\(list\\)"),
    "an optimizer": ({"state": {0: torch.ones(2)}, "param_groups": []}, "no weights in it \\(keys state, param_groups"),
    "two models": ({"model": WEIGHTS, "module": WEIGHTS}, "weights under model and module"),
    "numbers for names": ({0: torch.ones(2)}, "no weights in it"),
    "sparse": ({"w": torch.eye(3).to_sparse()}, "w is a Tensor of layout torch.sparse_coo"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_state_dict(tmp_path: Path, what: str) -> None:
    content, match = REFUSED[what]
    refused(saved(tmp_path, content), match)


def test_damaged_files(tmp_path: Path) -> None:
    file = saved(tmp_path, WEIGHTS)
    whole = file.read_bytes()
    for content in (b"", b"a text", b"PK\x03\x04", whole[:100], whole[: len(whole) // 2], whole[:-1]):
        file.write_bytes(content)
        refused(file, "not a whole pickle|wants more than weights")


def test_a_shard_that_is_missing_or_another(tmp_path: Path) -> None:
    folder = sharded(tmp_path)
    (folder / "pytorch_model-00002-of-00003.bin").rename(folder / "gone")
    refused(folder, "missing, though pytorch_model.bin.index.json lists it")
    (folder / "pytorch_model.bin.index.json").unlink()
    refused(folder, "shard 2 of 3 is missing")
    saved(folder, {"w": torch.ones(2)}, "pytorch_model-00002-of-00003.bin")
    assert "w" in open_checkpoint(str(folder)).tensors


def test_a_dtype_that_nobody_knows(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(str(saved(tmp_path, {"w": torch.ones(2, dtype=torch.complex64)})))
    with pytest.raises(CheckpointError, match=r"stored as torch\.complex64"):
        checkpoint.read("w")
