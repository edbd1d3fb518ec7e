from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import ThreadpoolController

from opdlib.metrics import eigen
from opdlib.metrics.eigen import ORTHOGONALITY, LinAlgError, largest_first, one_blas_thread
from opdlib.metrics.geometry import geometry
from opdlib.metrics.spectrum import gram_of
from opdlib.metrics.subspace import source_basis

from .test_spectrum import gaussian, with_values


def check(gram: torch.Tensor, count: int) -> None:
    """Values, vectors and orthogonality against numpy's solver, within the bounds that the module states."""
    n = len(gram)
    values, vectors = largest_first(gram.clone(), count)
    exact = np.linalg.eigvalsh(gram.numpy())[::-1].clip(0)
    bound = 4 * n * 2.0**-52 * max(exact[0], 1e-300)
    assert values.numpy() == pytest.approx(exact, rel=0, abs=bound)
    assert vectors.shape == (n, count)
    assert float((vectors.mT @ vectors - torch.eye(count)).abs().max()) <= 2 * ORTHOGONALITY
    assert float((gram @ vectors - vectors * values[:count]).norm(dim=0).max()) <= bound


@pytest.mark.parametrize("n", [1, 2, 3, 10, 97, 300])
def test_values_and_leading_vectors_agree_with_a_full_solver(n: int) -> None:
    gram = gram_of(gaussian((2 * n, n)))
    for count in {1, max(1, n // 10), max(1, n // 5), n}:
        check(gram, count)
    values, none = largest_first(gram.clone())
    assert none.shape == (n, 0)
    assert torch.equal(values, largest_first(gram.clone(), 1)[0]), "the vectors asked for change no value"


@pytest.mark.parametrize(
    "values",
    [[3.0] * 30, [2.0] * 10 + [1.0] * 20, [1.0] + [0.0] * 29, [1.0, 1 - 1e-14, 1 - 1e-9] + [0.5] * 27, [0.0] * 30],
)
def test_repeated_values_give_right_vectors_or_an_error(values: list[float]) -> None:
    turn = torch.linalg.qr(gaussian((30, 30))).Q
    for gram in (torch.diag(torch.tensor(values).double()), (turn * torch.tensor(values).double()) @ turn.mT):
        gram = (gram + gram.mT) / 2
        try:
            check(gram, 6)
        except LinAlgError:
            assert not any(values), "only a zero matrix is left to another solver"


@given(st.integers(0, 10**6), st.integers(1, 40), st.integers(1, 40))
@settings(max_examples=60, deadline=None)
def test_blocks_that_do_not_touch(seed: int, a: int, b: int) -> None:
    """A tridiagonal form may fall apart, and two parts may have equal values: right vectors, or an error that leaves
    them to the SVD."""
    one, other = (gaussian((n + 2, n), seed) for n in (a, b))
    try:
        check(torch.block_diag(gram_of(one), gram_of(other), gram_of(one)), 1 + (a + b) // 5)
    except LinAlgError:
        basis = source_basis(torch.block_diag(one, other, one))
        for vectors in (basis.long, basis.short):
            errors = vectors.mT @ vectors - torch.eye(vectors.shape[1], dtype=torch.float64)
            assert float(errors.abs().max()) < 1e-12


@pytest.mark.parametrize("scale", [1e-60, 1e60])
def test_scales_of_float32_squared(scale: float) -> None:
    check(gram_of(gaussian((60, 40))) * scale, 8)


def test_threads_beside_each_other_give_the_same_bits() -> None:
    grams = [gram_of(gaussian((90, 60), seed)) for seed in range(16)]

    def solve(gram: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return largest_first(gram.clone(), 12)

    alone = [solve(g) for g in grams]
    with one_blas_thread(), ThreadPoolExecutor(4) as pool:
        together = list(pool.map(solve, grams))
    for one, other in zip(alone, together, strict=True):
        assert all(map(torch.equal, one, other))


def test_the_limit_of_threads_is_lifted_again() -> None:
    def threads() -> list[int]:
        return [c.num_threads for c in ThreadpoolController().select(user_api="blas").lib_controllers]

    with one_blas_thread():
        pass  # the libraries are loaded
    with ThreadpoolController().limit(limits=2, user_api="blas"):
        before = threads()
        assert set(before) == {2}
        with one_blas_thread():
            largest_first(gram_of(gaussian((20, 10))), 2)
            assert set(threads()) == {1}
        assert threads() == before


def test_vectors_that_are_not_orthogonal_are_refused_and_the_svd_takes_over(monkeypatch: pytest.MonkeyPatch) -> None:
    source = with_values([1.0 - i / 60 for i in range(40)], (60, 40))
    trained = source + 1e-3 * gaussian((60, 40))
    usual = geometry(source, trained)
    monkeypatch.setattr(eigen, "ORTHOGONALITY", -1.0)
    with pytest.raises(LinAlgError, match="orthogonal"):
        largest_first(gram_of(source), 8)
    found = geometry(source, trained)
    assert (usual.route, found.route) == ("gram/gram", "gram/svd")
    assert found.projection.joint == pytest.approx(usual.projection.joint, rel=1e-9)
    assert found.turning.left_mean == pytest.approx(usual.turning.left_mean, rel=1e-6)
    assert found.drift == pytest.approx(usual.drift, rel=1e-9)


def test_a_routine_that_fails_is_an_error() -> None:
    with pytest.raises(LinAlgError, match="dsterf failed with -1"):
        eigen._lapack("dsterf", -1, np.zeros(1), np.zeros(1))
