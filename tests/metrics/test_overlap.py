from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from opdlib.metrics.overlap import Counts, count, expected_globally, expected_within, overlap, total


def test_counting_agrees_with_boolean_masks() -> None:
    generator = torch.Generator().manual_seed(0)
    source = torch.randn(5000, generator=generator).to(torch.bfloat16)
    a = (source.float() + 1e-3 * torch.randn(5000, generator=generator)).to(torch.bfloat16)
    b = source.float() + 1e-4 * torch.randn(5000, generator=generator)
    for atol in (0.0, 1e-5, 1e-3):
        in_a, in_b = ((t.double() - source.double()).abs() > atol for t in (a, b))
        found = count(source, a, b, atol)
        assert found == Counts(5000, int(in_a.sum()), int(in_b.sum()), int((in_a & in_b).sum()))


def test_a_difference_equal_to_the_tolerance_is_no_update() -> None:
    source, moved = torch.zeros(2), torch.tensor([0.5, 0.25])
    assert count(source, moved, moved, 0.25) == Counts(2, 1, 1, 1)


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
