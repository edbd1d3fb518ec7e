import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from opdlib.metrics import gram
from opdlib.metrics.gram import ROWS
from opdlib.metrics.spectrum import (
    RANK_TOLERANCES,
    Spectrum,
    direct,
    effective_rank,
    gram_of,
    hill_exponent,
    rank_share,
    spectrum,
    stable_rank,
    top_share,
)

from . import geometry_reference as reference

SHAPES = [(1, 1), (1, 7), (7, 1), (5, 5), (40, 12), (12, 40), (390, 385), (ROWS + 3, 20), (20, ROWS + 3)]


def gaussian(shape: tuple[int, int], seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def with_values(sigma: list[float], shape: tuple[int, int], seed: int = 0) -> torch.Tensor:
    """A matrix with these singular values, random vectors."""
    u = torch.linalg.qr(gaussian((shape[0], len(sigma)), seed)).Q
    v = torch.linalg.qr(gaussian((shape[1], len(sigma)), seed + 1)).Q
    return (u * torch.tensor(sigma, dtype=torch.float64)) @ v.mT


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_singular_values_agree_with_a_float64_svd(shape: tuple[int, int], dtype: torch.dtype) -> None:
    matrix = gaussian(shape).to(dtype)
    found, exact = spectrum(matrix), reference.singular_values(reference.wide(matrix))
    assert len(found.sigma) == min(shape)
    assert found.sigma.numpy() == pytest.approx(exact, rel=1e-8, abs=1e-8 * exact[0])


@pytest.mark.parametrize("shape", SHAPES)
def test_the_gram_matrix_is_the_smaller_one_and_symmetric(shape: tuple[int, int]) -> None:
    matrix = gaussian(shape)
    gram = gram_of(matrix)
    tall = matrix if shape[0] >= shape[1] else matrix.mT
    assert torch.equal(gram, gram.mT)
    torch.testing.assert_close(gram, tall.mT @ tall, rtol=1e-12, atol=1e-12)


def test_singular_values_down_to_a_ten_millionth_are_resolved() -> None:
    """The claim of the docstring: an error of bound / (2 x) for a value at x times the largest."""
    sigma = [10.0**-e for e in range(8)]
    found = spectrum(with_values(sigma, (300, 60))).sigma[:8]
    for x, value in zip(sigma, found.tolist(), strict=True):
        assert abs(value - x) <= 300 * 2.0**-52 / (2 * x) + 1e-14


def test_a_rank_that_the_gram_matrix_cannot_decide_is_decided_by_the_svd() -> None:
    ill = with_values([10.0 ** (-12 * i / 39) for i in range(40)], (60, 40))  # condition 10^12
    found = spectrum(ill)
    assert found.route == "svd"
    exact = reference.singular_values(reference.wide(ill))
    for tolerance in RANK_TOLERANCES:
        assert rank_share(found, tolerance) == (exact > tolerance * exact[0]).mean()
    assert spectrum(gaussian((60, 40))).route == "gram"


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1.0, 1e30])
def test_scale_free_metrics_do_not_see_the_scale(scale: float) -> None:
    matrix = gaussian((50, 30))
    plain, scaled = spectrum(matrix), spectrum((matrix * scale).to(torch.float64))
    for metric in (stable_rank, effective_rank, hill_exponent):
        assert metric(scaled) == pytest.approx(metric(plain), rel=1e-9)
    assert top_share(scaled, 3) == pytest.approx(top_share(plain, 3), rel=1e-9)
    assert rank_share(scaled, 1e-5) == rank_share(plain, 1e-5)


def test_exponents_far_apart_in_one_matrix() -> None:
    matrix = gaussian((30, 20)).float()
    matrix[:10] *= 1e30
    matrix[10:] *= 1e-30
    exact = reference.singular_values(reference.wide(matrix))
    found = spectrum(matrix)
    # what the Gram matrix cannot see is below the square root of its bound
    assert found.sigma.numpy() == pytest.approx(exact, abs=math.sqrt(30 * 2.0**-52) * exact[0])
    assert rank_share(found, 1e-5) == 0.5


def test_known_answers() -> None:
    rank_three = with_values([3.0, 2.0, 1.0], (40, 25))
    s = spectrum(rank_three)
    assert rank_share(s, 1e-5) == 3 / 25
    assert stable_rank(s) == pytest.approx(14 / 9, rel=1e-12)
    assert top_share(s, 1) == pytest.approx(9 / 14, rel=1e-12)
    assert top_share(s, 64) == pytest.approx(1.0)
    repeated = Spectrum(torch.full((8,), 2.0, dtype=torch.float64), "gram")
    assert stable_rank(repeated) == 8
    assert effective_rank(repeated) == pytest.approx(8)
    assert math.isnan(hill_exponent(repeated)), "no tail to fit"


def of_rank(rank: int, shape: tuple[int, int], how: str) -> torch.Tensor:
    """A matrix of this rank: a product of two factors, rows (of a wide one columns) of zeros but for the first few, or
    the same with the zeros on the shorter side."""
    if how == "product":
        return gaussian((shape[0], rank)) @ gaussian((rank, shape[1]), 1)
    matrix = torch.zeros(shape, dtype=torch.float64)
    along = (shape[0] >= shape[1]) == (how == "long side")
    kept = matrix[:rank] if along else matrix[:, :rank]
    kept.copy_(gaussian((kept.shape[0], kept.shape[1])))
    return matrix


PLANTED = [
    *(
        (rank, shape, how, scale)
        for rank in (1, 5, 10, 20, 24, 25)
        for shape, how, scale in (
            ((300, 256), "product", 1e9),
            ((256, 300), "product", 1e-9),
            ((256, 300), "long side", 1e9),
            ((300, 256), "short side", 1e-9),
        )
    ),
    (10, (2000, 256), "long side", 1.0),
    (20, (2000, 256), "long side", 1.0),
]


@pytest.mark.parametrize(("rank", "shape", "how", "scale"), PLANTED)
def test_a_planted_rank_is_found_and_no_tail_is_fitted_to_roundoff(
    rank: int, shape: tuple[int, int], how: str, scale: float
) -> None:
    """Hill looks at 25 of 256 singular values. The reference is the rank that was planted and numpy's SVD up to it."""
    matrix = of_rank(rank, shape, how) * scale
    exact = reference.singular_values(reference.wide(matrix)).copy()
    exact[rank:] = 0
    s = spectrum(matrix)
    assert s.route == ("gram" if how == "short side" else "svd"), "a zero row of the Gram matrix is surely a zero"
    for found in (s, direct(matrix)):
        assert int((found.sigma > 0).sum()) == rank
        assert found.sigma.numpy() == pytest.approx(exact, rel=1e-9)
        p = exact[:rank] / exact.sum()
        assert effective_rank(found) == pytest.approx(math.exp(-(p * np.log(p)).sum()), rel=1e-9)
        if rank < 25:
            assert math.isnan(hill_exponent(found))
        else:
            assert hill_exponent(found) == pytest.approx(reference.hill(exact), rel=1e-9)
    if rank == 1:
        assert effective_rank(s) == 1


@given(st.integers(0, 10**6), st.integers(1, 30), st.integers(1, 30), st.integers(1, 30))
@settings(max_examples=60, deadline=None)
def test_any_planted_rank_is_found(seed: int, m: int, n: int, rank: int) -> None:
    rank = min(rank, m, n)
    matrix = with_values([1 + i / rank for i in range(rank)][::-1], (m, n), seed)
    assert int((spectrum(matrix).sigma > 0).sum()) == rank


@pytest.mark.parametrize("shape", [(9, 4), (1, 1), (0, 3)])
def test_a_zero_matrix_has_no_rank_to_speak_of(shape: tuple[int, int]) -> None:
    s = spectrum(torch.zeros(shape))
    for value in (stable_rank(s), effective_rank(s), hill_exponent(s), rank_share(s, 1e-5), top_share(s, 1)):
        assert math.isnan(value)


@given(st.integers(0, 10**6), st.integers(2, 40), st.integers(2, 40))
@settings(max_examples=40, deadline=None)
def test_invariances_and_ranges(seed: int, m: int, n: int) -> None:
    matrix = gaussian((m, n), seed)
    s = spectrum(matrix)
    rank = min(m, n)
    assert 1 <= stable_rank(s) <= rank + 1e-9
    assert 1 <= effective_rank(s) <= rank + 1e-9
    shares = [top_share(s, k) for k in range(1, rank + 1)]
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1.0)
    turned = torch.linalg.qr(gaussian((m, m), seed + 1)).Q @ matrix
    for other in (turned, matrix.mT.contiguous(), matrix[torch.randperm(m)]):
        assert spectrum(other).sigma.numpy() == pytest.approx(s.sigma.numpy(), rel=1e-6, abs=1e-7 * float(s.sigma[0]))
    if rank >= 20:
        assert hill_exponent(s) == pytest.approx(reference.hill(np.asarray(s.sigma)), rel=1e-9)


def test_a_spectrum_must_descend_and_be_nonnegative() -> None:
    for values in ([1.0, 2.0], [1.0, -1.0]):
        with pytest.raises(ValueError, match="descending"):
            Spectrum(torch.tensor(values), "gram")


def test_the_direct_route_agrees() -> None:
    matrix = gaussian((33, 21))
    assert direct(matrix).sigma.numpy() == pytest.approx(spectrum(matrix).sigma.numpy(), rel=1e-9)


def test_the_threads_that_share_a_tall_matrix_change_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = gaussian((3 * ROWS + 5, 401))
    monkeypatch.setattr(gram, "_TALL", len(matrix))
    shared = gram_of(matrix)
    monkeypatch.setattr(gram, "_helpers", lambda: gram.ThreadPoolExecutor(1))
    assert torch.equal(gram_of(matrix), shared)
    assert torch.allclose(shared, matrix.mT @ matrix, rtol=1e-12, atol=1e-9)
