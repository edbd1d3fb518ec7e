"""A training measured step by step, against the numbers of `opd measure` and plain numpy."""

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from opdlib.checkpoints import open_checkpoint
from opdlib.checkpoints.checkpoint import Checkpoint
from opdlib.errors import RegistryError
from opdlib.measurement.schedule import measure_pair
from opdlib.quantities import flat
from opdlib.results import trajectory as stored
from opdlib.results.study import ALONG, SIMILARITY
from opdlib.results.summarize import summarize
from opdlib.results.trajectory import is_measured, measure_last, trajectory
from tests.conftest import Weights, write_checkpoint

NAMES = ("model.embed_tokens.weight", "model.layers.0.mlp.up_proj.weight", "model.layers.0.mlp.experts.up_proj.weight")
SHAPES = ((40, 24), (20, 36), (2, 18, 20))


def weights(seed: int) -> Weights:
    draw = torch.Generator().manual_seed(seed)
    found = {name: torch.randn(shape, generator=draw) for name, shape in zip(NAMES, SHAPES, strict=True)}
    return found | {"model.norm.weight": torch.randn(24, generator=draw)}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> tuple[Checkpoint, list[tuple[int, Checkpoint]]]:
    """A bf16 source and three steps in float32, each the one before plus noise."""
    folder, now = tmp_path_factory.mktemp("path"), {n: w.bfloat16().float() for n, w in weights(0).items()}
    source = write_checkpoint(folder / "source", {name: w.bfloat16() for name, w in now.items()})
    steps = []
    for step in (10, 20, 30):
        now = {name: w + 2e-3 * weights(step)[name] for name, w in now.items()}
        steps.append((step, open_checkpoint(str(write_checkpoint(folder / str(step), now)))))
    return open_checkpoint(str(source)), steps


@pytest.fixture(scope="module")
def measured(path: tuple[Checkpoint, list[tuple[int, Checkpoint]]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    source, steps = path
    folder = tmp_path_factory.mktemp("measured")
    for number in range(1, len(steps) + 1):
        measure_last(source, steps[max(0, number - 3) : number], folder, workers=2)
    return folder


@pytest.mark.parametrize("view", ["bf16", "stored"])
def test_its_numbers_are_those_of_the_summary(path: tuple, measured: Path, view: str) -> None:  # type: ignore[type-arg]
    source, steps = path
    rows = trajectory(measured, view)
    assert [row["step"] for row in rows] == [10, 20, 30]
    assert [*rows[0]] == ["step", *ALONG]
    for row, (_, trained) in zip(rows, steps, strict=True):
        summary = dict(
            flat(summarize(measure_pair(source, trained, name="x", view=view, metrics=("sparsity", "geometry"))))
        )
        shared = [key for key in ALONG if key in summary]
        assert len(shared) == 9
        assert {key: row[key] for key in shared} == pytest.approx({key: summary[key] for key in shared}, rel=1e-9)


def test_cosines_and_similarities_are_those_of_plain_numpy(path: tuple, measured: Path) -> None:  # type: ignore[type-arg]
    source, steps = path
    rows = trajectory(measured, "stored")
    models = [{name: c.read(name).double().numpy() for name in c.tensors} for c in (source, *(c for _, c in steps))]
    strides = [np.concatenate([(b[n] - a[n]).ravel() for n in a]) for a, b in pairwise(models)]
    cosines = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in pairwise(strides)]
    assert [row["step_cosine"] for row in rows] == pytest.approx([np.nan, *cosines], nan_ok=True)
    found = []
    for name in NAMES:
        sides = []
        for model in (models[2], models[3]):
            delta = model[name] - models[0][name]
            sides.append([np.linalg.svd(m, full_matrices=False) for m in (delta if delta.ndim == 3 else [delta])])
        for now, end in zip(*sides, strict=True):
            left = np.linalg.norm(now[0][:, :16].T @ end[0][:, :16]) ** 2 / 16
            found.append((left, np.linalg.norm(now[2][:16] @ end[2][:16].T) ** 2 / 16))
    assert len(found) == 4
    middle = np.median(found, axis=0)
    assert (rows[1]["locking.left"], rows[1]["locking.right"]) == pytest.approx(tuple(middle), rel=1e-5)
    assert [rows[-1][key] for key in SIMILARITY] == pytest.approx([1] * 6, abs=1e-5)


def test_steps_that_know_of_nothing_are_as_alike_as_their_control(measured: Path) -> None:
    """The path is a walk of isotropic strides of equal norms, so the control is its own law."""
    rows = trajectory(measured, "stored")
    for side in ("left", "right"):
        assert rows[1][f"locking.{side}"] == pytest.approx(rows[1][f"locking_norms.{side}"], abs=0.12)
        assert rows[0][f"locking.{side}"] < rows[1][f"locking.{side}"] < 0.98
    assert all(math.isnan(row["locking_norms.left"]) for row in trajectory(measured, "bf16"))
    assert trajectory(measured, "stored", workers=1)[1:] == trajectory(measured, "stored", workers=3)[1:] == rows[1:]


def test_what_is_measured_stays_and_another_training_is_measured_again(
    path: tuple,  # type: ignore[type-arg]
    measured: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source, steps = path
    assert is_measured(measured, 30)
    assert not is_measured(measured, 40)
    before = {file: file.stat().st_mtime_ns for file in measured.rglob("*.safetensors")}
    measure_last(source, steps, measured)
    assert {file: file.stat().st_mtime_ns for file in measured.rglob("*.safetensors")} == before
    measure_last(source, [steps[0]], tmp_path, views=["stored"])
    monkeypatch.setattr(stored, "FORMAT", stored.FORMAT + 1)
    file = tmp_path / "10" / "stored.safetensors"
    first = file.stat().st_mtime_ns
    measure_last(source, [steps[0]], tmp_path, views=["stored"])
    assert file.stat().st_mtime_ns != first


def test_a_step_without_the_one_before_it_is_refused(path: tuple, tmp_path: Path) -> None:  # type: ignore[type-arg]
    source, steps = path
    with pytest.raises(RegistryError, match="no step measured in view stored"):
        trajectory(tmp_path, "stored")
    for kept in (steps[:1], steps[1:]):
        measure_last(source, kept, tmp_path, views=["stored"])
    with pytest.raises(RegistryError, match=r"step 30 was measured since step 20, and the one before it here is 10"):
        trajectory(tmp_path, "stored")
