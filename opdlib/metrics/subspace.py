"""Where a delta lies relative to the leading singular subspaces of its source, and how far these turned.

Everything is computed once per source (`SourceBasis`) and reused for every trained checkpoint over it. Left singular
vectors span outputs (rows), right ones inputs (columns), whichever side is longer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from opdlib.metrics.gram import Gram, LinAlgError, blocks, is_wide
from opdlib.metrics.spectrum import Spectrum, direct, from_gram, gram_of

SHARES = (0.01, 0.05, 0.1, 0.2)
"""Shares rho of rank and of coordinates; the paper's Tables 9 (0.1) and 10 (all)."""
ANGLE_SHARE = 0.1

_GRAM_REACH = 1e-4
"""Below this fraction of the largest, a singular vector from the Gram matrix is not orthogonal enough (10^-8)."""


def rank_of(share: float, shape: tuple[int, ...]) -> int:
    """k = max(1, floor(share * min(m, n))); the product is rounded to nine decimals first (paper, A.5)."""
    return max(1, math.floor(round(share * min(shape), 9)))


@dataclass(frozen=True)
class SourceBasis:
    """Singular values of a source matrix and its leading singular vectors, in the tall form (see
    `opdlib.metrics.gram`)."""

    shape: tuple[int, int]
    wide: bool
    sigma: torch.Tensor
    """(min(m, n),) float64, largest first."""
    long: torch.Tensor
    """(max(m, n), K) float64 orthonormal columns: the vectors on the longer side, K = rank_of(0.2)."""
    short: torch.Tensor
    """(min(m, n), K) float64 orthonormal columns."""
    rank: int
    """Singular values above max(m, n) * 2^-52 of the largest. A subspace beyond it is not determined by the matrix."""
    route: str


def source_basis(matrix: torch.Tensor) -> SourceBasis:
    """Decompose an (m, n) source with m, n >= 1: eigenvectors of the smaller Gram matrix, or a float64 SVD if it must
    be.

    The SVD is taken when the eigensolver fails or when a leading vector belongs to a singular value too small for the
    Gram matrix. Raises torch.linalg.LinAlgError if that fails too.
    """
    shape = (int(matrix.shape[0]), int(matrix.shape[1]))
    k = rank_of(SHARES[-1], shape)
    try:
        eigenvalues, vectors = torch.linalg.eigh(gram_of(matrix))
    except LinAlgError:
        return _direct_basis(matrix, shape, k)
    sigma = eigenvalues.flip(0).clamp(min=0).sqrt()
    if float(sigma[k - 1]) <= _GRAM_REACH * float(sigma[0]):
        return _direct_basis(matrix, shape, k)
    short = vectors.flip(1)[:, :k].contiguous()
    long = torch.empty(max(shape), k, dtype=torch.float64, device=matrix.device)
    for rows, block in blocks(matrix):
        long[rows] = (block @ short) / sigma[:k]
    return SourceBasis(shape, is_wide(matrix), sigma, long, short, _rank(sigma, shape), "gram")


def _direct_basis(matrix: torch.Tensor, shape: tuple[int, int], k: int) -> SourceBasis:
    tall = (matrix.mT if is_wide(matrix) else matrix).to(torch.float64)
    long, sigma, short = torch.linalg.svd(tall, full_matrices=False)
    return SourceBasis(
        shape, is_wide(matrix), sigma, long[:, :k].contiguous(), short[:k].mT.contiguous(), _rank(sigma, shape), "svd"
    )


def _rank(sigma: torch.Tensor, shape: tuple[int, int]) -> int:
    return int((sigma > max(shape) * 2.0**-52 * sigma[0]).sum())


def determined(basis: SourceBasis, share: float) -> bool:
    """Whether the source determines its leading subspace at this share: its rank reaches k."""
    return basis.rank >= rank_of(share, basis.shape)


@dataclass(frozen=True)
class Projection:
    """Share of a delta's energy inside the source's leading subspaces, by share of rank; each in [0, 1]."""

    joint: Mapping[float, float]
    """Fro(U_k^T delta V_k)^2 / Fro(delta)^2 (paper, A.5 and Table 9)."""
    left: Mapping[float, float]
    """Fro(U_k^T delta)^2 / Fro(delta)^2."""
    right: Mapping[float, float]
    """Fro(delta V_k)^2 / Fro(delta)^2."""


def expected_projection(shape: tuple[int, int]) -> Projection:
    """What an isotropic delta gives on average: k^2 / (m n) jointly, k / m on the left, k / n on the right."""
    m, n = shape
    ks = {share: rank_of(share, shape) for share in SHARES}
    return Projection(
        {s: k * k / (m * n) for s, k in ks.items()},
        {s: k / m for s, k in ks.items()},
        {s: k / n for s, k in ks.items()},
    )


@dataclass(frozen=True)
class Turning:
    """Sines of the principal angles between the leading subspaces of source and trained, at a tenth of rank."""

    left_mean: float
    """The paper's `subspace rotation` is this one: the mean sine on the left side."""
    left_max: float
    right_mean: float
    right_max: float


@dataclass(frozen=True)
class Comparison:
    """What one trained matrix gives against one source."""

    spectrum: Spectrum
    """Of the delta."""
    projection: Projection
    turning: Turning
    drift: float
    """norm(sigma' - sigma) / norm(sigma): the spectral drift (paper, A.5; papers 2 and 3 call it NSS)."""
    drift_of_delta: float
    """norm(sigma' - sigma) / Fro(delta), the second ratio of the paper's later code."""


def compare(basis: SourceBasis, source: torch.Tensor, trained: torch.Tensor) -> Comparison:
    """Project the delta on the source's subspaces and measure their turning, in two passes over the two matrices.

    What a zero delta or a zero source leaves undefined is NaN, as is a subspace that the source does not determine.
    """
    sums = _Sums(basis)
    for (rows, before), (_, after) in zip(blocks(source), blocks(trained), strict=True):
        sums.add(basis, rows, after - before, after)
    del before, after
    gram = sums.deltas.matrix()
    energy = float(gram.diagonal().sum())
    own = from_gram(gram, max(basis.shape)) or direct(trained.to(torch.float64) - source.to(torch.float64))
    del gram, sums.deltas
    eigenvalues, vectors = torch.linalg.eigh(sums.trains.matrix())
    sigma = eigenvalues.flip(0).clamp(min=0).sqrt()
    vectors = vectors[:, -rank_of(ANGLE_SHARE, basis.shape) :].flip(1)
    drift = float((sigma - basis.sigma).norm())
    scale = float(basis.sigma.norm())
    return Comparison(
        spectrum=own,
        projection=_projection(basis, energy, sums),
        turning=_turning(basis, trained, sigma, vectors),
        drift=drift / scale if scale > 0 else math.nan,
        drift_of_delta=drift / math.sqrt(energy) if energy > 0 else math.nan,
    )


class _Sums:
    """What one pass over the rows of a pair adds up."""

    def __init__(self, basis: SourceBasis):
        n, k = basis.short.shape
        zeros = basis.short.new_zeros
        self.deltas, self.trains = Gram(n, basis.short.device), Gram(n, basis.short.device)
        self.on_long = zeros(k, n)
        """long^T delta"""
        self.on_short = zeros(k)
        """Squared norms of the columns of delta short."""
        self.on_both = zeros(k, k)
        """long^T delta short"""

    def add(self, basis: SourceBasis, rows: slice, difference: torch.Tensor, after: torch.Tensor) -> None:
        """Add one block of rows: of the delta and of the trained matrix."""
        self.deltas.add(difference)
        self.trains.add(after)
        long = basis.long[rows]
        projected = difference @ basis.short
        self.on_short += torch.linalg.vector_norm(projected, dim=0) ** 2
        self.on_long.addmm_(long.mT, difference)
        self.on_both.addmm_(long.mT, projected)


def _projection(basis: SourceBasis, energy: float, sums: _Sums) -> Projection:
    along_long = (sums.on_long**2).sum(1).cumsum(0)
    along_short = sums.on_short.cumsum(0)
    corners = (sums.on_both**2).cumsum(0).cumsum(1)
    ks = {share: rank_of(share, basis.shape) for share in SHARES}

    def shares(energies: Mapping[float, float]) -> dict[float, float]:
        return {s: e / energy if energy > 0 and determined(basis, s) else math.nan for s, e in energies.items()}

    long = shares({s: float(along_long[k - 1]) for s, k in ks.items()})
    short = shares({s: float(along_short[k - 1]) for s, k in ks.items()})
    joint = shares({s: float(corners[k - 1, k - 1]) for s, k in ks.items()})
    return Projection(joint, *((short, long) if basis.wide else (long, short)))


def _turning(basis: SourceBasis, trained: torch.Tensor, sigma: torch.Tensor, vectors: torch.Tensor) -> Turning:
    k = rank_of(ANGLE_SHARE, basis.shape)
    if not determined(basis, ANGLE_SHARE) or _rank(sigma, basis.shape) < k:
        return Turning(math.nan, math.nan, math.nan, math.nan)
    if float(sigma[k - 1]) <= _GRAM_REACH * float(sigma[0]):
        other = _direct_basis(trained, basis.shape, k)
        long, short = other.long, other.short
    else:
        short = vectors
        long = torch.cat([(block @ short) / sigma[:k] for _, block in blocks(trained)])
    sides = [_sines(basis.long[:, :k], long), _sines(basis.short[:, :k], short)]
    left, right = reversed(sides) if basis.wide else sides
    return Turning(float(left.mean()), float(left.max()), float(right.mean()), float(right.max()))


def _sines(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Sines of the principal angles of two subspaces with orthonormal columns, from the residual of b off a."""
    residual = b - a @ (a.mT @ b)
    squares: torch.Tensor = torch.linalg.eigvalsh(residual.mT @ residual)
    return squares.clamp(0, 1).sqrt()
