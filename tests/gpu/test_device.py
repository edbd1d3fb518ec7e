"""What a GPU must give: the numbers of the CPU, and a training. `tests/conftest.py` leaves this out without one."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from opdlib.checkpoints import open_checkpoint
from opdlib.registry.recipes import load_recipe
from opdlib.results.compare import disagreements
from opdlib.results.layout import read_provenance, read_summary
from opdlib.results.measure import measure_into
from tests.conftest import write_checkpoint

pytestmark = pytest.mark.gpu

RECIPES = Path(__file__).parents[2] / "data" / "recipes"


def matrices(seed: int, like: dict[str, torch.Tensor] | None = None) -> dict[str, torch.Tensor]:
    """Weights as large as those of a small model; `like`: those after a low-rank update and some noise."""
    generator = torch.Generator().manual_seed(seed)
    if like is None:
        shapes = {"model.layers.0.mlp.up_proj.weight": (384, 128), "model.layers.0.self_attn.q_proj.weight": (256, 256)}
        return {n: (0.05 * torch.randn(shape, generator=generator)).bfloat16() for n, shape in shapes.items()}
    moved = {}
    for name, weights in like.items():
        left, right = (torch.randn(size, 4, generator=generator) for size in weights.shape)
        noise = 1e-4 * torch.randn(weights.shape, generator=generator)
        moved[name] = (weights.float() + 3e-4 * left @ right.T + noise).bfloat16()
    return moved


@pytest.mark.parametrize("view", ["bf16", "stored"])
def test_both_devices_give_the_same_numbers(tmp_path: Path, view: str) -> None:
    """Within what two CPUs are allowed to differ by: 1e-9 for sums, 1e-6 for what goes through an eigensolver."""
    source = matrices(0)
    sides = {"source": source, "trained": matrices(1, source)}
    opened = [open_checkpoint(str(write_checkpoint(tmp_path / name, weights))) for name, weights in sides.items()]
    for device in ("cpu", "cuda"):
        measure_into(tmp_path / device, *opened, name="pair", view=view, device=device)
    assert read_provenance(tmp_path / "cuda")["device"] != read_provenance(tmp_path / "cpu")["device"]
    ours, theirs = (read_summary(tmp_path / device) for device in ("cuda", "cpu"))
    assert disagreements(ours, theirs) == []


def test_two_steps_of_a_pico_run(tmp_path: Path, opd: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    """The shipped recipes of source, teacher and student, two steps each: trained, evaluated, and another model."""
    for name in ("pico-source", "pico-teacher", "pico-opd"):
        recipe = load_recipe(RECIPES / f"{name}.yaml").model_dump(exclude_none=True)
        recipe |= {"steps": 2, "evaluation_size": 20}
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(recipe), encoding="utf8")
    done = opd("train", tmp_path / "pico-opd.yaml", "--out", tmp_path / "runs" / "run")
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs" / "run"
    assert json.loads((run / "complete.json").read_text())["steps"] == 2
    assert json.loads((run / "environment.json").read_text())["device"] == torch.cuda.get_device_name()
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 2
    before, after = (
        load_file(tmp_path / "runs" / folder / "model.safetensors") for folder in ("pico-source-s0/bf16", "run/fp32")
    )
    assert any(not torch.equal(before[name].float(), after[name]) for name in before)
