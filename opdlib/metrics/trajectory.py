"""A matrix on its way through training: the directions of its update, and whether they are those of the end.

The update after a step is W_t - W_0; the stride is what was added since the step measured before. Subspaces are spanned
by the leading DIRECTIONS singular vectors of the update, on the left or on the right (paper 2: Sim_K with K = 16).

A running sum resembles its own end even if none of its strides knows of another: what was added by then is a part of
it. So similarity to the last subspace is read against walks of unrelated strides, drawn once, from a seed, for each
matrix:

| control | hypothesis | held fixed | similarity above it means |
| --- | --- | --- | --- |
| norms | strides are independent and have no preferred direction | shape, norm of each stride | strides have few directions, or share them |
| spectra | the directions of a stride have nothing to do with those of another | the same, and the leading DIRECTIONS singular values of each stride | strides share directions |
"""  # noqa: E501

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from opdlib.metrics.nulls import with_spectrum
from opdlib.metrics.subspace import Basis, leading_basis

DIRECTIONS = 16
"""K of the leading subspace of an update."""


@dataclass(frozen=True)
class Stride:
    """What the controls keep of a change between two measured steps."""

    norm: float
    """Frobenius norm, >= 0."""
    sigma: tuple[float, ...]
    """Its largest singular values that are kept, largest first; none: only the norm is."""


def locks(basis: Basis) -> bool:
    """Whether a matrix determines a leading subspace that is a part of the whole on both sides."""
    return min(basis.shape) > DIRECTIONS and basis.rank >= DIRECTIONS


def similarity(a: Tensor, b: Tensor) -> float:
    """Fro(a^T b)^2 / K of two (n, K) orthonormal bases: the mean squared cosine of their principal angles.

    In [0, 1]: 1 for one and the same subspace, 0 for orthogonal ones, K / n on average for one that is drawn.
    """
    return float((a.double().mT @ b.double()).square().sum()) / a.shape[1]


def shares_inside(basis: Basis, delta: Tensor) -> tuple[float, float, float]:
    """Shares of the energy of a nonzero (m, n) float64 delta inside the span of `basis`: joint, left, right; in [0, 1].

    With U and V all vectors of the basis: Fro(U^T delta V)^2, Fro(U^T delta)^2 and Fro(delta V)^2 over Fro(delta)^2.
    """
    on_left = basis.left.mT @ delta
    parts = (on_left @ basis.right, on_left, delta @ basis.right)
    energy = float(delta.square().sum())
    joint, left, right = (float(part.square().sum()) / energy for part in parts)
    return joint, left, right


def walk(shape: tuple[int, int], strides: Sequence[Stride], rng: np.random.Generator) -> Iterator[Tensor]:
    """The running sum of independent draws with these norms and singular values, float32, (m, n), after each of them.

    A stride is a matrix of its singular values under directions drawn by Haar's measure, plus normal noise of the norm
    that they leave; without singular values it is noise alone.
    """
    total = torch.zeros(shape)
    for stride in strides:
        noise = torch.from_numpy(rng.standard_normal(shape, dtype=np.float32))
        rest = max(0.0, stride.norm**2 - math.fsum(s**2 for s in stride.sigma))
        total += noise.mul_(math.sqrt(rest) / float(noise.norm()))
        if stride.sigma:
            total += with_spectrum(torch.tensor(stride.sigma, dtype=torch.float64), shape, rng).float()
        yield total


def walk_similarity(
    shape: tuple[int, int], strides: Sequence[Stride], rng: np.random.Generator
) -> list[tuple[float, float]]:
    """Similarity, left and right, of the leading subspace of a walk after each stride to that after the last.

    NaN where one of the two does not determine it, as before the first stride that is not zero.
    """
    seen = []
    for total in walk(shape, strides, rng):
        basis = leading_basis(total, min(DIRECTIONS, *shape))
        seen.append((basis.left, basis.right) if locks(basis) else None)
    return [compared(own, seen[-1]) for own in seen]


def compared(own: tuple[Tensor, Tensor] | None, last: tuple[Tensor, Tensor] | None) -> tuple[float, float]:
    """Similarity on the left and on the right of two pairs of bases; NaN where one is not determined."""
    if own is None or last is None:
        return math.nan, math.nan
    return similarity(own[0], last[0]), similarity(own[1], last[1])
