"""verl's files, as its FSDP checkpoint manager saves them: the state dict of DTensors of each rank with torch.save."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard
from torch.distributed.tensor.placement_types import _StridedShard

from opdlib.checkpoints import open_checkpoint
from opdlib.errors import CheckpointError
from tests.checkpoints.processes import coordinates, rank_of, sharded
from tests.conftest import pico_weights, write_checkpoint

pytestmark = pytest.mark.filterwarnings("ignore")  # torch warns of groups that are not there

WEIGHTS = pico_weights() | {"odd": torch.arange(35.0).reshape(7, 5), "few": torch.arange(6.0).reshape(3, 2)}


def written(folder: Path, mesh: Sequence[int], placements: Sequence[Any]) -> Path:
    folder.mkdir(parents=True)
    for rank, at in enumerate(coordinates(mesh)):
        with rank_of(rank, mesh) as processes:
            state = {name: sharded(weight, at, processes, placements) for name, weight in WEIGHTS.items()}
            torch.save(state, folder / f"model_world_size_{len(coordinates(mesh))}_rank_{rank}.pt")
        (folder / f"optim_world_size_{len(coordinates(mesh))}_rank_{rank}.pt").write_bytes(b"left alone")
    return folder


LAYOUTS: dict[str, tuple[Sequence[int], Sequence[Any]]] = {
    "one rank": ((1,), [Shard(0)]),
    "uneven": ((4,), [Shard(0)]),
    "columns": ((3,), [Shard(-1)]),
    "copies of shards": ((2, 2), [Replicate(), Shard(0)]),
    "shards of copies": ((2, 2), [Shard(0), Replicate()]),
    "both axes": ((2, 2), [Shard(0), Shard(1)]),
    "twice on one axis": ((2, 3), [Shard(0), Shard(0)]),
    "inner first": ((2, 2), [_StridedShard(0, split_factor=2), Shard(0)]),
    "three dimensions": ((2, 2, 2), [Replicate(), Shard(0), Shard(1)]),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_shards_make_up_the_model(tmp_path: Path, layout: str) -> None:
    mesh, placements = LAYOUTS[layout]
    flat = any(isinstance(p, Shard) and p.dim for p in placements)
    names = {name: weight for name, weight in WEIGHTS.items() if weight.ndim == 2 or not flat}
    folder = tmp_path / "global_step_7" / "actor"
    with pytest.MonkeyPatch.context() as only:
        only.setitem(globals(), "WEIGHTS", names)
        written(folder, mesh, placements)
    checkpoint = open_checkpoint(str(folder.parent))
    assert set(checkpoint.tensors) == set(names)
    for name, weight in names.items():
        assert torch.equal(checkpoint.read(name), weight), name
    assert checkpoint.digest() == open_checkpoint(str(write_checkpoint(tmp_path / "s", names))).digest()
    assert "not read" not in checkpoint.origin()
    assert checkpoint.origin()["format"] == f"verl, {len(coordinates(mesh))} ranks"


def test_the_configuration_lies_below(tmp_path: Path) -> None:
    written(tmp_path / "a", (2,), [Shard(0)])
    (tmp_path / "a" / "huggingface").mkdir()
    (tmp_path / "a" / "huggingface" / "config.json").write_text('{"tie_word_embeddings": true}')
    assert open_checkpoint(str(tmp_path / "a")).tied == {"lm_head.weight": "model.embed_tokens.weight"}


def test_the_folder_of_a_step(tmp_path: Path) -> None:
    written(tmp_path / "actor", (2,), [Shard(0)])
    (tmp_path / "data.pt").write_bytes(b"left alone")
    assert "not read" not in open_checkpoint(str(tmp_path)).origin()


def test_what_cannot_be_put_together(tmp_path: Path) -> None:
    folder = written(tmp_path / "a", (3,), [Shard(0)])
    files = sorted(folder.glob("model_*"))
    refusals = [(files[1], f"the part of one process; give the folder, {folder}")]
    torch.save({"w": torch.ones(2)}, folder / "model_world_size_2_rank_0.pt")
    refusals.append((folder, "files of runs of 2 and of 3 processes"))
    for path, match in refusals:
        with pytest.raises(CheckpointError, match=match):
            open_checkpoint(str(path))
    (folder / "model_world_size_2_rank_0.pt").unlink()
    files[1].rename(folder / "kept")
    with pytest.raises(CheckpointError, match="rank 1 of 3 is missing"):
        open_checkpoint(str(folder))
    (folder / "kept").rename(files[1])
    shutil.copyfile(files[0], files[2])
    with pytest.raises(CheckpointError, match="few in it is of another rank than 2; copy the file again"):
        open_checkpoint(str(folder)).read("few")
    with rank_of(2, (3,)) as processes:
        much = DTensor.from_local(torch.ones(3, 5), processes, [Shard(0)], run_check=False, shape=(7, 5), stride=(5, 1))
        torch.save(torch.load(files[1], weights_only=False) | {"odd": much}, files[2])
    with pytest.raises(CheckpointError, match=r"its shard of odd is \(3, 5\), the mesh leaves \(1, 5\)"):
        open_checkpoint(str(folder)).read("odd")
    torch.save({"w": torch.ones(2)}, files[2])
    with pytest.raises(CheckpointError, match="differs from rank 0 in"):
        open_checkpoint(str(folder))
    sums = written(tmp_path / "b", (2,), [Partial()])
    with pytest.raises(CheckpointError, match="is placed as"):
        open_checkpoint(str(sums)).read("odd")


def test_a_file_that_is_cut_short_is_said_to_have_changed(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(str(written(tmp_path / "actor", (2,), [Shard(0)])))
    os.truncate(tmp_path / "actor" / "model_world_size_2_rank_1.pt", 5000)
    with pytest.raises(CheckpointError, match="was changed while it was read"):
        checkpoint.read("odd")
