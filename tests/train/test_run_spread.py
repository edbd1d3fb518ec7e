"""Runs on two processes of this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from opdlib.errors import RecipeError
from opdlib.train.run import train

pytestmark = pytest.mark.slow

SPREAD = """
import sys
from pathlib import Path
import torch
from opdlib.train.processes import PATIENCE
from opdlib.train.run import train
train(Path(sys.argv[1]), out=Path(sys.argv[2]))
assert torch.distributed.get_world_size() == 2
group = torch.distributed.group.WORLD._get_backend(torch.device("cpu"))
assert group.options._timeout == PATIENCE, group.options._timeout
"""


def spread(recipe: Path, out: Path, script: Path) -> subprocess.CompletedProcess[str]:
    """The run on two processes of this machine."""
    script.write_text(SPREAD)
    # accelerate's own launcher starts a single process where there is no GPU.
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    command = [*launch, str(script), str(recipe), str(out)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_two_processes_share_a_batch(tmp_path: Path, write_recipe: Callable[..., Path]) -> None:
    """With data that are given, two halves of a batch make the same steps as the whole."""
    recipe = write_recipe(tmp_path, "sft", precision="fp32", optimizer="sgd", accumulate=2)
    alone = train(recipe, out=tmp_path / "alone")
    done = spread(recipe, tmp_path / "shared", tmp_path / "launched.py")
    assert done.returncode == 0, done.stderr
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
