"""Singular values of a matrix and the numbers that depend on nothing else.

Route `gram`: square roots of the eigenvalues of the smaller Gram matrix in float64. With error bound
`bound = max(m, n) * 2^-52` relative to the largest eigenvalue, a singular value at x times the largest is known to
`bound / (2 x)` relative to the largest: 10^-9 at x = 10^-3, and nothing is known below x = sqrt(bound). Where that
decides on a rank (at a tolerance, or whether a value is 0), or the eigensolver fails, route `svd` takes over: a float64
singular value decomposition, in which a value up to `bound` times the largest is 0.
"""

import math
from dataclasses import dataclass

import torch

from opdlib.metrics.eigen import LinAlgError, largest_first
from opdlib.metrics.gram import Gram, blocks, is_wide

RANK_TOLERANCES = (1e-6, 1e-5, 1e-4)
"""Relative to the largest singular value; the paper's Table 9 uses 1e-5."""
TOP = (1, 2, 4, 8, 16, 32, 64)
"""Numbers of leading singular values whose energy is reported; the paper's Table 9 has 1, 8 and 16."""
RANK_SHARES = (0.01, 0.05, 0.1)
HILL_SHARE = 0.1


@dataclass(frozen=True)
class Spectrum:
    """Singular values of one matrix: the shared input of every rank metric."""

    sigma: torch.Tensor
    """(min(m, n),) float64 on the CPU, largest first, all >= 0; 0 where the matrix has no such direction."""
    route: str
    """How they were computed: `gram` or `svd`."""

    def __post_init__(self) -> None:
        s = self.sigma
        if s.ndim != 1 or (len(s) and (float(s.min()) < 0 or bool((s[1:] > s[:-1]).any()))):
            raise ValueError(f"singular values must be a descending vector of numbers >= 0, not {s}")


def spectrum(matrix: torch.Tensor) -> Spectrum:
    """Singular values of an (m, n) matrix of any float dtype, by the cheapest route that decides every rank.

    Raises torch.linalg.LinAlgError if even the direct decomposition fails.
    """
    if 0 in matrix.shape:
        return Spectrum(torch.zeros(0, dtype=torch.float64), "gram")
    return from_gram(gram_of(matrix), max(matrix.shape)) or direct(matrix)


def from_gram(gram: torch.Tensor, larger_side: int) -> Spectrum | None:
    """Singular values from the smaller Gram matrix, which is used up.

    None if the solver fails or a rank cannot be decided from them. A row of zeros is one value that is surely 0: many
    deltas leave whole inputs or outputs alone.
    """
    there = int((gram.diagonal() > 0).sum())
    try:
        eigenvalues, _ = largest_first(gram)
    except LinAlgError:
        return None
    eigenvalues[there:] = 0
    return None if undecided(eigenvalues[:there], larger_side) else Spectrum(eigenvalues.sqrt().cpu(), "gram")


def gram_of(matrix: torch.Tensor) -> torch.Tensor:
    """The smaller Gram matrix, (n, n) float64 with n = min(m, n)."""
    gram = Gram(matrix.shape, matrix.device)
    for _, block in blocks(matrix):
        gram.add(block)
    return gram.matrix()


def direct(matrix: torch.Tensor) -> Spectrum:
    """Singular values by a float64 decomposition of the matrix itself; what rounding alone could give is 0."""
    tall = matrix.mT if is_wide(matrix) else matrix
    sigma = torch.linalg.svdvals(tall.to(torch.float64)).cpu()
    return Spectrum(torch.where(sigma > rounding(len(tall)) * sigma[0], sigma, 0.0), "svd")


def rounding(larger_side: int) -> float:
    """Error bound of a decomposition in float64, relative to the largest value; that of numpy's `matrix_rank`."""
    return larger_side * 2.0**-52


def undecided(eigenvalues: torch.Tensor, larger_side: int) -> bool:
    """Whether an eigenvalue lies so near 0 or a squared rank tolerance that its error decides which side it is on."""
    relative = eigenvalues / eigenvalues[:1]
    cuts = relative.new_tensor((0.0, *RANK_TOLERANCES)) ** 2
    return bool(((relative[:, None] - cuts).abs() <= rounding(larger_side)).any())


def top_share(s: Spectrum, k: int) -> float:
    """Energy of the k largest singular values over that of all, in [0, 1]; NaN for a zero matrix (paper, A.5)."""
    squares = s.sigma**2
    whole = float(squares.sum())
    return float(squares[:k].sum()) / whole if whole > 0 else math.nan


def stable_rank(s: Spectrum) -> float:
    """Sum of sigma^2 over the largest sigma^2, from 1 to min(m, n); scale-free; NaN for a zero matrix (paper, A.5)."""
    if not len(s.sigma) or s.sigma[0] == 0:
        return math.nan
    return float(((s.sigma / s.sigma[0]) ** 2).sum())


def effective_rank(s: Spectrum) -> float:
    """exp of the entropy of sigma / sum(sigma), from 1 to min(m, n); NaN for a zero matrix.

    Source: Roy and Vetterli 2007, and the code of the paper.
    """
    if not len(s.sigma) or s.sigma[0] == 0:
        return math.nan
    p = s.sigma / s.sigma.sum()
    return float(torch.special.entr(p).sum().exp())


def rank_share(s: Spectrum, tolerance: float) -> float:
    """Share of singular values above tolerance * the largest, in (0, 1]; NaN for a zero matrix (paper, Table 9).

    A bf16 delta is rounded, and rounding noise has full rank: near 1 here says nothing about what was learned.
    """
    if not len(s.sigma) or s.sigma[0] == 0:
        return math.nan
    return float((s.sigma > tolerance * s.sigma[0]).sum()) / len(s.sigma)


def hill_exponent(s: Spectrum) -> float:
    """Hill estimate of the tail exponent on the top tenth of the singular values (paper 2): larger is lighter.

    1 / mean(log(sigma_i / sigma_k), i < k) with k = `tail(n)`, n = min(m, n). NaN if sigma_k is 0, which is to say that
    the rank is below k, if there are fewer than two values, or if the first k are all equal.
    """
    k = tail(len(s.sigma))
    if len(s.sigma) < k or s.sigma[k - 1] == 0:
        return math.nan
    mean = float((s.sigma[: k - 1] / s.sigma[k - 1]).log().mean())
    return 1 / mean if mean > 0 else math.nan


def tail(n: int) -> int:
    """Singular values that the Hill estimate of n of them looks at: max(2, floor(0.1 n))."""
    return max(2, int(HILL_SHARE * n))
