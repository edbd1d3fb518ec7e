"""How much of a tensor changed: shares below a threshold, and how concentrated the change is.

Each number is defined once, here; `Sparsity` holds what one tensor, or a set of tensors, gives.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from opdlib.metrics.histogram import DeltaHistogram, Members, bin_of

ABSOLUTE = (1e-8, 1e-7, 1e-6, 1e-5, 1e-4)
"""Absolute thresholds eps; the paper's Table 2 uses 1e-5, Table 8 adds 1e-6 and 1e-4."""
RELATIVE = (1e-4, 1e-3, 1e-2)
"""Thresholds tau relative to the root mean square of the source tensor; the paper's Table 8 uses 1e-3."""
TOP_SHARES = (0.001, 0.01, 0.05)
"""Shares p of coordinates whose energy is reported; the paper's Table 8."""

T = TypeVar("T")
Look = Callable[[Sequence[int]], Mapping[int, Members]]
"""Gives the inexact differences of some bins: `Scan.members`, or `Finer.members` for a model."""


def count_of(share: float, size: int) -> int:
    """Number of coordinates in the top `share` of `size`: ceil(share * size), at least 1, at most size.

    The product is rounded to nine decimals first, so that 0.07 * 100 gives 7 and not 8. `share` lies in (0, 1]. Of
    nothing, nothing: 0 when size is 0. Source: paper, appendix A.4 (masks and coordinate energy).
    """
    if not 0 < share <= 1:
        raise ValueError(f"a share lies in (0, 1], not {share}")
    return min(max(math.ceil(round(share * size, 9)), 1), size)


def relative_norm(energy: float, source_energy: float) -> float:
    """Fro(delta) / Fro(source) from the two sums of squares; unit 1, from 0 up.

    For a set of tensors the sums run over the whole set: the paper's collection form r(B), appendix A.4. A zero source
    has no relative norm: NaN.
    """
    return math.sqrt(energy / source_energy) if source_energy > 0 else math.nan


def root_mean_square(histogram: DeltaHistogram) -> float:
    """Root mean square of the source's coordinates; NaN for an empty tensor."""
    return math.sqrt(histogram.source_energy / histogram.size) if histogram.size else math.nan


def count_at_most(histogram: DeltaHistogram, eps: float, look: Look) -> int:
    """Number of coordinates with abs(delta) <= eps, zeros included; exact for every eps >= 0.

    Sparsity at eps is this over the number of coordinates (paper, section 3 and appendix A.4; there 'isclose' at 1e-5).
    Scaling delta and eps together changes nothing.
    """
    zeros = histogram.size - histogram.changed
    if eps <= 0:
        return zeros
    cut = bin_of(eps)
    at = int(np.searchsorted(histogram.bins, cut))
    below = zeros + int(histogram.up_to[at - 1] if at else 0)
    if at == len(histogram.bins) or histogram.bins[at] != cut:
        return below
    if eps >= histogram.edges[at]:
        below += int(histogram.exact[at])
    if histogram.inexact[at]:
        below += look([cut])[cut].at_most(eps)
    return below


def top_energy(histogram: DeltaHistogram, count: int, look: Look) -> float:
    """Sum of squares of the `count` largest differences; exact up to float64 rounding, and 0 when nothing changed.

    Over the energy of all differences this is the paper's coordinate energy c_p (appendix A.4, Table 8). Equal
    differences at the cut have equal energy, so ties need no rule.
    """
    if count >= histogram.changed:
        return histogram.energy
    from_top = histogram.changed - histogram.up_to + histogram.counts
    # The cut lies in the last bin that still has `count` differences in it or above it.
    cut = int(np.flatnonzero(from_top >= count)[-1])
    above = math.fsum(histogram.energies[cut + 1 :])
    rest = count - int(from_top[cut] - histogram.counts[cut])
    inexact = int(histogram.inexact[cut])
    if rest >= inexact:  # inexact members of a bin are larger than its exact ones
        return above + float(histogram.inexact_energy[cut]) + (rest - inexact) * float(histogram.edges[cut]) ** 2
    bin_ = int(histogram.bins[cut])
    return above + look([bin_])[bin_].energy_of_largest(rest)


@dataclass(frozen=True)
class Sparsity:
    """What one histogram says about sparsity. Counts are numbers of coordinates, energies sums of squares."""

    size: int
    """Coordinates."""
    exact_zero: int
    """Coordinates with delta = 0 in the view that was subtracted. -0 and +0 differ by 0."""
    absolute: Mapping[float, int]
    """eps -> coordinates with abs(delta) <= eps."""
    relative: Mapping[float, int]
    """tau -> coordinates with abs(delta) <= tau * RMS(source tensor)."""
    ulp: int
    """Coordinates with abs(w' - w) <= 1e-3 * max(abs(w), abs(w')): paper 3's rule. For two bf16 tensors it equals
    exact_zero, since neighbouring bf16 numbers are at least 2^-8 apart in this measure."""
    energy: float
    """Sum of squared differences."""
    source_energy: float
    """Sum of squares of the source."""
    top: Mapping[float, float]
    """p -> energy of the ceil(p * size) largest differences."""

    @property
    def rel_norm(self) -> float:
        """See `relative_norm`."""
        return relative_norm(self.energy, self.source_energy)


def sparsity(histogram: DeltaHistogram, look: Look) -> Sparsity:
    """All sparsity numbers of one tensor. Bins that hold a cut are looked at again in one pass, if at all.

    A tensor without coordinates counts nothing anywhere.
    """
    rms = root_mean_square(histogram)
    thresholds = [*ABSOLUTE, *(tau * rms for tau in RELATIVE)]

    def numbers(look: Look) -> tuple[list[int], dict[float, float]]:
        at_most = [count_at_most(histogram, eps, look) if histogram.size else 0 for eps in thresholds]
        return at_most, _top_energies(histogram, look)

    at_most, top = _looking_once(numbers, look)
    return Sparsity(
        size=histogram.size,
        exact_zero=histogram.size - histogram.changed,
        absolute=dict(zip(ABSOLUTE, at_most[: len(ABSOLUTE)], strict=True)),
        relative=dict(zip(RELATIVE, at_most[len(ABSOLUTE) :], strict=True)),
        ulp=histogram.within_eta,
        energy=histogram.energy,
        source_energy=histogram.source_energy,
        top=top,
    )


def top_energies(histogram: DeltaHistogram, look: Look) -> dict[float, float]:
    """p -> energy of the ceil(p * size) largest differences, for every p of `TOP_SHARES`; see `top_energy`.

    Of the histogram of a whole model this is one ranking over all its coordinates, where the paper's tables rank within
    each tensor and add up.
    """
    return _looking_once(lambda look: _top_energies(histogram, look), look)


def _top_energies(histogram: DeltaHistogram, look: Look) -> dict[float, float]:
    return {p: top_energy(histogram, count_of(p, histogram.size), look) for p in TOP_SHARES}


def _looking_once(numbers: Callable[[Look], T], look: Look) -> T:
    """`numbers(look)`, but with a single call of `look` for all the bins that it asks for: each call is a pass."""
    needed: set[int] = set()

    def note(bins: Sequence[int]) -> Mapping[int, Members]:
        needed.update(bins)
        return dict.fromkeys(bins, Members(np.empty(0), np.empty(0, np.int64)))

    without_looking = numbers(note)
    if not needed:
        return without_looking
    seen = look(sorted(needed))
    return numbers(lambda _: seen)


def survival(histogram: DeltaHistogram) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Thresholds t, ascending, and the number of coordinates with abs(delta) < t: the whole sparsity curve.

    Both (k,), one for each bin that holds a difference, t its lower edge. Exact, since no bin is cut.
    """
    zeros = histogram.size - histogram.changed
    return histogram.edges, zeros + histogram.up_to - histogram.counts
