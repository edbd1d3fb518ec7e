"""What the numbers of an update would be if a stated structure were absent.

*visibility*
    Hypothesis: the update is Gaussian noise of one scale in a tensor, whatever the weight. Held fixed: source, scale,
    bf16 grid. A deviation means that the update knows the weights, or has a structure of its own.
*permutation*
    Hypothesis: where an update lies among weights of one magnitude says nothing. Held fixed: the source, the deltas of
    each magnitude; within rows (or columns) also what each of them holds of every binade. A deviation means that
    coordinates or directions are chosen beyond what magnitude explains.
*spectrum*
    Hypothesis: the update's directions have nothing to do with the source's. Held fixed: source, grid, singular values
    of the fp32 delta. A deviation means that directions are chosen.

Under visibility the update of a weight w is s * z with z standard normal, and the trained weight is the bf16 number
nearest to w + s * z. What depends on one coordinate at a time is then exact, without draws. With the grid points g_j
around w and m_j halfway between g_j and g_j+1, P(trained = g_j) = Phi((m_j - w) / s) - Phi((m_j-1 - w) / s): a function
of w's bf16 magnitude and s alone, so a histogram of magnitudes is all that it needs. Spectra need draws, which are
seeded. No null is a test: with millions of coordinates every one is rejected. What counts is its ratio to the observed.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from opdlib.metrics.draws import BINADES, binades
from opdlib.metrics.kernels import MAGNITUDES

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
def _inside(bits, reach):  # type: ignore[no-untyped-def]
    """Whether the binade of a magnitude goes on for so many steps on both sides: all such of a binade are alike."""
    return (bits & 127) > reach and (bits & 127) + reach < 128


@numba.njit(nogil=True, cache=True)
def _changed(grid, bits, scale):  # type: ignore[no-untyped-def]
    found = np.empty(bits.size)
    for i in range(bits.size):
        if i and _inside(bits[i], 0) and bits[i] >> 7 == bits[i - 1] >> 7 and _inside(bits[i - 1], 0):
            found[i] = found[i - 1]
            continue
        w = grid[bits[i]]
        up, down = 0.5 * (_point(grid, bits[i] + 1) - w), 0.5 * (w - _point(grid, bits[i] - 1))
        found[i] = _below(-up / scale) + _below(-down / scale)
    return found


@numba.njit(nogil=True, cache=True)
def _within(grid, bits, scale, eps):  # type: ignore[no-untyped-def]
    found = np.empty(bits.size)
    known, value = -1, 0.0
    for i in range(bits.size):
        k = bits[i]
        w = grid[k]
        inside = _inside(k, eps / (_point(grid, k + 1) - w) + 2)
        if inside and known == k >> 7:
            found[i] = value
            continue
        high = min(np.searchsorted(grid, w + eps, side="right") - 1, grid.size - 1)
        if w - eps >= 0:
            low = np.searchsorted(grid, w - eps, side="left")
        else:
            low = -(np.searchsorted(grid, eps - w, side="right") - 1)
        up = 0.5 * (_point(grid, high) + _point(grid, high + 1)) - w
        down = w - 0.5 * (_point(grid, low) + _point(grid, low - 1))
        found[i] = 1.0 - _below(-up / scale) - _below(-down / scale)
        if inside:
            known, value = k >> 7, found[i]
    return found


@numba.njit(nogil=True, cache=True)
def _energy(grid, bits, scale):  # type: ignore[no-untyped-def]
    """E[delta^2] under visibility, in the unit of the weights squared; scale > 0."""
    found = np.empty(bits.size)
    known, value = -1, 0.0
    for i in range(bits.size):
        k = bits[i]
        w = grid[k]
        step = _point(grid, k + 1) - w
        if _REACH * scale > _STEPS * step:
            found[i] = scale * scale + step * step / 12
            continue
        inside = _inside(k, _REACH * scale / step + 2)
        if inside and known == k >> 7:
            found[i] = value
            continue
        total = 0.0
        for direction in (1, -1):
            beyond = 0.5 * abs(_point(grid, k + direction) - w)
            for j in range(1, 4 * _STEPS):  # below a power of two steps are half as long
                if beyond > _REACH * scale:
                    break
                here = abs(_point(grid, k + direction * j) - w)
                after = 0.5 * (here + abs(_point(grid, k + direction * (j + 1)) - w))
                total += here * here * (_below(-beyond / scale) - _below(-after / scale))
                beyond = after
        found[i] = total
        if inside:
            known, value = k >> 7, total
    return found


@numba.njit(nogil=True, cache=True)
def _miss(grid, bits, counts, energy, log_scale):  # type: ignore[no-untyped-def]
    """How far the logarithm of the expected energy at this scale exceeds that of the wanted one."""
    expected = 0.0
    for count, own in zip(counts, _energy(grid, bits, math.exp(log_scale))):  # noqa: B905 - numba knows no strict
        expected += count * own
    return math.log(max(expected, 1e-300) / energy)


@numba.njit(nogil=True, cache=True)
def _solve(grid, bits, counts, energy):  # type: ignore[no-untyped-def]
    """The scale where `_miss` is 0: regula falsi, in which an end that stays counts half (Illinois)."""
    a = 0.5 * math.log(energy / counts.sum())
    at_a = _miss(grid, bits, counts, energy, a)
    b, at_b = a, at_a
    while at_a * at_b > 0:
        a, at_a = b, at_b
        b += 0.5 if at_b < 0 else -0.5
        at_b = _miss(grid, bits, counts, energy, b)
    for _ in range(200):
        if at_b == 0 or abs(b - a) < 1e-13:
            break
        c = b - at_b * (b - a) / (at_b - at_a)
        at_c = _miss(grid, bits, counts, energy, c)
        if abs(at_c) < 1e-13:
            return math.exp(c)
        if at_c * at_b < 0:
            a, at_a = b, at_b
        else:
            at_a *= 0.5
        b, at_b = c, at_c
    return math.exp(b)


def changed_chance(bits: NDArray[np.int64], scale: float) -> NDArray[np.float64]:
    """P(changed) under visibility of weights with these magnitudes, each in [0, 1]; 0 at scale 0.

    `bits` are those of the bf16 number without its sign, ascending, here and below.
    """
    chance: NDArray[np.float64] = _changed(GRID, bits, scale) if scale > 0 else np.zeros(len(bits))
    return chance


def within_chance(bits: NDArray[np.int64], scale: float, eps: float) -> NDArray[np.float64]:
    """P(abs(delta) <= eps) under visibility, eps >= 0, each in [0, 1]; 1 at scale 0."""
    chance: NDArray[np.float64] = _within(GRID, bits, scale, eps) if scale > 0 else np.ones(len(bits))
    return chance


def scale_of_rounded_norm(bits: NDArray[np.int64], counts: NDArray[np.int64], energy: float) -> float:
    """The scale under which `counts` weights of these magnitudes have the squared rounded norm `energy` on average.

    In the unit of the weights; 0 for energy 0. Where most changes are single steps of the grid, a scale that fits the
    norm nearly fits the number of changes too; what then decides is P(changed) by binade. Found to 1e-12 (relative).
    """
    return float(_solve(GRID, bits, counts, energy)) if energy > 0 else 0.0


@dataclass(frozen=True)
class Visibility:
    """What noise of one scale would show of itself in bf16, exactly, as expected numbers of coordinates."""

    scale: float
    """Standard deviation of the noise, in the unit of the weights."""
    exact_zero: float
    """Coordinates that keep their value."""
    absolute: Mapping[float, float]
    """eps -> coordinates with abs(delta) <= eps."""
    changed: Mapping[int, float]
    """Exponent bits of abs(weight) -> coordinates of that binade that change."""


def visibility(
    bits: NDArray[np.int64], counts: NDArray[np.int64], scale: float, thresholds: Iterable[float]
) -> Visibility:
    """The numbers of one tensor with `counts` weights of each magnitude."""
    expected = counts * changed_chance(bits, scale)
    exponents = bits >> 7
    return Visibility(
        scale,
        int(counts.sum()) - _sum(expected),
        {eps: _sum(counts * within_chance(bits, scale, eps)) for eps in thresholds},
        {int(e): _sum(expected[exponents == e]) for e in np.unique(exponents)},
    )


def _sum(numbers: NDArray[np.float64]) -> float:
    return math.fsum(numbers.tolist())  # nearly twice as fast as over the array


def by_magnitude(bits: NDArray[np.int64], chance: NDArray[np.float64]) -> NDArray[np.float64]:
    """(MAGNITUDES,) the chance of a coordinate to change, looked up by its magnitude; 0 for one that does not occur."""
    table = np.zeros(MAGNITUDES)
    table[bits] = chance
    return table


def visible(source: Tensor, scale: float, rng: np.random.Generator) -> Tensor:
    """A draw under visibility: bf16 weights of the shape of `source`."""
    noise = torch.from_numpy(rng.standard_normal(source.shape))
    return (source.double() + scale * noise).to(torch.bfloat16)


def permuted(
    source: Tensor, trained: Tensor, rng: np.random.Generator, within: NDArray[np.integer] | None = None
) -> Tensor:
    """A draw under permutation: deltas, zeros included, change places among weights of one bf16 magnitude.

    Float32 weights of the shape of `source`: it plus the moved deltas. `within` (flat, integers from 0) adds a
    condition: with the numbers of rows, a delta stays in its row. Binades then take the place of magnitudes, for nearly
    every class of the finer kind has one member. Low coverage keeps its value: an identity, no test.
    """
    before = source.double().flatten().numpy()
    delta = trained.double().flatten().numpy() - before
    magnitude = source.to(torch.bfloat16).abs().flatten().view(torch.int16).numpy().astype(np.int64)
    classes = magnitude if within is None else binades(source) + BINADES * within.astype(np.int64)
    moved = before.copy()
    _shuffle(np.argsort(classes, kind="stable"), classes, delta, moved, rng)
    return torch.from_numpy(moved).reshape(source.shape).float()


@numba.njit(nogil=True, cache=True)
def _shuffle(order, classes, delta, moved, rng):  # type: ignore[no-untyped-def]
    """Add to `moved` the deltas, shuffled inside each run of one class in `order`."""
    taken = order.copy()
    start = 0
    for i in range(order.size):
        if classes[order[i]] != classes[order[start]]:
            start = i
        j = start + int(rng.random() * (i - start + 1))  # inside-out: each place swaps with one before it in its class
        taken[i], taken[j] = taken[j], taken[i]
    for i in range(order.size):
        moved[order[i]] += delta[taken[i]]


def with_spectrum(sigma: Tensor, shape: tuple[int, int], rng: np.random.Generator) -> Tensor:
    """A draw under spectrum: a float64 matrix with these singular values and directions drawn by Haar's measure."""
    sides = [torch.linalg.qr(torch.from_numpy(rng.standard_normal((side, len(sigma))))) for side in shape]
    left, right = (q * torch.sign(torch.diagonal(r)) for q, r in sides)
    matrix: Tensor = (left * sigma) @ right.mT
    return matrix
