"""Masks hold what they say, and training inside one moves nothing else, not by one bit."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from opdlib.checkpoints import open_checkpoint
from opdlib.errors import RecipeError
from opdlib.registry.recipes import Mask
from opdlib.train import callbacks
from opdlib.train.masks import drawn_mask, training_masks
from opdlib.train.run import train

pytestmark = pytest.mark.slow

KINDS = ("delta", "random", "magnitude", "smallest")


def owned(seed: int = 0, share: float = 0.3) -> tuple[torch.Tensor, torch.Tensor]:
    """The owner's mask, denser among small weights, and bf16 weights with ties and zeros."""
    generator = torch.Generator().manual_seed(seed)
    weights = (torch.randn(40, 50, generator=generator) / 20).bfloat16()
    weights[0, :9] = 0.0
    draw = torch.rand(40, 50, generator=generator)
    return draw < share * (1 + (weights.abs() < 0.02).float()), weights


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 1.0])
def test_every_kind_holds_as_many_coordinates(kind: str, share: float) -> None:
    changed, weights = owned(share=share)
    mask = drawn_mask(kind, changed, weights, np.random.default_rng(0))
    assert mask.shape == changed.shape
    assert mask.dtype == torch.bool
    assert mask.sum() == changed.sum()


def test_magnitude_keeps_the_count_of_every_binade() -> None:
    changed, weights = owned()
    mask = drawn_mask("magnitude", changed, weights, np.random.default_rng(0))
    binades = torch.frexp(weights.float().abs()).exponent.where(weights != 0, torch.tensor(-999))
    for binade in binades.unique():
        here = binades == binade
        assert mask[here].sum() == changed[here].sum()
    assert not torch.equal(mask, changed)


def test_smallest_holds_no_weight_above_one_it_leaves_out() -> None:
    changed, weights = owned()
    mask = drawn_mask("smallest", changed, weights, np.random.default_rng(0))
    assert weights[mask].abs().max() <= weights[~mask].abs().min()


@pytest.mark.parametrize("kind", ["random", "magnitude"])
def test_drawn_masks_meet_the_owner_as_chance_would(kind: str) -> None:
    """Averaged over draws, the share of the owner's coordinates that are drawn is the density, in every binade."""
    changed, weights = owned()
    rng = np.random.default_rng(5)
    mean = sum(drawn_mask(kind, changed, weights, rng).double() for _ in range(400)) / 400
    if kind == "random":
        expected = changed.double().mean().expand(changed.shape)
    else:
        binades = torch.frexp(weights.float().abs()).exponent.where(weights != 0, torch.tensor(-999))
        expected = torch.stack([(changed & (binades == b)).sum() / (binades == b).sum() for b in binades.flatten()])
        expected = expected.reshape(changed.shape).double()
    spread = (expected * (1 - expected) / 400).sqrt()
    assert ((mean - expected).abs() <= 5.5 * spread + 1e-12).all()


@pytest.mark.parametrize("kind", ["random", "magnitude", "smallest"])
def test_a_seed_and_a_name_draw_the_mask(pico: Path, other_pico: Path, kind: str) -> None:
    source, owner = open_checkpoint(str(pico)), open_checkpoint(str(other_pico))
    mask = Mask(kind=kind, of="-", threshold=0.02)
    first, again, other = (training_masks(mask, source, owner, seed) for seed in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    if kind != "smallest":
        assert any(not torch.equal(first[name], other[name]) for name in first)


def test_the_owners_mask_is_its_delta_above_the_threshold(pico: Path, other_pico: Path) -> None:
    source, owner = open_checkpoint(str(pico)), open_checkpoint(str(other_pico))
    masks = training_masks(Mask(kind="delta", of="-", threshold=0.02), source, owner, 0)
    before, after = load_file(pico / "model.safetensors"), load_file(other_pico / "model.safetensors")
    for name, mask in masks.items():
        difference = after[name].bfloat16().double() - before[name].bfloat16().double()
        assert torch.equal(mask, difference.abs() > 0.02)
    assert 0.1 < sum(m.sum() for m in masks.values()) / sum(m.numel() for m in masks.values()) < 0.9


@pytest.mark.parametrize("objective", ["opd", "sft"])
@pytest.mark.parametrize("optimizer", ["adamw", "sgdm"])
def test_training_moves_nothing_outside_the_mask(
    tmp_path: Path, pico: Path, other_pico: Path, write_recipe: Callable[..., Path], objective: str, optimizer: str
) -> None:
    """Weight decay and momentum included; the mask's own coordinates do move."""
    mask = {"kind": "delta", "of": str(other_pico), "threshold": 0.02}
    changes = {"weight_decay": 0.1, "optimizer": optimizer, "mask": mask}
    folder = train(write_recipe(tmp_path, objective, **changes), out=tmp_path / "run")
    source = open_checkpoint(str(pico))
    masks = training_masks(Mask(**mask), source, open_checkpoint(str(other_pico)), 0)
    before, after = load_file(pico / "model.safetensors"), load_file(folder / "fp32" / "model.safetensors")
    for name, inside in masks.items():
        assert torch.equal(before[name][~inside], after[name][~inside]), name
    moved = sum(int((before[name] != after[name])[inside].sum()) for name, inside in masks.items())
    assert moved > 0.5 * sum(int(inside.sum()) for inside in masks.values())


def test_a_masked_run_resumes_to_the_same_bits(
    tmp_path: Path, other_pico: Path, write_recipe: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    mask = {"kind": "magnitude", "of": str(other_pico), "threshold": 0.02}
    recipe = write_recipe(tmp_path, "opd", mask=mask)
    whole = train(recipe, out=tmp_path / "whole")

    on_save = callbacks.Checkpoints.on_save

    def save_and_stop(self: object, args: object, state: object, control: object, **kwargs: object) -> None:
        on_save(self, args, state, control, **kwargs)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(callbacks.Checkpoints, "on_save", save_and_stop)
        with pytest.raises(KeyboardInterrupt):
            train(recipe, out=tmp_path / "stopped")
    stopped = train(recipe, out=tmp_path / "stopped", resume=True)
    files = [folder / "fp32" / "model.safetensors" for folder in (whole, stopped)]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_zero_gradient_changes_nothing(tmp_path: Path, pico: Path, write_recipe: Callable[..., Path]) -> None:
    folder = train(write_recipe(tmp_path, "opd", gradient="zero"), out=tmp_path / "run")
    before, after = load_file(pico / "model.safetensors"), load_file(folder / "fp32" / "model.safetensors")
    assert all(torch.equal(before[name], after[name]) for name in before)
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    assert {json.loads(line)["grad_norm"] for line in lines} == {0.0}


def test_the_owner_is_trained_with_this_runs_seed(
    tmp_path: Path, write_recipe: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_recipe(tmp_path, "sft", steps=2)
    mask = {"kind": "delta", "of": "recipe:pico-sft", "threshold": 0.0}
    train(write_recipe(tmp_path, "opd", mask=mask, steps=2), seed=3)
    assert sorted(path.name for path in Path("runs/train").iterdir()) == ["pico-opd-s3", "pico-sft-s3"]


def test_an_empty_mask_is_refused(tmp_path: Path, other_pico: Path, write_recipe: Callable[..., Path]) -> None:
    mask = {"kind": "delta", "of": str(other_pico), "threshold": 1e6}
    with pytest.raises(RecipeError, match=r"by more than threshold 1000000.0; choose a smaller threshold"):
        train(write_recipe(tmp_path, "opd", mask=mask), out=tmp_path / "run")
