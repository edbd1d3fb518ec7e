"""Exact histograms of a delta from one pass, instead of sorts.

A nonzero difference goes into the bin of its first eight significant bits, the precision of bf16: bin edges are exactly
the positive bf16 numbers, carried on below and above bf16's exponent range. Nearly all differences of two bf16 tensors
*are* such numbers ("exact"), so a bin's count says all about them. The others ("inexact") are counted apart and their
squares are summed; only when a threshold or a rank falls among them does `Scan.members` look at that bin again.
Histograms of tensors add up to the histogram of a model, without loss.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray

from opdlib.metrics import kernels
from opdlib.metrics.kernels import BINS, MAGNITUDES, OFFSET, TAIL_BITS, alike, steps_of

_SPLIT = 1 << 17
_PART = 1 << 22


def bin_of(value: float) -> int:
    """Index of the bin that holds `value` > 0. Values outside the float32 differences are put into the outermost
    bins."""
    if not value > 0:
        raise ValueError(f"bin_of takes a positive number, not {value}")
    bits = int(np.float64(value).view(np.uint64)) >> TAIL_BITS
    return min(max(bits - OFFSET, 0), BINS - 1)


def _edge(bins: NDArray[np.int64]) -> NDArray[np.float64]:
    return ((bins + OFFSET).astype(np.uint64) << np.uint64(TAIL_BITS)).view(np.float64)


@dataclass(frozen=True)
class DeltaHistogram:
    """Magnitudes of the nonzero differences of one tensor, or of many together. Empty bins are left out."""

    size: int
    """Number of coordinates, zero differences included."""
    bins: NDArray[np.int64]
    """(k,) bins that hold a difference, ascending; see `edges`."""
    exact: NDArray[np.int64]
    """(k,) differences with at most eight significant bits: they equal the bin's lower edge."""
    inexact: NDArray[np.int64]
    """(k,) the other differences: above the lower edge, below the next."""
    inexact_energy: NDArray[np.float64]
    """(k,) sum of squares of the inexact differences."""
    within_eta: int
    """Coordinates with abs(w' - w) <= ETA * max(abs(w), abs(w')), zero differences included."""
    source_energy: float
    """Sum of squares of the source."""
    summed: float
    """Sum of abs(delta)."""
    largest: float
    """Largest abs(delta); 0 when nothing changed."""
    magnitude_bins: NDArray[np.int64]
    """(l,) values of abs(source) that occur, as bf16 bits without the sign, ascending."""
    magnitudes: NDArray[np.int64]
    """(l,) coordinates by abs(source)."""
    updated: NDArray[np.int64]
    """(l,) those of them whose difference is not zero."""

    def __post_init__(self) -> None:
        changed, updated, counted = self.changed, int(self.updated.sum()), int(self.magnitudes.sum())
        if changed != updated or changed > self.size or counted != self.size:
            raise ValueError(
                f"histogram of {self.size} coordinates counts {changed} differences, "
                f"{updated} updates and {counted} magnitudes"
            )

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """(k,) differences of each bin."""
        return self.exact + self.inexact

    @cached_property
    def up_to(self) -> NDArray[np.int64]:
        """(k,) differences of each bin and all below it."""
        return np.cumsum(self.counts)

    @cached_property
    def changed(self) -> int:
        """Number of nonzero differences."""
        return int(self.counts.sum())

    @cached_property
    def edges(self) -> NDArray[np.float64]:
        """(k,) lower edge of each bin: the value of its exact members."""
        return _edge(self.bins)

    @cached_property
    def energies(self) -> NDArray[np.float64]:
        """(k,) sum of squared differences of each bin."""
        return self.exact * self.edges**2 + self.inexact_energy

    @cached_property
    def energy(self) -> float:
        """Sum of squared differences, 0 when nothing changed."""
        return math.fsum(self.energies)


def total(histograms: Iterable[DeltaHistogram]) -> DeltaHistogram:
    """The histogram of all coordinates together; of no histogram, the empty one."""
    size = within_eta = 0
    sums, largest = [], 0.0
    counts, magnitudes = np.zeros((1, 2, BINS), np.int64), np.zeros((1, 2, MAGNITUDES), np.int64)
    inexact_energy = np.zeros(BINS)
    source_energies = []
    for part in histograms:
        size += part.size
        within_eta += part.within_eta
        source_energies.append(part.source_energy)
        sums.append(part.summed)
        largest = max(largest, part.largest)
        counts[0][:, part.bins] += (part.exact, part.inexact)
        inexact_energy[part.bins] += part.inexact_energy
        magnitudes[0][:, part.magnitude_bins] += (part.magnitudes, part.updated)
    scalars = within_eta, math.fsum(source_energies), math.fsum(sums), largest
    return _merged(size, counts, inexact_energy, scalars, magnitudes)


def _merged(
    size: int,
    counts: NDArray[np.integer],
    inexact_energy: NDArray[np.float64],
    scalars: tuple[int, float, float, float],
    magnitudes: NDArray[np.integer],
) -> DeltaHistogram:
    bins, (exact, inexact) = _occupied(counts)
    seen, (before, updated) = _occupied(magnitudes)
    return DeltaHistogram(size, bins, exact, inexact, inexact_energy[bins], *scalars, seen, before, updated)


def _occupied(parts: NDArray[np.integer]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The places, (k,), that either counter of any part occupies, and the sums of both over the parts, (2, k).

    `parts` is (parts, 2, places).
    """
    places = np.flatnonzero(parts.any(axis=(0, 1)))
    return places, parts[:, :, places].sum(axis=0, dtype=np.int64)


@dataclass(frozen=True)
class Members:
    """The inexact differences of one bin, largest first, equal or nearly equal ones together."""

    values: NDArray[np.float64]
    counts: NDArray[np.int64]

    def at_most(self, eps: float) -> int:
        """How many are at most eps."""
        return int(self.counts[self.values <= eps].sum())

    def energy_of_largest(self, n: int) -> float:
        """Sum of squares of the n largest."""
        up_to = np.cumsum(self.counts)
        taken = np.minimum(self.counts, np.maximum(n - (up_to - self.counts), 0))
        return math.fsum(taken * self.values**2)


class Finer:
    """Finer bins inside some bins, to be filled tensor by tensor: what replaces `Scan.members` for a whole model.

    The 65536 finer bins of a bin are 2^-23 wide, relatively; within one, all differences count as their root mean
    square. So the energy of the largest n is off by less than 2^-23 of the energy of a single finer bin, and the memory
    in use does not depend on how many differences there are.
    """

    def __init__(self, bins: Iterable[int]):
        self._bins = list(bins)
        self._slots = np.full(BINS, -1, np.int64)
        self._slots[self._bins] = np.arange(len(self._bins))
        self._counts = np.zeros((len(self._bins), 1 << kernels.FINE_BITS), np.int64)
        self._energies = np.zeros(self._counts.shape)

    def add(self, source: torch.Tensor, trained: torch.Tensor) -> None:
        """Add the differences of one tensor; arguments as for `scan`."""
        a, b = alike(source, trained)
        kernels.refine(a, b, *steps_of(a), self._slots, self._counts, self._energies)

    def members(self) -> dict[int, Members]:
        """What was added, by bin."""
        found = {}
        for row, bin_ in enumerate(self._bins):
            held = np.flatnonzero(self._counts[row])[::-1]
            counts = self._counts[row, held]
            found[bin_] = Members(np.sqrt(self._energies[row, held] / counts), counts)
        return found


@dataclass(frozen=True)
class Scan:
    """One pass over a source and a trained tensor: the histogram, and the means to look at a bin again."""

    histogram: DeltaHistogram
    parts: list[tuple[NDArray[np.integer], NDArray[np.integer], NDArray[np.uint32]]]
    """Fixed parts of the tensor: the bits of source and trained, and the inexact differences by bin, (BINS,)."""

    def members(self, bins: Iterable[int]) -> dict[int, Members]:
        """The inexact differences of each bin, exactly, from a second pass (none if there is nothing to see)."""
        wanted = np.zeros(BINS, np.bool_)
        found = []
        chosen = list(bins)
        wanted[chosen] = True
        for source, trained, inexact in self.parts:
            out = np.empty(int(inexact[chosen].sum()))
            if out.size:
                kernels.collect(source, trained, *steps_of(source), wanted, out)
                found.append(out)
        values = np.sort(np.concatenate(found))[::-1] if found else np.empty(0)
        where = (values.view(np.uint64) >> np.uint64(TAIL_BITS)).astype(np.int64) - OFFSET
        return {b: Members(values[where == b], np.ones(int((where == b).sum()), np.int64)) for b in chosen}


class NonFiniteError(ValueError):
    """A tensor holds NaN or Inf. `side` is 'source' or 'trained', `index` the first such coordinate, flattened."""

    def __init__(self, side: str, index: int, count: int, value: float):
        super().__init__(f"{side} holds {count} non-finite values, the first is {value} at flat index {index}")
        self.side, self.index, self.count, self.value = side, index, count, value


def scan(source: torch.Tensor, trained: torch.Tensor) -> Scan:
    """Histogram of `trained - source`, both of one shape and of dtype bf16, fp16 or float32.

    Two bf16 numbers are mostly few steps apart: a table of source by step then holds nearly all of a tensor, and what
    is left is looked at one by one. Raises ValueError for other shapes or dtypes, and NonFiniteError if either tensor
    holds NaN or Inf.
    """
    if source.shape != trained.shape:
        raise ValueError(f"shapes differ: source {tuple(source.shape)}, trained {tuple(trained.shape)}")
    a, b = alike(source, trained)
    shift, near, last = steps_of(a)
    spans = [*pairwise(_cuts(a.size, bool(near)))]
    counts, magnitudes = (np.zeros((len(spans), 2, bins), np.uint32) for bins in (BINS, MAGNITUDES))
    inexact_energy = np.zeros((len(spans), BINS))
    found = []
    for part, (i, j) in enumerate(spans):
        table, far = np.zeros((MAGNITUDES, last + 1), np.uint32), (*counts[part], inexact_energy[part])
        found.append(kernels.count(a[i:j], b[i:j], shift, near, last, table, *far, magnitudes[part, 1]))
        found.append(kernels.spread(table, int(near), counts[part, 0], *magnitudes[part]))
    beyond, bad, sums, largest = zip(*found, strict=True)
    if any(bad):
        raise _non_finite(source, trained)
    energy = 0.0 if near else math.fsum(kernels.energy(a[i:j]) for i, j in spans)
    scalars = a.size - sum(beyond), energy, math.fsum(sums), max(largest)
    histogram = _merged(a.size, counts, inexact_energy.sum(axis=0), scalars, magnitudes)
    if near:
        histogram = replace(histogram, source_energy=_energy(histogram))
    return Scan(histogram, [(a[i:j], b[i:j], own[1]) for (i, j), own in zip(spans, counts, strict=True)])


def _cuts(size: int, is_tabled: bool) -> list[int]:
    """Where a tensor is cut. Sums over few coordinates lose less; what is tabled is summed without loss, and cut only
    where counters of 32 bits could run over."""
    least = math.ceil(size / (1 << 31 if is_tabled else _PART))
    parts = max(least, 2 if size >= _SPLIT and not is_tabled else 1)
    return [size * i // parts for i in range(parts + 1)]


def _energy(histogram: DeltaHistogram) -> float:
    """Sum of squares of a bf16 source, whose magnitudes are its values."""
    values = (histogram.magnitude_bins.astype(np.uint32) << np.uint32(16)).view(np.float32).astype(np.float64)
    return math.fsum(histogram.magnitudes * values**2)


def _non_finite(source: torch.Tensor, trained: torch.Tensor) -> NonFiniteError:
    for side, tensor in (("source", source), ("trained", trained)):
        flat = tensor.flatten()
        where = torch.nonzero(~torch.isfinite(flat))
        if len(where):
            return NonFiniteError(side, int(where[0]), len(where), float(flat[where[0]]))
    raise AssertionError("a kernel met NaN or Inf that neither tensor holds")
