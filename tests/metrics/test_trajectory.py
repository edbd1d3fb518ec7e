"""Subspaces on their way, against plain numpy; walks against what theory says of them."""

import math

import numpy as np
import pytest
import torch

from opdlib.metrics.spectrum import spectrum
from opdlib.metrics.subspace import leading_basis
from opdlib.metrics.trajectory import DIRECTIONS, Stride, shares_inside, similarity, walk, walk_similarity

SHAPE = (60, 40)


def matrix(seed: int = 0, shape: tuple[int, int] = SHAPE) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("wide", [False, True])
def test_sides_and_shares_are_those_of_a_plain_decomposition(wide: bool) -> None:
    source, delta = (m.mT if wide else m for m in (matrix(0), matrix(1)))
    u, _, vt = np.linalg.svd(source.numpy(), full_matrices=False)
    u, v = u[:, :5], vt[:5].T
    basis = leading_basis(source, 5)
    assert similarity(basis.left, torch.from_numpy(u)) == pytest.approx(1)
    assert similarity(basis.right, torch.from_numpy(v)) == pytest.approx(1)
    d = delta.numpy()
    wanted = [np.linalg.norm(part) ** 2 / np.linalg.norm(d) ** 2 for part in (u.T @ d @ v, u.T @ d, d @ v)]
    assert shares_inside(basis, delta) == pytest.approx(wanted)


def test_similarity_is_the_share_of_directions_in_common() -> None:
    axes = torch.eye(40, dtype=torch.float64)
    assert similarity(axes[:, :16], axes[:, :16]) == 1
    assert similarity(axes[:, :16], axes[:, 16:32]) == 0
    assert similarity(axes[:, :16], axes[:, 12:28]) == pytest.approx(4 / 16)


def test_a_walk_has_the_norms_and_spectra_that_it_was_given() -> None:
    sigma = tuple(float(s) for s in range(20, 4, -1))
    strides = [Stride(100.0, ()), Stride(60.0, sigma)]
    sums = [total.double().clone() for total in walk(SHAPE, strides, np.random.default_rng(0))]
    assert float(sums[0].norm()) == pytest.approx(100, rel=1e-5)
    second = sums[1] - sums[0]
    assert float(second.norm()) == pytest.approx(60, rel=0.05)
    assert float(spectrum(second).sigma[0]) == pytest.approx(20, rel=0.15)
    alone = Stride(math.sqrt(sum(s * s for s in sigma)), sigma)
    narrow = next(walk(SHAPE, [alone], np.random.default_rng(0)))
    assert spectrum(narrow).sigma[:DIRECTIONS].tolist() == pytest.approx(sigma, rel=1e-5)


def test_unrelated_strides_are_alike_in_what_the_end_keeps_of_them() -> None:
    """One strong stride after weak ones: until it comes, the sum has nothing of the end but chance."""
    strides = [*[Stride(1.0, ())] * 3, Stride(1000.0, ())]
    found = walk_similarity(SHAPE, strides, np.random.default_rng(0))
    chance = DIRECTIONS / SHAPE[0], DIRECTIONS / SHAPE[1]
    assert found[-1] == pytest.approx((1, 1))
    for left, right in found[:-1]:
        assert left == pytest.approx(chance[0], abs=0.1)
        assert right == pytest.approx(chance[1], abs=0.1)
    early = walk_similarity(SHAPE, strides[::-1], np.random.default_rng(0))
    assert min(early[0]) > 0.99, "what came first is nearly all there is"


def test_where_nothing_has_moved_there_is_no_subspace() -> None:
    found = walk_similarity(SHAPE, [Stride(0.0, ()), Stride(1.0, ())], np.random.default_rng(0))
    assert np.isnan(found[0]).all()
    assert np.isnan(walk_similarity((60, DIRECTIONS), [Stride(1.0, ())], np.random.default_rng(0))).all()
