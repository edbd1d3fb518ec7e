"""Runs on two processes of this machine."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from opdlib.errors import RecipeError
from opdlib.train.processes import PATIENCE
from opdlib.train.run import train
from tests.train.killed import exit_codes

pytestmark = pytest.mark.slow


def share(rank: int, port: int, recipe: Path, out: Path) -> None:
    """Train as one of two processes, told so as launchers do."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true"}
    train(recipe, out=out)
    assert torch.distributed.get_world_size() == 2
    group = torch.distributed.group.WORLD._get_backend(torch.device("cpu"))
    assert group.options._timeout == PATIENCE, group.options._timeout
    torch.distributed.destroy_process_group()


def test_two_processes_share_a_batch(tmp_path: Path, write_recipe: Callable[..., Path]) -> None:
    """With data that are given, two halves of a batch make the same steps as the whole."""
    recipe = write_recipe(tmp_path, "sft", precision="fp32", optimizer="sgd", accumulate=2)
    alone = train(recipe, out=tmp_path / "alone")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert exit_codes(share, *((rank, port, recipe, tmp_path / "shared") for rank in (0, 1))) == [0, 0]
    folders = alone, tmp_path / "shared"
    assert [len((folder / "metrics.jsonl").read_text().splitlines()) for folder in folders] == [6, 6]
    one, two = (load_file(folder / "fp32" / "model.safetensors") for folder in folders)
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=1e-4, atol=1e-6)
    assert not (tmp_path / "shared" / "checkpoints").exists()


def test_what_several_processes_cannot_do_is_refused(
    tmp_path: Path, write_recipe: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    refused = [
        ({"gradient": "zero", "accumulate": 2}, "gradient works on one process, found 2"),
        ({}, "accumulate is 1; wanted a multiple of the 2 processes"),
    ]
    for changes, message in refused:
        with pytest.raises(RecipeError, match=message):
            train(write_recipe(tmp_path, "opd", **changes), out=tmp_path / "run")
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(RecipeError, match="probe_every cannot see weights that FSDP has sharded"):
        train(write_recipe(tmp_path, "opd", probe_every=1, accumulate=2), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
