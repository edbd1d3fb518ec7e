import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from opdlib.metrics.overlap import (
    Counts,
    _both,
    count,
    equal_signs,
    expected_globally,
    expected_within,
    latent_cosine,
    overlap,
    total,
)


def test_counting_agrees_with_boolean_masks() -> None:
    generator = torch.Generator().manual_seed(0)
    source = torch.randn(5000, generator=generator).to(torch.bfloat16)
    a = (source.float() + 1e-3 * torch.randn(5000, generator=generator)).to(torch.bfloat16)
    b = source.float() + 1e-4 * torch.randn(5000, generator=generator)
    for atol in (0.0, 1e-5, 1e-3):
        by_a, by_b = (t.double() - source.double() for t in (a, b))
        in_a, in_b = by_a.abs() > atol, by_b.abs() > atol
        both = in_a & in_b
        found = total(count(source, a, b, atol))
        alike = int((by_a.sign() == by_b.sign())[both].sum())
        assert found == Counts(5000, int(in_a.sum()), int(in_b.sum()), int(both.sum()), alike)


def test_a_difference_equal_to_the_tolerance_is_no_update() -> None:
    source, moved = torch.zeros(2), torch.tensor([0.5, 0.25])
    assert count(source, moved, moved, 0.25) == [Counts(2, 1, 1, 1, 1)]


def test_known_answer() -> None:
    found = overlap(Counts(size=100, a=20, b=40, both=10))
    assert (found.o1, found.o2, found.jaccard) == (0.5, 0.25, 0.2)
    chance = expected_globally(Counts(size=100, a=20, b=40, both=10))
    assert chance.o1 == pytest.approx(0.4), "the density of the other mask: the paper's random baseline"
    assert chance.o2 == pytest.approx(0.2)
    assert chance.jaccard == pytest.approx(8 / 52)


def test_preferring_the_same_tensor_raises_the_expectation_within_tensors() -> None:
    tensors = [Counts(100, 50, 50, 25), Counts(100, 0, 0, 0)]
    assert expected_globally(total(tensors)).o1 == pytest.approx(0.25)
    assert expected_within(tensors).o1 == pytest.approx(0.5)
    assert overlap(total(tensors)).o1 == 0.5, "all of it is explained by the tensor"


def test_counting_by_binade_agrees_with_a_plain_way() -> None:
    """frexp, masks and a loop over the exponents."""
    generator = torch.Generator().manual_seed(1)
    source = torch.randn(20_000, generator=generator).pow(5).to(torch.bfloat16)
    source[:50] = 0.0
    a, b = ((source.float() + 1e-3 * torch.randn(20_000, generator=generator)).to(torch.bfloat16) for _ in range(2))
    by_a, by_b = (t.double() - source.double() for t in (a, b))
    in_a, in_b, alike = by_a != 0, by_b != 0, by_a * by_b > 0
    exponents = np.where(source.float().numpy() == 0, -1000, np.frexp(source.float().numpy())[1])
    slow = []
    for exponent in np.unique(exponents):
        of = torch.from_numpy(exponents == exponent)
        slow.append(Counts(*(int(these[of].sum()) for these in (of, in_a, in_b, in_a & in_b, alike))))
    found = count(source, a, b, 0.0)
    assert found == slow
    assert len(found) > 20
    expected = sum(c.a * c.b / c.size for c in slow)
    assert expected_within(found).o1 == pytest.approx(expected / int(in_a.sum()), rel=1e-12)


def test_zeros_and_subnormals_are_one_binade_and_signs_do_not_matter() -> None:
    source = torch.tensor([0.0, -0.0, 1e-40, 1.0, -1.5, 2.0])
    changed = source + torch.tensor([1.0, 0.0, 0.0, 1.0, 1.0, 0.0])
    assert count(source, changed, source, 0.0) == [Counts(3, 1, 0, 0), Counts(2, 2, 0, 0), Counts(1, 0, 0, 0)]


def test_two_changes_that_only_prefer_small_weights_overlap_as_the_third_baseline_says() -> None:
    """By construction: all small weights change in both, and no large one; nothing else is shared."""
    source = torch.cat([torch.full((100,), 0.01), torch.full((300,), 1.0)])
    small = torch.zeros(400, dtype=torch.bool)
    small[:100] = True
    moved = torch.where(small, source + 1e-3, source)
    binades = count(source, moved, moved, 0.0)
    assert binades == [Counts(100, 100, 100, 100, 100), Counts(300, 0, 0, 0)]
    assert expected_globally(total(binades)).o1 == 0.25
    assert expected_within([total(binades)]).o1 == 0.25, "one tensor: no more than globally"
    assert expected_within(binades).o1 == overlap(total(binades)).o1 == 1.0, "the size of the weight explains all"


def test_draws_within_binades_come_out_at_the_third_baseline() -> None:
    rng = np.random.default_rng(2)
    source = torch.from_numpy(rng.standard_normal(400_000)).to(torch.bfloat16)
    chance = torch.from_numpy(np.clip(0.1 / np.abs(source.float().numpy() + 1e-6), 0, 1))
    exponent = torch.from_numpy(np.frexp(source.float().numpy())[1])
    rates = torch.stack([chance[exponent == e].mean() for e in exponent.unique()])
    rate = rates[torch.searchsorted(exponent.unique(), exponent)]
    a, b = (torch.where(torch.from_numpy(rng.random(400_000)) < rate, source.float() + 1, source) for _ in range(2))
    binades = count(source, a, b, 0.5)
    found = overlap(total(binades))
    assert found.o1 == pytest.approx(expected_within(binades).o1, rel=0.02)
    assert found.o1 > 1.5 * expected_globally(total(binades)).o1


def test_an_empty_mask_has_no_overlap() -> None:
    found = overlap(Counts(10, 0, 3, 0))
    assert math.isnan(found.o1)
    assert (found.o2, found.jaccard) == (0.0, 0.0)
    assert math.isnan(overlap(Counts(10, 0, 0, 0)).jaccard)
    assert math.isnan(expected_globally(Counts(0, 0, 0, 0)).o1)


@given(st.integers(1, 10**6), st.floats(0.001, 1), st.floats(0.001, 1), st.floats(0, 1))
def test_ranges_and_symmetry(size: int, p: float, q: float, share: float) -> None:
    a, b = max(1, int(p * size)), max(1, int(q * size))
    low, high = max(0, a + b - size), min(a, b)
    counts = Counts(size, a, b, low + int(share * (high - low)))
    found, swapped = overlap(counts), overlap(Counts(size, b, a, counts.both))
    assert (found.o1, found.o2) == (swapped.o2, swapped.o1)
    assert 0 <= found.jaccard <= min(found.o1, found.o2) + 1e-12 <= 1 + 1e-12
    assert expected_within([counts]) == expected_globally(counts)


@pytest.mark.parametrize("cosine", [-0.9, -0.3, 0.0, 0.05, 0.5, 0.99])
def test_the_latent_cosine_of_gaussian_updates_comes_back(cosine: float) -> None:
    """Of another size in each run, rounded to bf16: within what 400,000 weights can tell."""
    rng = np.random.default_rng(4)
    source = torch.from_numpy(0.05 * rng.standard_normal(400_000)).to(torch.bfloat16)
    x, y = rng.standard_normal((2, 400_000))
    z = cosine * x + math.sqrt(1 - cosine**2) * y
    a, b = ((source.double() + torch.from_numpy(s * u)).to(torch.bfloat16) for s, u in ((1e-4, x), (6e-5, z)))
    found = latent_cosine(count(source, a, b, 0.0))
    error = 0.02 if abs(cosine) > 0.1 else 0.1  # the overlap is flat at 0
    assert found == pytest.approx(cosine, abs=error)


def test_the_chance_of_both_is_that_of_a_bivariate_normal() -> None:
    from scipy.stats import multivariate_normal, norm

    p, q = np.array([0.5, 0.1, 0.01, 0.3]), np.array([0.4, 0.1, 0.2, 1.0])
    s, t = norm.isf(p / 2), norm.isf(q / 2)
    for rho in (0.0, 0.4, 0.9, 0.995):
        law = multivariate_normal([0, 0], [[1, rho], [rho, 1]])
        slow = [2 * (law.cdf([-x, -y]) + (law.cdf([-x, np.inf]) - law.cdf([-x, y]))) for x, y in zip(s, t, strict=True)]
        assert _both(p, q, rho) == pytest.approx(np.array(slow), abs=2e-6)


def test_empty_and_equal_updates_have_the_cosines_that_they_must() -> None:
    assert math.isnan(latent_cosine([Counts(10, 0, 3, 0)]))
    assert math.isnan(equal_signs(Counts(10, 1, 3, 0)))
    assert equal_signs(Counts(10, 4, 3, 2, 1)) == 0.5
    assert latent_cosine([Counts(100, 30, 30, 30, 30)]) == pytest.approx(1, abs=1e-4)
    assert latent_cosine([Counts(100, 30, 30, 30, 0)]) == pytest.approx(-1, abs=1e-4)
    assert latent_cosine([Counts(50, 30, 0, 0), Counts(50, 0, 30, 0)]) == 0
