"""Nulls against draws from their definition, and against what must hold of them."""

import math

import numpy as np
import pytest
import torch

from opdlib.metrics import nulls
from opdlib.metrics.geometry import geometries, geometry
from opdlib.metrics.histogram import scan
from opdlib.metrics.subspace import SHARES, expected_drift

from . import geometry_reference as reference
from .test_spectrum import gaussian

EPS = (1e-6, 1e-5, 1e-4, 1e-3)


def weights(size: int = 200_000, spread: float = 0.05, seed: int = 0) -> torch.Tensor:
    return (torch.randn(size, generator=torch.Generator().manual_seed(seed)) * spread).bfloat16()


def rounded_energy(bits: np.ndarray, scale: float) -> np.ndarray:
    """E[delta^2] under visibility, as the scale of a rounded norm is found by."""
    energy: np.ndarray = nulls._energy(nulls.GRID, bits, scale)
    return energy


def magnitudes(source: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    bits, counts = np.unique(source.abs().view(torch.int16).numpy(), return_counts=True)
    return bits.astype(np.int64), counts.astype(np.int64)


@pytest.mark.parametrize("scale", [1e-6, 3e-5, 3e-4, 1e-2])
def test_exact_numbers_are_those_of_many_draws(scale: float) -> None:
    source, rng = weights(), np.random.default_rng(1)
    bits, counts = magnitudes(source)
    found = nulls.visibility(bits, counts, scale, EPS)
    draws = [(nulls.visible(source, scale, rng).double() - source.double()).numpy() for _ in range(20)]
    changed = np.mean([d != 0 for d in draws], axis=0)
    error = 5 / math.sqrt(20 * len(source))
    assert 1 - found.exact_zero / len(source) == pytest.approx(changed.mean(), abs=error)
    for eps in EPS:
        assert found.absolute[eps] / len(source) == pytest.approx(np.mean([np.abs(d) <= eps for d in draws]), abs=error)
    exponents = source.abs().view(torch.int16).numpy() >> 7
    assert sum(found.changed.values()) == pytest.approx(len(source) - found.exact_zero)
    for exponent, expected in found.changed.items():
        here = exponents == exponent
        assert expected == pytest.approx(changed[here].sum(), abs=5 * math.sqrt(here.sum() / 20))
    energy = float(counts @ rounded_energy(bits, scale))
    squares = [float((d**2).sum()) for d in draws]
    assert energy == pytest.approx(np.mean(squares), abs=6 * np.std(squares) / math.sqrt(20) + 1e-12)


@pytest.mark.parametrize("scale", [1e-6, 3e-5, 3e-4, 1e-2])
def test_the_scale_comes_back_from_the_rounded_norm(scale: float) -> None:
    bits, counts = magnitudes(weights())
    energy = float(counts @ rounded_energy(bits, scale))
    assert nulls.scale_of_rounded_norm(bits, counts, energy) == pytest.approx(scale, rel=1e-9)


def test_the_scale_of_a_single_flip_is_found() -> None:
    """The chance of a flip is then 1e-5 and less, and its logarithm steep."""
    bits, counts = magnitudes(weights().abs() + 1)
    flip = float(nulls.GRID[bits[-1] + 1] - nulls.GRID[bits[-1]]) ** 2
    scale = nulls.scale_of_rounded_norm(bits, counts, flip)
    assert float(counts @ rounded_energy(bits, scale)) == pytest.approx(flip, rel=1e-9)


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
            found = float(rounded_energy(np.array([k]), scale)[0])
            beside = min(mantissa, 128 - mantissa) < 9 * steps  # a binade with other steps is within reach
            assert found == pytest.approx(slow, rel=0.02 if beside and steps > 1.75 else 1e-9)


@pytest.mark.parametrize("scale", [1e-6, 1e-4, 1e-3])
def test_magnitudes_together_are_magnitudes_alone(scale: float) -> None:
    """Those inside a binade are computed once for all of it."""
    bits, _ = magnitudes(weights(20_000))
    for numbers in (nulls.changed_chance, rounded_energy, lambda b, s: nulls.within_chance(b, s, 1e-4)):
        alone = [numbers(bits[i : i + 1], scale)[0] for i in range(len(bits))]
        assert numbers(bits, scale) == pytest.approx(np.array(alone), rel=1e-9, abs=1e-15)


def test_limits() -> None:
    source = weights()
    bits, counts = magnitudes(source)
    none = nulls.visibility(bits, counts, 0.0, EPS)
    assert (none.exact_zero, none.absolute[1e-6]) == (len(source), len(source))
    assert nulls.scale_of_rounded_norm(bits, counts, 0.0) == 0
    assert nulls.visibility(bits, counts, 10.0, EPS).exact_zero < 1e-3 * len(source)


def test_smaller_weights_show_more() -> None:
    bits = np.arange(100 << 7, 130 << 7, dtype=np.int64)
    chance = nulls.changed_chance(bits[bits & 127 != 0], 1e-3)  # at a power of two the step below is half as long
    assert (np.diff(chance) <= 1e-15).all()


@pytest.mark.parametrize("shape", [(60, 90), (90, 60)])
def test_expected_coverages_are_those_of_many_draws(shape: tuple[int, int]) -> None:
    source = weights(shape[0] * shape[1]).reshape(shape)
    scale, rng = 1e-4, np.random.default_rng(0)
    trained = nulls.visible(source, scale, rng)
    seen = scan(source, trained).histogram
    bits = seen.magnitude_bins
    chances = {
        "visibility": nulls.by_magnitude(bits, nulls.changed_chance(bits, scale)),
        "permutation": nulls.by_magnitude(bits, seen.updated / seen.magnitudes),
    }
    found = geometries(source, [trained], [chances])[0].nulls
    w = reference.wide(source)
    draws = {
        "visibility": [nulls.visible(source, scale, rng) for _ in range(200)],
        "permutation": [nulls.permuted(source, trained, rng) for _ in range(200)],
    }
    for null, own in draws.items():
        updated = np.mean([reference.wide(d) != w for d in own], axis=0)
        assert found[null].density == pytest.approx(updated.mean(), rel=0.01)
        for share in SHARES:
            principal = reference.membership(reference.rebuilt(w, share), share, largest=True)
            low = reference.membership(np.abs(w), share, largest=False)
            total, error = updated.sum(), 5 * math.sqrt(share / (200 * updated.sum()))
            assert found[null].principal[share] == pytest.approx((updated * principal).sum() / total, abs=error)
            assert found[null].low[share] == pytest.approx((updated * low).sum() / total, abs=error)
            both = (updated * principal * (1 - low)).sum() / total
            assert found[null].nonprincipal_or_low[share] == pytest.approx(1 - both, abs=error)
            assert found[null].changed_low[share] == pytest.approx((updated * low).sum() / low.sum(), rel=0.1)
    low = geometry(source, trained).coverage[0.0].low
    assert found["permutation"].low == pytest.approx(low, rel=1e-12), "an identity"


def test_the_chance_of_nonprincipal_or_low_is_its_size() -> None:
    source = weights(5400).reshape(60, 90)
    found = geometry(source, nulls.visible(source, 1e-4, np.random.default_rng(0))).nonprincipal_or_low
    w = reference.wide(source)
    for share in SHARES:
        principal = reference.membership(reference.rebuilt(w, share), share, largest=True)
        low = reference.membership(np.abs(w), share, largest=False)
        assert found[share] == pytest.approx(1 - (principal * (1 - low)).mean(), abs=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(120, 80), (80, 120), (90, 90)])
def test_isotropic_noise_has_kappa_one(shape: tuple[int, int]) -> None:
    source = gaussian(shape)
    drifts = [geometry(source, source + 1e-4 * gaussian(shape, seed)).drift_of_delta for seed in range(1, 31)]
    assert np.sqrt(np.mean(np.square(drifts))) == pytest.approx(expected_drift(shape), rel=0.08)


def test_a_permuted_update_keeps_every_magnitude_s_deltas() -> None:
    source = weights(6000).reshape(60, 100)
    trained = nulls.visible(source, 3e-4, np.random.default_rng(0))
    delta = trained.double() - source.double()

    def moved(within: np.ndarray | None = None) -> torch.Tensor:
        return nulls.permuted(source, trained, np.random.default_rng(1), within).double() - source.double()

    assert not torch.equal(moved(), delta)
    assert torch.equal(moved(), moved())
    magnitude = source.abs()
    for value in magnitude.unique()[::40]:
        here = magnitude == value
        assert torch.equal(moved()[here].sort().values, delta[here].sort().values)
    rows, columns = np.divmod(np.arange(6000), 100)
    assert torch.equal(moved(rows).sort(dim=1).values, delta.sort(dim=1).values)
    assert torch.equal(moved(columns).sort(dim=0).values, delta.sort(dim=0).values)


def test_a_permutation_takes_every_order_alike() -> None:
    source = torch.ones(3, 1, dtype=torch.bfloat16)
    trained = source + torch.tensor([[0.0], [0.5], [1.0]], dtype=torch.bfloat16)
    rng = np.random.default_rng(0)
    orders = [tuple(nulls.permuted(source, trained, rng).flatten().tolist()) for _ in range(1200)]
    counts = np.unique(orders, axis=0, return_counts=True)[1]
    assert len(counts) == 6
    assert np.abs(counts - 200).max() < 60


def test_directions_are_drawn_and_singular_values_kept() -> None:
    sigma = torch.tensor([3.0, 2.0, 0.5], dtype=torch.float64)
    for shape in ((20, 30), (30, 20)):
        matrix = nulls.with_spectrum(sigma, shape, np.random.default_rng(0))
        assert matrix.shape == shape
        assert torch.allclose(torch.linalg.svdvals(matrix)[:3], sigma, atol=1e-12)
        assert float(torch.linalg.svdvals(matrix)[3]) < 1e-12
