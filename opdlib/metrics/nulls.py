"""What the numbers of an update would be if a stated structure were absent.

- *visibility*: the update is Gaussian noise of one scale per tensor, whatever the weight. Held fixed: source, scale,
  bf16 grid. A deviation means that the update knows the weights, or has structure of its own.
- *permutation*: where an update lies among weights of one magnitude says nothing. Held fixed: source, and the deltas of
  each magnitude. A deviation means that rows, columns or directions are chosen.
- *spectrum*: the update's directions have nothing to do with the source's. Held fixed: the singular values of the fp32
  delta, source, grid. A deviation means that directions are chosen.

Under visibility the update of a weight w is s * z with z standard normal, and the trained weight is the bf16 number
nearest to w + s * z. Everything that depends on one coordinate at a time is then exact: no draw is made. With the grid
points g_j around w and m_j halfway between g_j and g_j+1, P(trained = g_j) = Phi((m_j - w) / s) - Phi((m_j-1 - w) / s).
Spectra need draws, which are seeded.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

GRID = torch.arange(0x7F80, dtype=torch.int32).to(torch.int16).view(torch.bfloat16).double().numpy()
"""(0x7F80,) float64: every finite bf16 number that is not negative, by its bits."""

_REACH = 9.0
"""Standard deviations beyond which nothing is summed: P = 1e-19."""
_STEPS = 16
"""Grid steps that are summed one by one. Beyond, the grid is fine beside the scale (s > 1.7 steps), and rounding adds a
twelfth of a squared step to its square: exact to 1e-11 inside a binade, to a few percent of that twelfth beside one."""


@numba.njit(nogil=True, cache=True)
def _below(x):  # type: ignore[no-untyped-def]
    """Phi(x)."""
    return 0.5 * math.erfc(-x * math.sqrt(0.5))


@numba.njit(nogil=True, cache=True)
def _point(grid, index):  # type: ignore[no-untyped-def]
    """The grid's number at a signed index; past its end the last step goes on."""
    size = abs(index)
    last = grid.size - 1
    value = grid[size] if size <= last else grid[last] + (size - last) * (grid[last] - grid[last - 1])
    return value if index >= 0 else -value


@numba.njit(nogil=True, cache=True)
def _changed(grid, bits, scale):  # type: ignore[no-untyped-def]
    """P(changed) of each weight whose magnitude has these bits."""
    found = np.empty(bits.size)
    for i in range(bits.size):
        w = grid[bits[i]]
        up, down = 0.5 * (_point(grid, bits[i] + 1) - w), 0.5 * (w - _point(grid, bits[i] - 1))
        found[i] = _below(-up / scale) + _below(-down / scale)
    return found


@numba.njit(nogil=True, cache=True)
def _within(grid, bits, scale, eps):  # type: ignore[no-untyped-def]
    """P(abs(delta) <= eps) of each."""
    found = np.empty(bits.size)
    for i in range(bits.size):
        k = bits[i]
        w = grid[k]
        high = min(np.searchsorted(grid, w + eps, side="right") - 1, grid.size - 1)
        if w - eps >= 0:
            low = np.searchsorted(grid, w - eps, side="left")
        else:
            low = -(np.searchsorted(grid, eps - w, side="right") - 1)
        up = 0.5 * (_point(grid, high) + _point(grid, high + 1)) - w
        down = w - 0.5 * (_point(grid, low) + _point(grid, low - 1))
        found[i] = 1.0 - _below(-up / scale) - _below(-down / scale)
    return found


@numba.njit(nogil=True, cache=True)
def _energy(grid, bits, scale):  # type: ignore[no-untyped-def]
    """E[delta^2] of each."""
    found = np.empty(bits.size)
    for i in range(bits.size):
        k = bits[i]
        w = grid[k]
        step = _point(grid, k + 1) - w
        if _REACH * scale > _STEPS * step:
            found[i] = scale * scale + step * step / 12
            continue
        total = 0.0
        for direction in (1, -1):
            beyond = 0.5 * abs(_point(grid, k + direction) - w)
            for j in range(1, 4 * _STEPS):  # below a power of two steps are half as long
                here = abs(_point(grid, k + direction * j) - w)
                after = 0.5 * (here + abs(_point(grid, k + direction * (j + 1)) - w))
                total += here * here * (_below(-beyond / scale) - _below(-after / scale))
                if after > _REACH * scale:
                    break
                beyond = after
        found[i] = total
    return found


def changed_chance(bits: NDArray[np.int64], scale: float) -> NDArray[np.float64]:
    """P(changed) under visibility of weights on the grid with these magnitudes (bits), each in [0, 1]; 0 at scale 0."""
    chance: NDArray[np.float64] = _changed(GRID, bits, scale) if scale > 0 else np.zeros(len(bits))
    return chance


def within_chance(bits: NDArray[np.int64], scale: float, eps: float) -> NDArray[np.float64]:
    """P(abs(delta) <= eps) under visibility, eps >= 0, each in [0, 1]; 1 at scale 0."""
    chance: NDArray[np.float64] = _within(GRID, bits, scale, eps) if scale > 0 else np.ones(len(bits))
    return chance


def rounded_energy(bits: NDArray[np.int64], scale: float) -> NDArray[np.float64]:
    """E[delta^2] under visibility, in the unit of the weights squared; 0 at scale 0."""
    energy: NDArray[np.float64] = _energy(GRID, bits, scale) if scale > 0 else np.zeros(len(bits))
    return energy


def scale_of_rounded_norm(bits: NDArray[np.int64], counts: NDArray[np.int64], energy: float) -> float:
    """The scale under which `counts` weights of these magnitudes have the squared rounded norm `energy` on average.

    In the unit of the weights; 0 for energy 0. Where most changes are single steps of the grid, a scale that fits the
    norm nearly fits the number of changes too; what then decides is P(changed) by binade. Found to 1e-12 (relative).
    """
    if energy <= 0:
        return 0.0
    from scipy.optimize import brentq

    def miss(log_scale: float) -> float:
        return math.log(max(float(counts @ rounded_energy(bits, math.exp(log_scale))), 1e-300) / energy)

    guess = 0.5 * math.log(energy / counts.sum())
    low, high = guess - 1.0, guess + 1.0
    while miss(low) > 0:
        low -= 2.0
    while miss(high) < 0:
        high += 2.0
    found: float = brentq(miss, low, high, xtol=1e-12, rtol=1e-12)
    return math.exp(found)


@dataclass(frozen=True)
class Visibility:
    """What noise of one scale would show of itself in bf16, exactly. Shares in [0, 1]."""

    scale: float
    changed: float
    """Share of the coordinates."""
    within: Mapping[float, float]
    """eps -> share with abs(delta) <= eps."""
    binades: Mapping[int, float]
    """Exponent bits of abs(weight) -> P(changed) there."""
    low: Mapping[float, float]
    """Share rho of the smallest weights -> coverage; NaN if nothing changes."""


def visibility(
    bits: NDArray[np.int64],
    counts: NDArray[np.int64],
    scale: float,
    thresholds: Iterable[float],
    shares: Iterable[float],
) -> Visibility:
    """The numbers of one tensor with `counts` weights of each magnitude (bf16 bits without the sign, ascending).

    Weights of one magnitude that tie at the cut of a low mask share its places evenly.
    """
    size, chance = int(counts.sum()), changed_chance(bits, scale)
    expected = counts * chance
    total = float(expected.sum())
    up_to = np.cumsum(counts)
    low = {}
    for share in shares:
        inside = np.clip(math.ceil(round(share * size, 9)) - (up_to - counts), 0, counts)
        low[share] = float(inside @ chance) / total if total else math.nan
    exponents = bits >> 7
    return Visibility(
        scale,
        total / size,
        {eps: float(counts @ within_chance(bits, scale, eps)) / size for eps in thresholds},
        {int(e): float(expected[exponents == e].sum() / counts[exponents == e].sum()) for e in np.unique(exponents)},
        low,
    )


def visible(source: Tensor, scale: float, rng: np.random.Generator) -> Tensor:
    """A draw under visibility: bf16 weights of the shape of `source`, whose values may lie off the grid."""
    noise = torch.from_numpy(rng.standard_normal(source.shape))
    return (source.double() + scale * noise).to(torch.bfloat16)


def permuted(
    source: Tensor, trained: Tensor, rng: np.random.Generator, within: NDArray[np.integer] | None = None
) -> Tensor:
    """A draw under permutation: the deltas, zeros included, change places among weights of one bf16 magnitude.

    Float64 deltas of the shape of `source`, which is bf16. `within` (flat, integers from 0) adds a condition: with the
    numbers of rows, a delta stays in its row; pass binades in place of magnitudes then, for nearly every class of the
    finer kind has one member. Low coverage keeps its value: an identity, no test.
    """
    delta = (trained.double() - source.double()).flatten().numpy()
    magnitude = source.abs().flatten().view(torch.int16).numpy().astype(np.int64)
    classes = magnitude if within is None else (magnitude >> 7) + 256 * within.astype(np.int64)
    drawn, held = np.lexsort((rng.random(len(delta)), classes)), np.argsort(classes, kind="stable")
    moved = np.empty_like(delta)
    moved[held] = delta[drawn]
    return torch.from_numpy(moved).reshape(source.shape)


def with_spectrum(sigma: Tensor, shape: tuple[int, int], rng: np.random.Generator) -> Tensor:
    """A draw under spectrum: a float64 matrix with these singular values and directions drawn by Haar's measure."""
    sides = [torch.linalg.qr(torch.from_numpy(rng.standard_normal((side, len(sigma))))) for side in shape]
    left, right = (q * torch.sign(torch.diagonal(r)) for q, r in sides)
    matrix: Tensor = (left * sigma) @ right.mT
    return matrix
