import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from opdlib.metrics.histogram import Finer, Members, scan, total
from opdlib.metrics.kernels import ETA
from opdlib.metrics.sparsity import (
    TOP_SHARES,
    Sparsity,
    at_most,
    count_of,
    relative_norm,
    resolve,
    root_mean_square,
    sparsity,
    survival,
    top_energies,
    top_energy,
)

from . import sparsity_reference as reference

DTYPES = (torch.bfloat16, torch.float16, torch.float32)


def measured(source: torch.Tensor, trained: torch.Tensor) -> Sparsity:
    seen = scan(source, trained)
    return sparsity(seen.histogram, seen.members)


def update(
    dtype: torch.dtype, size: int = 700, scale: float = 1e-3, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    source = torch.randn(size, generator=generator) * 0.1
    heavy = torch.randn(size, generator=generator) * torch.exp(torch.randn(size, generator=generator) * 2)
    return source.to(dtype), (source + scale * heavy).to(dtype)


@pytest.mark.parametrize(
    ("share", "size", "count"),
    [
        (0.07, 100, 7),
        (0.001, 100, 1),
        (0.01, 1024, 11),
        (1.0, 5, 5),
        (0.3, 10, 3),
        (0.05, 0, 0),
        (0.001, 135_000_000, 135_000),
    ],
)
def test_a_share_becomes_a_count_in_one_way(share: float, size: int, count: int) -> None:
    assert count_of(share, size) == count


@pytest.mark.parametrize("share", [0.0, -0.1, 1.1, math.nan])
def test_a_share_outside_its_range_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match="share"):
        count_of(share, 10)


def test_known_answer() -> None:
    source = torch.zeros(1000, dtype=torch.float32)
    trained = source.clone()
    trained[:10] = 3e-5
    trained[10:30] = 1e-6
    numbers = measured(source, trained)
    assert numbers.exact_zero == 970
    assert numbers.absolute[1e-7] == 970
    assert numbers.absolute[1e-6] == 990  # float32(1e-6) lies below 1e-6
    assert numbers.absolute[1e-5] == 990
    assert numbers.absolute[1e-4] == 1000
    assert numbers.top[0.001] == pytest.approx(float(torch.tensor(3e-5).double()) ** 2, rel=1e-15)
    assert math.isnan(numbers.rel_norm)  # the source is zero


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", [1e-6, 1e-4, 1e-2, 1.0])
def test_every_number_agrees_with_the_slow_definition(dtype: torch.dtype, scale: float) -> None:
    source, trained = update(dtype, scale=scale)
    numbers = measured(source, trained)
    assert numbers.exact_zero == reference.at_most(source, trained, 0)
    for eps, count in numbers.absolute.items():
        assert count == reference.at_most(source, trained, eps), eps
    for tau, count in numbers.relative.items():
        assert count == reference.at_most(source, trained, tau * reference.rms(source)), tau
    assert numbers.ulp == reference.within_ulp(source, trained, ETA)
    for share, energy in numbers.top.items():
        slow = reference.energy_of_top([(source, trained)], count_of(share, source.numel()))
        assert energy == pytest.approx(slow, rel=1e-12), share


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_threshold_or_rank_at_a_value_that_occurs_is_exact(dtype: torch.dtype) -> None:
    """Cuts that fall on a difference, between two of one bin, and at ties."""
    source, trained = update(dtype)
    seen = scan(source, trained)
    differences = sorted({abs(d) for d in (trained.double() - source.double()).tolist()})
    for eps in differences[::7]:
        for nudged in (eps, math.nextafter(eps, 0), math.nextafter(eps, 1)):
            found = resolve([at_most(seen.histogram, nudged)], seen.members)
            assert found == [reference.at_most(source, trained, nudged)]
    for count in range(0, source.numel() + 1, 13):
        slow = reference.energy_of_top([(source, trained)], count)
        found = resolve([top_energy(seen.histogram, count)], seen.members)
        assert found == [pytest.approx(slow, rel=1e-12, abs=1e-300)]


def test_the_ulp_rule_equals_exact_zero_for_bf16_and_not_for_float32() -> None:
    for seed in range(5):
        source, trained = update(torch.bfloat16, size=20_000, seed=seed)
        numbers = measured(source, trained)
        assert numbers.ulp == numbers.exact_zero
    numbers = measured(*update(torch.float32, size=20_000, scale=1e-5))
    assert numbers.ulp > numbers.exact_zero


def test_ranking_over_several_tensors_is_one_sort_over_all() -> None:
    tensors = [
        update(torch.bfloat16, size=n, scale=s, seed=i) for i, (n, s) in enumerate([(400, 1e-4), (90, 1e-2), (3, 1.0)])
    ]
    scans = [scan(*pair) for pair in tensors]
    model = total(s.histogram for s in scans)

    def look(bins: Sequence[int]) -> dict[int, Members]:
        finer = Finer(bins)
        for pair in tensors:
            finer.add(*pair)
        return finer.members()

    top = top_energies(model, look)
    for share in TOP_SHARES:
        slow = reference.energy_of_top(tensors, count_of(share, 493))
        assert top[share] == pytest.approx(slow, rel=1e-12)


def test_nothing_changed_and_nothing_there() -> None:
    same = torch.ones(8, dtype=torch.bfloat16)
    numbers = measured(same, same.clone())
    assert numbers.exact_zero == numbers.ulp == 8
    assert set(numbers.absolute.values()) == {8}
    assert (numbers.energy, numbers.rel_norm, set(numbers.top.values())) == (0.0, 0.0, {0.0})
    empty = measured(torch.ones(0), torch.ones(0))
    assert (empty.size, empty.exact_zero, set(empty.absolute.values()), set(empty.relative.values())) == (
        0,
        0,
        {0},
        {0},
    )
    assert math.isnan(root_mean_square(scan(torch.ones(0), torch.ones(0)).histogram))


def test_minus_zero_is_zero() -> None:
    numbers = measured(torch.tensor([0.0, -0.0, 1.0]), torch.tensor([-0.0, 0.0, 1.0]))
    assert numbers.exact_zero == numbers.ulp == 3


def test_relative_norm_of_a_zero_source_is_undefined() -> None:
    assert math.isnan(relative_norm(1.0, 0.0))
    assert relative_norm(4.0, 16.0) == 0.5


shapes = st.integers(2, 80)


@given(st.integers(0, 10**6), shapes, st.sampled_from(DTYPES))
@settings(max_examples=60, deadline=None)
def test_invariances(seed: int, size: int, dtype: torch.dtype) -> None:
    source, trained = update(dtype, size=size, seed=seed)
    numbers = measured(source, trained)
    order = torch.randperm(size, generator=torch.Generator().manual_seed(seed))
    permuted = measured(source[order], trained[order])
    assert permuted.absolute == numbers.absolute
    assert permuted.relative == numbers.relative
    assert permuted.top == pytest.approx(numbers.top, rel=1e-13)
    flipped = measured(-trained, -source)
    assert flipped.absolute == numbers.absolute
    assert flipped.energy == pytest.approx(numbers.energy, rel=1e-13)
    counts = list(numbers.absolute.values())
    assert numbers.exact_zero <= counts[0]
    assert counts == sorted(counts)
    assert counts[-1] <= size
    energies = [*numbers.top.values(), numbers.energy * (1 + 1e-12)]
    assert energies == sorted(energies)


@given(st.integers(0, 10**6), st.integers(-20, 20))
@settings(max_examples=40, deadline=None)
def test_scaling_both_by_a_power_of_two_scales_the_norms_only(seed: int, power: int) -> None:
    source, trained = update(torch.bfloat16, size=50, seed=seed)
    numbers, scaled = measured(source, trained), measured(source * 2.0**power, trained * 2.0**power)
    assert scaled.exact_zero == numbers.exact_zero
    assert scaled.relative == numbers.relative
    assert scaled.ulp == numbers.ulp
    assert scaled.rel_norm == pytest.approx(numbers.rel_norm, rel=1e-14)
    assert scaled.energy == numbers.energy * 4.0**power


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_curve_agrees_with_counting(dtype: torch.dtype) -> None:
    source, trained = update(dtype)
    thresholds, below = survival(scan(source, trained).histogram)
    differences = (trained.double() - source.double()).abs()
    for t, count in list(zip(thresholds.tolist(), below.tolist(), strict=True))[::9]:
        assert count == int((differences < t).sum())
