"""Where a delta lies relative to the leading singular subspaces of its source, and how far these turned.

Everything is computed once per source (its `Basis`) and reused for every trained checkpoint over it. Left singular
vectors span outputs (rows), right ones inputs (columns), whichever side is longer.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from opdlib.metrics.eigen import LinAlgError, largest_first
from opdlib.metrics.gram import Gram, blocks, is_wide
from opdlib.metrics.spectrum import Spectrum, direct, from_gram, gram_of, rounding

SHARES = (0.01, 0.05, 0.1, 0.2)
"""Shares rho of rank and of coordinates; the paper's Tables 9 (0.1) and 10 (all)."""
ANGLE_SHARE = 0.1

_GRAM_REACH = 1e-4
"""Below this fraction of the largest, a singular vector from the Gram matrix is not orthogonal enough (10^-8)."""


def rank_of(share: float, shape: tuple[int, ...]) -> int:
    """k = max(1, floor(share * min(m, n))); the product is rounded to nine decimals first (paper, A.5)."""
    return max(1, math.floor(round(share * min(shape), 9)))


@dataclass(frozen=True)
class Basis:
    """Singular values of a matrix and its leading singular vectors, in the tall form (see `opdlib.metrics.gram`)."""

    shape: tuple[int, int]
    wide: bool
    sigma: torch.Tensor
    """(min(m, n),) float64, largest first."""
    long: torch.Tensor
    """(max(m, n), k) float64 orthonormal columns: the vectors on the longer side."""
    short: torch.Tensor
    """(min(m, n), k) float64 orthonormal columns."""
    rank: int
    """Singular values above max(m, n) * 2^-52 of the largest. A subspace beyond it is not determined by the matrix."""
    route: str

    @property
    def left(self) -> torch.Tensor:
        """(m, k): the vectors on the side of the rows."""
        return self.short if self.wide else self.long

    @property
    def right(self) -> torch.Tensor:
        """(n, k): those on the side of the columns."""
        return self.long if self.wide else self.short


def source_basis(matrix: torch.Tensor) -> Basis:
    """Decompose an (m, n) source with m, n >= 1, with vectors for the largest of SHARES.

    Raises torch.linalg.LinAlgError if that fails.
    """
    return leading_basis(matrix, rank_of(SHARES[-1], matrix.shape))


def leading_basis(matrix: torch.Tensor, k: int) -> Basis:
    """Decompose an (m, n) matrix with vectors for its `k` largest singular values, 1 <= k <= min(m, n).

    Raises torch.linalg.LinAlgError if that fails.
    """
    return _basis(matrix, gram_of(matrix), k)


def _basis(matrix: torch.Tensor, gram: torch.Tensor, k: int, before: torch.Tensor | None = None) -> Basis:
    """Eigenvectors of the smaller Gram matrix, or a float64 SVD if it must be; of the difference to `before`, if given.

    The SVD is taken when the eigensolver fails or when a leading vector belongs to a singular value too small for the
    Gram matrix.
    """
    shape = (int(matrix.shape[0]), int(matrix.shape[1]))
    try:
        eigenvalues, short = largest_first(gram, k)
    except LinAlgError:
        return _direct_basis(matrix, shape, k, before)
    sigma = eigenvalues.sqrt()
    if float(sigma[k - 1]) <= _GRAM_REACH * float(sigma[0]):
        return _direct_basis(matrix, shape, k, before)
    long = torch.empty(max(shape), k, dtype=torch.float64, device=matrix.device)
    for rows, block in _blocks(matrix, before):
        torch.mm(block, short, out=long[rows])
    return Basis(shape, is_wide(matrix), sigma, long.div_(sigma[:k]), short, _rank(sigma, shape), "gram")


def _direct_basis(matrix: torch.Tensor, shape: tuple[int, int], k: int, before: torch.Tensor | None) -> Basis:
    if before is not None:
        matrix = matrix.to(torch.float64) - before.to(torch.float64)
    tall = (matrix.mT if is_wide(matrix) else matrix).to(torch.float64)
    long, sigma, short = torch.linalg.svd(tall, full_matrices=False)
    return Basis(
        shape, is_wide(matrix), sigma, long[:, :k].contiguous(), short[:k].mT.contiguous(), _rank(sigma, shape), "svd"
    )


def _rank(sigma: torch.Tensor, shape: tuple[int, int]) -> int:
    return int((sigma > rounding(max(shape)) * sigma[0]).sum())


def determined(basis: Basis, share: float) -> bool:
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


def expected_drift(shape: tuple[int, int]) -> float:
    """`drift_of_delta` of an isotropic delta, to first order: sqrt(1 / max(m, n)).

    A singular value moves by u^T delta v, whose variance is Fro(delta)^2 / (m n), and there are min(m, n) of them. Good
    while the largest singular value of the delta is small beside the source's smallest ones; a draw tells where not.
    """
    return math.sqrt(1 / max(shape))


def update_basis(
    source: torch.Tensor, trained: torch.Tensor, k: int, known: Basis | None = None
) -> tuple[Basis, Projection | None]:
    """The basis of `trained - source`, (m, n) both, with its `k` leading vectors; and, with the source's basis `known`,
    how much of its energy lies in the directions of that at ANGLE_SHARE of rank.

    The difference is made block by block, and whole only where a float64 SVD must be taken. Raises
    torch.linalg.LinAlgError.
    """
    n = min(source.shape)
    deltas = Gram(source.shape, source.device)
    on_long = known.short.new_zeros(known.long.shape[1], n) if known else None
    for rows, difference in _blocks(trained, source):
        deltas.add(difference)
        if known and on_long is not None:
            on_long.addmm_(known.long[rows].mT, difference)
    gram, inside = deltas.matrix(), None
    if known and on_long is not None:
        inside = _projection(known, float(gram.diagonal().sum()), on_long, gram, (ANGLE_SHARE,))
    return _basis(trained, gram, k, source), inside


def _blocks(matrix: torch.Tensor, before: torch.Tensor | None) -> Iterator[tuple[slice, torch.Tensor]]:
    """The rows of the tall form in float64, of a matrix or of its difference to the one before."""
    if before is None:
        yield from blocks(matrix)
        return
    for (rows, now), (_, then) in zip(blocks(matrix), blocks(before), strict=True):
        yield rows, now - then


@dataclass(frozen=True)
class Turning:
    """Sines of the principal angles between the leading subspaces of source and trained, at a tenth of rank."""

    left_mean: float
    left_max: float
    right_mean: float
    right_max: float
    rotation: Mapping[float, float]
    """The mean sine on the left by share of rank, which the paper calls subspace rotation (A.5)."""


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


def compare(basis: Basis, source: torch.Tensor, trained: torch.Tensor) -> Comparison:
    """Project the delta on the source's subspaces and measure their turning, in two passes over the two matrices.

    What a zero delta or a zero source leaves undefined is NaN, as is a subspace that the source does not determine.
    """
    n, k = basis.short.shape
    deltas, trains = Gram(basis.shape, basis.short.device), Gram(basis.shape, basis.short.device)
    on_long = basis.short.new_zeros(k, n)  # long^T delta
    for (rows, before), (_, after) in zip(blocks(source), blocks(trained), strict=True):
        trains.add(after)
        difference = after - before
        deltas.add(difference)
        on_long.addmm_(basis.long[rows].mT, difference)
    del before, after, difference
    gram = deltas.matrix()
    energy = float(gram.diagonal().sum())
    projection = _projection(basis, energy, on_long, gram)
    own = from_gram(gram, max(basis.shape)) or direct(trained.to(torch.float64) - source.to(torch.float64))
    del gram, deltas, on_long
    other = _basis(trained, trains.matrix(), k)
    drift = float((other.sigma - basis.sigma).norm())
    scale = float(basis.sigma.norm())
    return Comparison(
        spectrum=own,
        projection=projection,
        turning=_turning(basis, other),
        drift=drift / scale if scale > 0 else math.nan,
        drift_of_delta=drift / math.sqrt(energy) if energy > 0 else math.nan,
    )


def _projection(
    basis: Basis, energy: float, on_long: torch.Tensor, gram: torch.Tensor, at: Sequence[float] = SHARES
) -> Projection:
    """From long^T delta, (k, n), and the Gram matrix of the delta, which holds the norm of delta v for every v.

    That norm's square is known to about n * 2^-52 of the delta's energy.
    """
    along_long = (on_long**2).sum(1).cumsum(0)
    along_short = ((gram @ basis.short) * basis.short).sum(0).clamp(min=0).cumsum(0)
    corners = ((on_long @ basis.short) ** 2).cumsum(0).cumsum(1)
    ks = {share: rank_of(share, basis.shape) for share in at}

    def shares(energies: Mapping[float, float]) -> dict[float, float]:
        return {s: e / energy if energy > 0 and determined(basis, s) else math.nan for s, e in energies.items()}

    long = shares({s: float(along_long[k - 1]) for s, k in ks.items()})
    short = shares({s: float(along_short[k - 1]) for s, k in ks.items()})
    joint = shares({s: float(corners[k - 1, k - 1]) for s, k in ks.items()})
    return Projection(joint, *((short, long) if basis.wide else (long, short)))


def _turning(basis: Basis, other: Basis) -> Turning:
    left = {share: _sines(basis, other, share, "left") for share in SHARES}
    right, tenth = _sines(basis, other, ANGLE_SHARE, "right"), left[ANGLE_SHARE]
    rotation = {share: float(sines.mean()) for share, sines in left.items()}
    return Turning(float(tenth.mean()), float(tenth.max()), float(right.mean()), float(right.max()), rotation)


def _sines(basis: Basis, other: Basis, share: float, side: str) -> torch.Tensor:
    """Sines of the principal angles of the leading subspaces, from the residual of the other's off the first's; a
    single NaN where one of them is not determined."""
    if not determined(basis, share) or not determined(other, share):
        return basis.sigma.new_full((1,), math.nan)
    k = rank_of(share, basis.shape)
    a, b = (getattr(one, side)[:, :k] for one in (basis, other))
    residual = b - a @ (a.mT @ b)
    squares: torch.Tensor = torch.linalg.eigvalsh(residual.mT @ residual)
    return squares.clamp(0, 1).sqrt()
