"""Noise as large as an update: its norm, tensor by tensor, and nothing else of it."""

from pathlib import Path

import pytest
import torch

from opdlib.checkpoints import open_checkpoint
from opdlib.measurement.noise import noise, noised
from tests.conftest import Command, moved, pico_weights, write_checkpoint


def norms(source: Path, other: Path) -> dict[str, float]:
    one, two = open_checkpoint(source), open_checkpoint(other)
    return {name: float((two.read(name).double() - one.read(name).double()).norm()) for name in one.tensors}


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    source = pico_weights()
    trained = moved(source, scale=1e-3) | {"model.norm.weight": source["model.norm.weight"]}
    return write_checkpoint(tmp_path / "source", source), write_checkpoint(tmp_path / "trained", trained)


def test_every_tensor_has_the_norm_of_the_update(pair: tuple[Path, Path], tmp_path: Path) -> None:
    relative = noise(open_checkpoint(pair[0]), open_checkpoint(pair[1]), tmp_path / "noise")
    wanted, found = norms(*pair), norms(pair[0], tmp_path / "noise")
    large = [name for name, info in open_checkpoint(pair[0]).tensors.items() if info.numel >= 128]
    assert {name: found[name] for name in large} == pytest.approx({name: wanted[name] for name in large}, rel=0.02)
    assert found["model.norm.weight"] == 0, "what did not move in the update does not move here"
    source = open_checkpoint(pair[0])
    whole = sum(float(source.read(name).double().square().sum()) for name in source.tensors)
    assert relative == pytest.approx((sum(x**2 for x in found.values()) / whole) ** 0.5)
    one, other = (open_checkpoint(path).read("model.embed_tokens.weight") for path in (pair[1], tmp_path / "noise"))
    assert not torch.equal(one, other)


def test_it_is_drawn_from_the_seed(opd: Command, pair: tuple[Path, Path], tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        done = opd("noise", *pair, tmp_path / name, "--seed", seed)
        assert done.returncode == 0, done.stderr
    digests = [open_checkpoint(tmp_path / name).digest() for name in "abc"]
    assert digests[0] == digests[1] != digests[2]


def test_a_single_step_of_the_grid() -> None:
    """Of weights that are 1, a change of norm 2^-7 is one weight that moved one step up."""
    before = torch.ones(64, dtype=torch.bfloat16)
    draw = torch.linspace(-0.1, 1.0, 64, dtype=torch.float64)
    found = noised(before, 2.0**-7, draw)
    assert float((found.double() - 1).norm()) == pytest.approx(2.0**-7, rel=0.5)
    assert torch.equal(noised(before, 0.0, draw), before)
