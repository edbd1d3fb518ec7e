"""Probes say what is there, and change nothing."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

from opdlib.train import objectives, run
from opdlib.train.evaluate import evaluate
from opdlib.train.probes import of_state, of_weights
from opdlib.train.run import train
from tests.train.killed import rewarded

pytestmark = pytest.mark.slow

ALL = {"probe_every": 2, "evaluate_every": 3, "keep_every": 2}


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "probes.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("objective", ["opd", "sft", "rlvr"])
def test_a_run_with_probes_ends_in_the_same_bits(
    tmp_path: Path, write_recipe: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, objective: str
) -> None:
    monkeypatch.setattr(objectives, "_reward", rewarded)
    plain = train(write_recipe(tmp_path, objective), out=tmp_path / "plain")
    probed = train(write_recipe(tmp_path, objective, **ALL), out=tmp_path / "probed")
    files = [folder / "fp32" / "model.safetensors" for folder in (plain, probed)]
    assert files[0].read_bytes() == files[1].read_bytes()
    ends = json.loads((plain / "complete.json").read_text())["digests"]
    assert ends["fp32"] != ends["source"], "else the same bits say nothing"
    assert not (plain / "probes.jsonl").exists()
    assert [row["step"] for row in rows(probed)] == [1, 2, 3, 4, 6]
    assert sorted(path.name for path in (probed / "steps").iterdir()) == ["2", "4"]


def test_what_the_probes_say_is_what_the_weights_say(
    tmp_path: Path, pico: Path, write_recipe: Callable[..., Path]
) -> None:
    folder = train(write_recipe(tmp_path, "opd", **ALL), out=tmp_path / "run")
    last, third = rows(folder)[-1], rows(folder)[2]
    source = load_file(pico / "model.safetensors")
    masters = load_file(folder / "fp32" / "model.safetensors")
    rounded = load_file(folder / "bf16" / "model.safetensors")
    before = {name: tensor.bfloat16() for name, tensor in source.items()}
    size = sum(tensor.numel() for tensor in source.values())
    changed = sum(int((rounded[name] != before[name]).sum()) for name in before)
    squares = sum(float((masters[name].double() - before[name].double()).square().sum()) for name in before)
    assert last["changed"] == changed / size
    assert last["distance"] == pytest.approx(math.sqrt(squares), rel=1e-6)
    assert set(third) == {"step", "accuracy", "interval", "n"}
    masters_score = evaluate(str(folder / "fp32"), n=3)
    assert (last["accuracy"], tuple(last["interval"])) == (masters_score.accuracy, masters_score.interval)
    first = rows(folder)[0]
    assert first["momentum_cosine"] == pytest.approx(1.0, abs=1e-5)
    assert first["gradient_norm"] <= 1.0 + 1e-5  # clipped


def test_of_state_against_one_long_vector() -> None:
    generator = torch.Generator().manual_seed(0)
    parameters = [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in ((5, 7), (3,))]
    optimizer = torch.optim.AdamW(parameters, lr=0.1)
    for _ in range(3):
        for parameter in parameters:
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step()
    found = of_state(parameters, optimizer)
    g, m, v = (
        torch.cat([t.flatten().double() for t in tensors])
        for tensors in (
            [p.grad for p in parameters],
            [optimizer.state[p]["exp_avg"] for p in parameters],
            [optimizer.state[p]["exp_avg_sq"] for p in parameters],
        )
    )
    assert found["gradient_norm"] == pytest.approx(float(g.norm()))
    assert found["momentum_cosine"] == pytest.approx(float(m @ g / (m.norm() * g.norm())))
    assert found["second_moment_cv"] == pytest.approx(float(v.sqrt().std(correction=0) / v.sqrt().mean()))


def test_of_state_where_there_is_nothing() -> None:
    parameter = torch.nn.Parameter(torch.ones(4))
    parameter.grad = torch.zeros(4)
    adam, sgd = torch.optim.AdamW([parameter], lr=0.1, weight_decay=0.0), torch.optim.SGD([parameter], lr=0.1)
    adam.step()
    assert of_state([parameter], adam) == {"gradient_norm": 0.0, "momentum_cosine": None, "second_moment_cv": None}
    assert of_state([parameter], sgd) == {"gradient_norm": 0.0}


def test_of_weights_counts_what_bf16_shows() -> None:
    source = torch.tensor([1.0, 2.0, -4.0]).bfloat16()
    now = torch.tensor([1.0 + 2**-9, 2.5, -4.0])  # the first moves by less than half a step of the grid
    found = of_weights([now], [torch.tensor([1.0, 2.0, -4.0])], [source])
    expected = math.sqrt(2**-18 + 0.25)
    assert found == {"update_norm": pytest.approx(expected), "distance": pytest.approx(expected), "changed": 1 / 3}


def test_a_resumed_run_has_every_row_once(
    tmp_path: Path, write_recipe: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = write_recipe(tmp_path, "opd", **ALL)
    whole = train(recipe, out=tmp_path / "whole")

    class Stop(TrainerCallback):  # type: ignore[misc]
        def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == 5:
                raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(run, "Bar", Stop)
        with pytest.raises(KeyboardInterrupt):
            train(recipe, out=tmp_path / "stopped")
    with (tmp_path / "stopped" / "probes.jsonl").open("a") as stream:
        stream.write('{"step": 6, "chan')
    stopped = train(recipe, out=tmp_path / "stopped", resume=True)
    assert rows(stopped) == rows(whole)
    assert sorted(path.name for path in (stopped / "steps").iterdir()) == ["2", "4"]
