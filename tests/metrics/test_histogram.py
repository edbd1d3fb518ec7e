import math
from dataclasses import fields

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from opdlib.metrics.histogram import Finer, NonFiniteError, bin_of, scan, total
from opdlib.metrics.kernels import BINS, NEAR

DTYPES = (torch.bfloat16, torch.float16, torch.float32)


def random_pair(size: int, dtype: torch.dtype, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    source = torch.randn(size, generator=generator) * torch.exp(torch.randn(size, generator=generator) * 3).clamp(
        max=1000
    )
    trained = source + torch.randn(size, generator=generator) * 1e-3
    return source.to(dtype), trained.to(dtype)


def test_known_differences_by_construction() -> None:
    source = torch.tensor([1.0, 1.0, 2.0, -0.5, 0.0], dtype=torch.bfloat16)
    trained = torch.tensor([1.0, 1.0078125, 2.0, 0.5, 2.0**-133], dtype=torch.bfloat16)
    histogram = scan(source, trained).histogram
    assert histogram.changed == 3
    assert histogram.edges.tolist() == [2.0**-133, 2.0**-7, 1.0]
    assert histogram.exact.tolist() == [1, 1, 1]
    assert histogram.inexact.tolist() == [0, 0, 0]
    assert histogram.energy == 1.0 + 2.0**-14 + 2.0**-266
    assert histogram.source_energy == 1 + 1 + 4 + 0.25
    # magnitudes are bf16 bits without the sign: 0, 0.5, 1, 2
    assert histogram.magnitudes.tolist() == [1, 1, 2, 1]
    assert histogram.updated.tolist() == [1, 1, 1, 0]


def test_a_difference_of_more_than_eight_bits_is_inexact_and_kept_whole() -> None:
    source = torch.tensor([1.0, 1.0], dtype=torch.bfloat16)
    trained = torch.tensor([2.0**-9, 1.0], dtype=torch.bfloat16)  # the difference has nine significant bits
    seen = scan(source, trained)
    assert seen.histogram.inexact.tolist() == [1]
    difference = 1 - 2.0**-9
    assert seen.histogram.energy == difference**2
    (members,) = seen.members([bin_of(difference)]).values()
    assert (members.values.tolist(), members.counts.tolist()) == ([difference], [1])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "size", [0, 1, 5, 2047, 2048, 2049, (1 << 17) + 3, pytest.param(9 << 20, marks=pytest.mark.slow)]
)
def test_agrees_with_float64_arithmetic_on_every_coordinate(dtype: torch.dtype, size: int) -> None:
    source, trained = random_pair(size, dtype)
    histogram = scan(source, trained).histogram
    difference = (trained.double() - source.double()).abs().numpy()
    assert histogram.size == size
    assert histogram.changed == int((difference != 0).sum())
    assert histogram.energy == pytest.approx(float((difference**2).sum()), rel=1e-12)
    assert histogram.source_energy == pytest.approx(float((source.double() ** 2).sum()), rel=1e-12)
    counts = np.zeros(BINS, np.int64)
    exponents = [bin_of(d) for d in difference[difference > 0][:5000]]
    np.add.at(counts, exponents, 1)
    if size <= 5000:
        assert histogram.counts.tolist() == counts[counts > 0].tolist()


def test_every_step_between_two_bf16_numbers_counts_as_in_float32() -> None:
    """Each number beside those around it, over powers of two and through zero: few steps are taken from a table, and in
    float32 nothing is."""
    words = torch.arange(0x7F80, dtype=torch.int32)
    words = torch.cat([words, words - 0x8000]).to(torch.int16)
    numbers = words[torch.argsort(words.view(torch.bfloat16).float(), stable=True)].view(torch.bfloat16)
    for step in range(1, 2 * NEAR + 4):
        source, trained = numbers[:-step], numbers[step:]
        tabled, plain = (scan(*pair).histogram for pair in ((source, trained), (source.float(), trained.float())))
        for field in fields(tabled):
            ours, theirs = getattr(tabled, field.name), getattr(plain, field.name)
            np.testing.assert_allclose(ours, theirs, rtol=1e-14, atol=0, err_msg=f"{step}: {field.name}")
        assert step > NEAR or not tabled.inexact.any()


@pytest.mark.parametrize("word", [0x7F80, 0x7F81, 0x7FFF, 0xFF80, 0xFFFF - 0x10000])
@pytest.mark.parametrize("step", [0, 1, -1, 5])
def test_no_step_hides_what_is_not_finite(word: int, step: int) -> None:
    words = torch.tensor([word if word < 0x8000 else word - 0x10000, 1], dtype=torch.int16)
    beside = words + torch.tensor([step, 0], dtype=torch.int16)
    for pair in ((words, beside), (beside, words)):
        with pytest.raises(NonFiniteError):
            scan(*(side.view(torch.bfloat16) for side in pair))


@pytest.mark.parametrize("dtype", DTYPES)
def test_members_are_the_inexact_differences_of_a_bin_largest_first(dtype: torch.dtype) -> None:
    source, trained = random_pair(1 << 18, dtype)
    seen = scan(source, trained)
    difference = (trained.double() - source.double()).abs().numpy()
    chosen = [int(b) for b in seen.histogram.bins[np.argsort(seen.histogram.inexact)[-3:]]]
    finer = Finer(chosen)
    finer.add(source[: 1 << 17], trained[: 1 << 17])
    finer.add(source[1 << 17 :], trained[1 << 17 :])
    for b, members in seen.members(chosen).items():
        edge = seen.histogram.edges[np.searchsorted(seen.histogram.bins, b)]
        inside = np.array([d for d in difference[(difference > edge) & (difference < edge * 1.01)] if bin_of(d) == b])
        assert members.values.tolist() == sorted(inside.tolist(), reverse=True)
        rough = finer.members()[b]
        assert rough.counts.sum() == len(inside)
        for n in (0, 1, len(inside) // 3, len(inside)):
            exact = math.fsum(members.values[:n] ** 2)
            assert members.energy_of_largest(n) == pytest.approx(exact, rel=1e-14)
            assert rough.energy_of_largest(n) == pytest.approx(exact, rel=2.0**-22)


def test_histograms_of_parts_add_up_to_that_of_the_whole() -> None:
    source, trained = random_pair(10_000, torch.bfloat16)
    whole = scan(source, trained).histogram
    parts = total(scan(source[i:j], trained[i:j]).histogram for i, j in ((0, 1), (1, 4000), (4000, 10_000)))
    assert np.array_equal(whole.bins, parts.bins)
    assert np.array_equal(whole.exact, parts.exact)
    assert np.array_equal(whole.updated, parts.updated)
    assert whole.within_eta == parts.within_eta
    assert whole.energy == pytest.approx(parts.energy, rel=1e-14)
    assert total([]).size == 0


@given(st.floats(min_value=2.0**-149, max_value=2.0**128), st.floats(min_value=2.0**-149, max_value=2.0**128))
def test_bins_are_in_order_and_eight_bits_wide(x: float, y: float) -> None:
    assert (bin_of(x) <= bin_of(y)) if x <= y else (bin_of(x) >= bin_of(y))
    mantissa, exponent = math.frexp(x)
    edge = math.ldexp(math.floor(mantissa * 256), exponent - 8)
    assert bin_of(edge) == bin_of(x)
    assert edge <= x < edge * (1 + 2.0**-7) + 2.0**-149


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan])
def test_only_a_positive_number_has_a_bin(value: float) -> None:
    with pytest.raises(ValueError, match="positive"):
        bin_of(value)


@pytest.mark.slow
@given(st.lists(st.integers(0, 0xFFFF), min_size=1, max_size=60))
@settings(max_examples=200)
def test_any_finite_bf16_bits_are_counted_right_and_others_refused(bits: list[int]) -> None:
    words = torch.tensor(bits, dtype=torch.int32).to(torch.int16)
    source = words.view(torch.bfloat16)
    trained = words.flip(0).view(torch.bfloat16)
    if not torch.isfinite(source).all():
        with pytest.raises(NonFiniteError):
            scan(source, trained)
        return
    difference = (trained.double() - source.double()).abs()
    histogram = scan(source, trained).histogram
    assert histogram.changed == int((difference > 0).sum())
    assert histogram.energy == pytest.approx(float((difference**2).sum()), rel=1e-13)


@pytest.mark.parametrize("side", ["source", "trained"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_and_inf_are_named_with_their_place(side: str, value: float, dtype: torch.dtype) -> None:
    tensors = {name: torch.zeros(10, 10, dtype=dtype) for name in ("source", "trained")}
    tensors[side][7, 3] = value
    with pytest.raises(NonFiniteError) as caught:
        scan(tensors["source"], tensors["trained"])
    assert (caught.value.side, caught.value.index, caught.value.count) == (side, 73, 1)


def test_equal_nan_on_both_sides_is_refused_too() -> None:
    tensor = torch.tensor([1.0, math.nan])
    with pytest.raises(NonFiniteError):
        scan(tensor, tensor.clone())


def test_other_shapes_and_dtypes_are_refused() -> None:
    with pytest.raises(ValueError, match="shapes differ"):
        scan(torch.zeros(2), torch.zeros(3))
    with pytest.raises(ValueError, match="dtype"):
        scan(torch.zeros(2, dtype=torch.float64), torch.zeros(2, dtype=torch.float64))
