"""Folders of torch.distributed.checkpoint, written by torch: by one process, and by the writers of several."""

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.default_planner import DefaultSavePlanner
from torch.distributed.tensor import Replicate, Shard

from opdlib.checkpoints import open_checkpoint
from opdlib.errors import CheckpointError
from tests.checkpoints.processes import coordinates, rank_of, sharded
from tests.checkpoints.refusals import Bomb, refused
from tests.conftest import pico_weights, write_checkpoint

pytestmark = pytest.mark.filterwarnings("ignore")  # torch warns of groups that are not there

WEIGHTS = pico_weights() | {"scalar": torch.tensor(2.5), "none": torch.zeros(0, 4), "odd": torch.rand(7, 5)}


def alone(folder: Path, root: str = "model") -> Path:
    """Saved by one process, as accelerate and torchtitan lay it out: with an optimizer and a step beside."""
    optimizer = {"state": {"odd": {"exp_avg": torch.ones(7, 5)}}, "param_groups": [{"lr": 1e-3}]}
    weights = {root: WEIGHTS} if root else WEIGHTS
    dcp.save({**weights, "optimizer": optimizer, "step": 3}, checkpoint_id=folder)
    return folder


def together(folder: Path, mesh: Sequence[int], placements: Sequence[Any]) -> Path:
    """Saved by several processes: torch's own planner and writer of each, and what the first makes of all plans."""
    ranks = []
    weights = {name: weight for name, weight in WEIGHTS.items() if weight.ndim == 2}
    for rank, at in enumerate(coordinates(mesh)):
        with rank_of(rank, mesh) as processes:
            state = {"model": {name: sharded(weight, at, processes, placements) for name, weight in weights.items()}}
            writer, planner = dcp.FileSystemWriter(folder), DefaultSavePlanner()
            writer.set_up_storage_writer(rank == 0)
            planner.set_up_planner(state, writer.storage_meta(), rank == 0)
            ranks.append((writer, planner, writer.prepare_local_plan(planner.create_local_plan())))
    plans, metadata = ranks[0][1].create_global_plan([plan for *_, plan in ranks])
    plans = ranks[0][0].prepare_global_plan(plans)
    results = [
        writer.write_data(planner.finish_plan(plan), planner).wait()
        for (writer, planner, _), plan in zip(ranks, plans, strict=True)
    ]
    ranks[0][0].finish(metadata, results)
    return folder


@pytest.mark.parametrize("root", ["model", "state_dict", ""])
def test_saved_by_one_process(tmp_path: Path, root: str) -> None:
    checkpoint = open_checkpoint(str(alone(tmp_path / "d", root)))
    assert set(checkpoint.tensors) == set(WEIGHTS)
    assert checkpoint.digest() == open_checkpoint(str(write_checkpoint(tmp_path / "s", WEIGHTS))).digest()
    assert checkpoint.origin()["format"] == "torch.distributed.checkpoint"


@pytest.mark.parametrize(
    ("mesh", "placements"), [((3,), [Shard(0)]), ((2, 2), [Shard(0), Shard(1)]), ((2, 2), [Replicate(), Shard(1)])]
)
def test_saved_by_several(tmp_path: Path, mesh: Sequence[int], placements: Sequence[Any]) -> None:
    folder = together(tmp_path / "d", mesh, placements)
    checkpoint = open_checkpoint(str(folder))
    assert len(list(folder.glob("*.distcp"))) > 1
    for name in checkpoint.tensors:
        assert torch.equal(checkpoint.read(name), WEIGHTS[name]), name
    assert len(checkpoint.tensors) == sum(weight.ndim == 2 for weight in WEIGHTS.values())


def test_a_folder_of_the_trainer_around_it(tmp_path: Path) -> None:
    alone(tmp_path / "checkpoint-5" / "pytorch_model_fsdp_0")
    (tmp_path / "checkpoint-5" / "config.json").write_text('{"tie_word_embeddings": true}')
    checkpoint = open_checkpoint(str(tmp_path / "checkpoint-5"))
    assert checkpoint.tied == {"lm_head.weight": "model.embed_tokens.weight"}
    assert set(checkpoint.tensors) == set(WEIGHTS)


def test_metadata_that_want_to_run_something(tmp_path: Path) -> None:
    folder = alone(tmp_path / "d")
    metadata = pickle.loads((folder / ".metadata").read_bytes())
    metadata.planner_data["x"] = Bomb(tmp_path / "canary")
    (folder / ".metadata").write_bytes(pickle.dumps(metadata))
    refused(folder, r"names posix\.mkdir.*nothing was run")
    assert not (tmp_path / "canary").exists()
    pickle.loads((folder / ".metadata").read_bytes())
    assert (tmp_path / "canary").exists(), "the bomb must work, or this test shows nothing"


def test_damaged_folders(tmp_path: Path) -> None:
    folder = alone(tmp_path / "d")
    whole = (folder / ".metadata").read_bytes()
    data = folder / "__0_0.distcp"
    for content in (b"", b"a text", whole[:-20], pickle.dumps({"w": 1})):
        (folder / ".metadata").write_bytes(content)
        refused(folder, "not the metadata of a checkpoint")
    metadata = pickle.loads(whole)
    metadata.state_dict_metadata["model.odd"].chunks[0].sizes = torch.Size([3, 5])
    (folder / ".metadata").write_bytes(pickle.dumps(metadata))
    refused(folder, r"the chunks of model\.odd do not make up \(7, 5\)")
    metadata = pickle.loads(whole)
    for place in metadata.storage_data.values():
        place.relative_path = "../elsewhere"
    (folder / ".metadata").write_bytes(pickle.dumps(metadata))
    refused(folder, "outside the folder")
    (folder / ".metadata").write_bytes(whole)
    content = data.read_bytes()
    data.write_bytes(content[: len(content) // 2])
    checkpoint = open_checkpoint(str(folder))
    with pytest.raises(CheckpointError, match=r"copy or save the file again|copy the folder again"):
        checkpoint.digest()
    data.unlink()
    refused(folder, r"__0_0\.distcp: missing")
    data.write_bytes(content)
    (folder / ".metadata").unlink()
    refused(data, r"without \.metadata beside it")
