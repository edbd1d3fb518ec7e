"""How much of a tensor changed: shares below a threshold, and how concentrated the change is.

Each number is defined once, here; `Sparsity` holds what one tensor, or a set of tensors, gives.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from opdlib.metrics.histogram import DeltaHistogram, Members, bin_of

ABSOLUTE = (1e-8, 1e-7, 1e-6, 1e-5, 1e-4)
"""Absolute thresholds eps; the paper's Table 2 uses 1e-5, Table 8 adds 1e-6 and 1e-4."""
RELATIVE = (1e-4, 1e-3, 1e-2)
"""Thresholds tau relative to the root mean square of the source tensor; the paper's Table 8 uses 1e-3."""
TOP_SHARES = (0.001, 0.01, 0.05)
"""Shares p of coordinates whose energy is reported; the paper's Table 8."""

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


@dataclass(frozen=True)
class Cut:
    """A sum up to a cut through a histogram: what whole bins give, and what the bin adds that the cut goes through."""

    whole: float
    bin: int | None = None
    """The bin whose inexact differences must be looked at; None if the sum is known without."""
    rest: Callable[[Members], float] = lambda _: 0
    """What these add."""


def resolve(cuts: Iterable[Cut], look: Look) -> list[float]:
    """The sums, with a single call of `look` for all bins that must be looked at, if any: each call is a pass."""
    listed = list(cuts)
    bins = sorted({cut.bin for cut in listed if cut.bin is not None})
    seen = look(bins) if bins else {}
    return [cut.whole if cut.bin is None else cut.whole + cut.rest(seen[cut.bin]) for cut in listed]


def at_most(histogram: DeltaHistogram, eps: float) -> Cut:
    """Number of coordinates with abs(delta) <= eps, zeros included; exact for every eps >= 0.

    Sparsity at eps is this over the number of coordinates (paper, section 3 and appendix A.4; there 'isclose' at 1e-5).
    Scaling delta and eps together changes nothing.
    """
    zeros = histogram.size - histogram.changed
    if eps <= 0:
        return Cut(zeros)
    cut = bin_of(eps)
    at = int(np.searchsorted(histogram.bins, cut))
    below = zeros + int(histogram.up_to[at - 1] if at else 0)
    if at == len(histogram.bins) or histogram.bins[at] != cut:
        return Cut(below)
    if eps >= histogram.edges[at]:
        below += int(histogram.exact[at])
    return Cut(below, cut, lambda members: members.at_most(eps)) if histogram.inexact[at] else Cut(below)


def top_energy(histogram: DeltaHistogram, count: int) -> Cut:
    """Sum of squares of the `count` largest differences; exact up to float64 rounding, and 0 when nothing changed.

    Over the energy of all differences this is the paper's coordinate energy c_p (appendix A.4, Table 8). Equal
    differences at the cut have equal energy, so ties need no rule.
    """
    if count >= histogram.changed:
        return Cut(histogram.energy)
    from_top = histogram.changed - histogram.up_to + histogram.counts
    # The cut lies in the last bin that still has `count` differences in it or above it.
    cut = int(np.flatnonzero(from_top >= count)[-1])
    above = math.fsum(histogram.energies[cut + 1 :])
    rest = count - int(from_top[cut] - histogram.counts[cut])
    inexact = int(histogram.inexact[cut])
    if rest >= inexact:  # inexact members of a bin are larger than its exact ones
        exact = (rest - inexact) * float(histogram.edges[cut]) ** 2
        return Cut(above + float(histogram.inexact_energy[cut]) + exact)
    return Cut(above, int(histogram.bins[cut]), lambda members: members.energy_of_largest(rest))


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
    cuts = [at_most(histogram, eps) if histogram.size else Cut(0) for eps in thresholds]
    sums = resolve([*cuts, *_tops(histogram)], look)
    counts = [int(count) for count in sums[: len(cuts)]]
    return Sparsity(
        size=histogram.size,
        exact_zero=histogram.size - histogram.changed,
        absolute=dict(zip(ABSOLUTE, counts[: len(ABSOLUTE)], strict=True)),
        relative=dict(zip(RELATIVE, counts[len(ABSOLUTE) :], strict=True)),
        ulp=histogram.within_eta,
        energy=histogram.energy,
        source_energy=histogram.source_energy,
        top=dict(zip(TOP_SHARES, sums[len(cuts) :], strict=True)),
    )


def top_energies(histogram: DeltaHistogram, look: Look) -> dict[float, float]:
    """p -> energy of the ceil(p * size) largest differences, for every p of `TOP_SHARES`; see `top_energy`.

    Of the histogram of a whole model this is one ranking over all its coordinates, where the paper's tables rank within
    each tensor and add up.
    """
    return dict(zip(TOP_SHARES, resolve(_tops(histogram), look), strict=True))


def _tops(histogram: DeltaHistogram) -> list[Cut]:
    return [top_energy(histogram, count_of(p, histogram.size)) for p in TOP_SHARES]


def survival(histogram: DeltaHistogram) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Thresholds t, ascending, and the number of coordinates with abs(delta) < t: the whole sparsity curve.

    Both (k,), one for each bin that holds a difference, t its lower edge. Exact, since no bin is cut.
    """
    zeros = histogram.size - histogram.changed
    return histogram.edges, zeros + histogram.up_to - histogram.counts
