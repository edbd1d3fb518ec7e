"""Overlap of the update masks of two trained checkpoints over one source."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray

from opdlib.metrics import code_kernels


@dataclass(frozen=True)
class Counts:
    """Coordinates of a part of a tensor, of one, or of several together."""

    size: int
    a: int
    """Updated in the first: abs(delta) > atol."""
    b: int
    both: int
    alike: int = 0
    """Updated in both, in the same direction."""


def count(source: torch.Tensor, a: torch.Tensor, b: torch.Tensor, atol: float) -> list[Counts]:
    """Count updates with abs(trained - source) > atol, subtracted in float64, for three tensors of one shape.

    One entry for every binade of abs(source) that holds a coordinate, from the smallest up. Zeros and subnormals, which
    have the same exponent bits, are one binade.
    """
    arrays = [t.to(torch.float32).contiguous().flatten().numpy() for t in (source, a, b)]
    found = np.zeros((256, 5), np.int64)
    code_kernels.count_overlap(*arrays, atol, found)
    return [Counts(*map(int, row)) for row in found if row[0]]


def total(counts: Iterable[Counts]) -> Counts:
    """All coordinates together."""
    listed = list(counts)
    return Counts(*(sum(getattr(c, f.name) for c in listed) for f in fields(Counts)))


@dataclass(frozen=True)
class Overlap:
    """Shares in [0, 1]; NaN where a mask is empty."""

    o1: float
    """Share of the first mask that lies in the second (paper, Table 4)."""
    o2: float
    """Share of the second mask that lies in the first."""
    jaccard: float
    """Intersection over union (paper 3)."""


def overlap(counts: Counts) -> Overlap:
    """The observed overlap."""
    return _shares(counts.both, counts.a, counts.b)


def expected_globally(counts: Counts) -> Overlap:
    """If both masks were drawn over all coordinates, independently, at their densities: the paper's random baseline."""
    both = counts.a * counts.b / counts.size if counts.size else 0.0
    return _shares(both, counts.a, counts.b)


def expected_within(parts: Sequence[Counts]) -> Overlap:
    """If they were drawn independently within every part, at each part's own densities.

    With tensors as parts: this much overlap comes from the two runs preferring the same tensors, whatever they do
    inside them. With the binades of every tensor as parts: this much comes from preferring the same tensors and weights
    of the same size. bf16 alone makes two runs prefer small weights, whose grid is finer.
    """
    whole = total(parts)
    return _shares(math.fsum(c.a * c.b / c.size for c in parts if c.size), whole.a, whole.b)


def equal_signs(counts: Counts) -> float:
    """Share of the coordinates updated in both that moved in the same direction; NaN if there are none.

    Half by chance, if the two deltas have nothing to do with each other.
    """
    return counts.alike / counts.both if counts.both else math.nan


def latent_cosine(parts: Sequence[Counts]) -> float:
    """The cosine of two updates before rounding that their overlap needs, in [-1, 1]; NaN where a mask is empty.

    Hypothesis: in each part the two latent updates of a weight are bivariate Gaussian with one correlation everywhere,
    and a weight is updated if its latent update exceeds a threshold, which the part's density gives. Passing the
    binades of every tensor as parts is right for bf16: inside a binade all weights have one grid. The correlation is
    the one that gives the observed number of weights updated in both; its sign is that of the majority of
    `equal_signs`, for the overlap does not tell it. 0 if both are no more than independence gives.
    """
    from scipy.optimize import brentq

    whole = total(parts)
    some = [c for c in parts if c.a and c.b]
    if not whole.a or not whole.b:
        return math.nan
    sizes, in_a, in_b = (np.array([getattr(c, name) for c in some], float) for name in ("size", "a", "b"))

    def excess(correlation: float) -> float:
        return float(sizes @ _both(in_a / sizes, in_b / sizes, correlation)) - whole.both

    if not some or excess(0.0) >= 0:
        return 0.0
    most = 1 - 1e-9
    found: float = most if excess(most) <= 0 else brentq(excess, 0.0, most, xtol=1e-9)
    return found if 2 * whole.alike >= whole.both else -found


def _both(p: NDArray[np.float64], q: NDArray[np.float64], correlation: float) -> NDArray[np.float64]:
    """P(abs(x) > s, abs(y) > t) of standard normal x, y with P(abs(x) > s) = p and P(abs(y) > t) = q.

    Plackett's integral over the angle up to asin(correlation), by Gauss and Legendre; exact for correlation 0.
    """
    from scipy.special import ndtri

    s, t = (-ndtri(share / 2)[:, None] for share in (p, q))
    nodes, weights = _legendre()
    angle = math.asin(correlation) * (nodes + 1) / 2
    squares, product = s**2 + t**2, 2 * s * t * np.sin(angle)
    kernel = np.exp(-(squares - product) / (2 * np.cos(angle) ** 2))
    kernel -= np.exp(-(squares + product) / (2 * np.cos(angle) ** 2))
    both: NDArray[np.float64] = p * q + math.asin(correlation) / (2 * math.pi) * (kernel @ weights)
    return both


def _shares(both: float, a: int, b: int) -> Overlap:
    union = a + b - both
    return Overlap(both / a if a else math.nan, both / b if b else math.nan, both / union if union else math.nan)


@cache
def _legendre() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """64 nodes and their weights: an eigenproblem, which took four fifths of a comparison when each step solved it."""
    nodes, weights = np.polynomial.legendre.leggauss(64)
    return nodes, weights
