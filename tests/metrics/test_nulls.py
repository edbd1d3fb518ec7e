"""Nulls against draws from their definition, and against what must hold of them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from opdlib.metrics import nulls

SHARES, EPS = (0.01, 0.1, 0.5), (1e-6, 1e-5, 1e-4, 1e-3)


def weights(size: int = 200_000, spread: float = 0.05, seed: int = 0) -> torch.Tensor:
    return (torch.randn(size, generator=torch.Generator().manual_seed(seed)) * spread).bfloat16()


def magnitudes(source: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    bits, counts = np.unique(source.abs().view(torch.int16).numpy(), return_counts=True)
    return bits.astype(np.int64), counts.astype(np.int64)


@pytest.mark.parametrize("scale", [1e-6, 3e-5, 3e-4, 1e-2])
def test_exact_numbers_are_those_of_many_draws(scale: float) -> None:
    source, rng = weights(), np.random.default_rng(1)
    bits, counts = magnitudes(source)
    found = nulls.visibility(bits, counts, scale, EPS, SHARES)
    draws = [(nulls.visible(source, scale, rng).double() - source.double()).numpy() for _ in range(20)]
    order = np.argsort(np.abs(source.double().numpy()), kind="stable")
    changed = np.mean([d != 0 for d in draws], axis=0)
    error = 5 / math.sqrt(20 * len(source))
    assert found.changed == pytest.approx(changed.mean(), abs=error)
    for eps in EPS:
        assert found.within[eps] == pytest.approx(np.mean([np.abs(d) <= eps for d in draws]), abs=error)
    for share in SHARES:
        covered = changed[order[: int(share * len(source))]].sum() / changed.sum()
        assert found.low[share] == pytest.approx(covered, abs=5 / math.sqrt(20 * changed.sum()))
    energy = float(counts @ nulls.rounded_energy(bits, scale))
    squares = [float((d**2).sum()) for d in draws]
    assert energy == pytest.approx(np.mean(squares), abs=6 * np.std(squares) / math.sqrt(20) + 1e-12)


@pytest.mark.parametrize("scale", [1e-6, 3e-5, 3e-4, 1e-2])
def test_the_scale_comes_back_from_the_rounded_norm(scale: float) -> None:
    bits, counts = magnitudes(weights())
    energy = float(counts @ nulls.rounded_energy(bits, scale))
    assert nulls.scale_of_rounded_norm(bits, counts, energy) == pytest.approx(scale, rel=1e-9)


def test_energy_by_steps_meets_the_fine_grid() -> None:
    """One weight, a sum over every grid point; beyond `_STEPS` steps the formula for a fine grid takes over."""
    for mantissa in (0, 5, 100, 127):
        k = (127 << 7) + mantissa  # in [1, 2)
        for steps in (0.2, 0.5, 1.0, 1.7, 1.9, 2.5, 4.0):
            scale = steps / 128
            near = np.arange(k - 100, k + 101)
            values = nulls.GRID[near]
            edges = (values[1:] + values[:-1]) / 2
            z = (edges - nulls.GRID[k]) / scale
            below = np.array([0.5 * math.erfc(-x / math.sqrt(2)) for x in z])
            chance = np.diff(np.concatenate([[0], below, [1]]))
            slow = float(chance @ (values - nulls.GRID[k]) ** 2)
            found = float(nulls.rounded_energy(np.array([k]), scale)[0])
            beside = min(mantissa, 128 - mantissa) < 9 * steps  # a binade with other steps is within reach
            assert found == pytest.approx(slow, rel=0.02 if beside and steps > 1.75 else 1e-9)


def test_limits() -> None:
    source = weights()
    bits, counts = magnitudes(source)
    none = nulls.visibility(bits, counts, 0.0, EPS, SHARES)
    assert (none.changed, none.within[1e-6]) == (0, 1)
    assert math.isnan(none.low[0.1])
    assert nulls.scale_of_rounded_norm(bits, counts, 0.0) == 0
    all_ = nulls.visibility(bits, counts, 10.0, EPS, SHARES)
    assert all_.changed == pytest.approx(1, abs=1e-3)
    assert all_.low[0.1] == pytest.approx(0.1, rel=1e-3)
    small = nulls.visibility(bits, counts, 1e-6, EPS, SHARES)
    assert small.low[0.1] > 0.9  # only the smallest weights show so small an update


def test_smaller_weights_show_more() -> None:
    bits = np.arange(100 << 7, 130 << 7, dtype=np.int64)
    chance = nulls.changed_chance(bits[bits & 127 != 0], 1e-3)  # at a power of two the step below is half as long
    assert (np.diff(chance) <= 1e-15).all()


def test_a_permuted_update_keeps_every_magnitude_s_deltas() -> None:
    source = weights(6000).reshape(60, 100)
    trained = nulls.visible(source, 3e-4, np.random.default_rng(0))
    delta = trained.double() - source.double()
    moved = nulls.permuted(source, trained, np.random.default_rng(1))
    assert not torch.equal(moved, delta)
    magnitude = source.abs()
    for value in magnitude.unique()[::40]:
        here = magnitude == value
        assert torch.equal(moved[here].sort().values, delta[here].sort().values)
    rows = np.repeat(np.arange(60), 100)
    inside = nulls.permuted(source, trained, np.random.default_rng(1), rows)
    assert torch.equal(inside.sort(dim=1).values, delta.sort(dim=1).values)
    again = nulls.permuted(source, trained, np.random.default_rng(1))
    assert torch.equal(moved, again)


def test_directions_are_drawn_and_singular_values_kept() -> None:
    sigma = torch.tensor([3.0, 2.0, 0.5], dtype=torch.float64)
    for shape in ((20, 30), (30, 20)):
        matrix = nulls.with_spectrum(sigma, shape, np.random.default_rng(0))
        assert matrix.shape == shape
        assert torch.allclose(torch.linalg.svdvals(matrix)[:3], sigma, atol=1e-12)
        assert float(torch.linalg.svdvals(matrix)[3]) < 1e-12
