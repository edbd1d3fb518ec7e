"""The inner loops: compiled once, run on the raw bits of two tensors without the interpreter's lock.

A tensor arrives as uint16 (bf16) or uint32 (float32) with the left shift that makes float32 bits of either.
"""

import numba
import numpy as np
import torch
from numpy.typing import NDArray

SMALLEST_EXPONENT = -149
"""2^-149 is the smallest nonzero float32, hence the smallest nonzero difference of float32, fp16 or bf16 numbers."""
LARGEST_EXPONENT = 128
"""Two float32 numbers differ by less than 2^129."""
BINS = (LARGEST_EXPONENT - SMALLEST_EXPONENT + 1) << 7
MAGNITUDES = 1 << 15
"""Bins of abs(source): the top 16 bits of its float32 form without the sign. For a bf16 tensor these are its values."""

ETA = 1e-3
"""Relative tolerance of the ULP rule: paper 3 (arXiv 2511.08567), definition 2.1; paper 2, section on sparsity."""

TAIL_BITS = 45
"""Of the 52 stored bits of a float64 significand, those past the first eight significant ones."""
OFFSET = (1023 + SMALLEST_EXPONENT) << 7
"""What the leading bits of a float64 exceed its bin by."""
FINE_BITS = 16
"""Bits of the finer bins that a cut of a whole model's ranking is looked up in."""
_TAIL = (1 << TAIL_BITS) - 1
_BLOCK = 2048


def raw_bits(tensor: torch.Tensor) -> NDArray[np.integer]:
    """The raw bits, flat and row-major: uint16 for bf16, uint32 of the (exact) float32 form for float32 and fp16.

    No copy is made of a contiguous bf16 or float32 tensor on the CPU. Raises ValueError for any other dtype.
    """
    flat = tensor.detach().cpu().contiguous().flatten()
    if flat.dtype == torch.bfloat16:
        return flat.view(torch.uint16).numpy()
    if flat.dtype in (torch.float32, torch.float16):
        return flat.float().view(torch.uint32).numpy()
    raise ValueError(f"dtype {tensor.dtype}: wanted bfloat16, float16 or float32")


def shift_of(bits: NDArray[np.integer]) -> np.uint32:
    """Left shift by which these bits become those of a float32: 16 for bf16, 0 otherwise."""
    return np.uint32(16 if bits.dtype == np.uint16 else 0)


@numba.njit(nogil=True, cache=True)
def _differences(a, b, shift_a, shift_b, start, stop, old, new, difference):  # type: ignore[no-untyped-def]
    """Pack the differing pairs of one block into `old` and `new` (bits) and abs(new - old) into `difference`."""
    packed = 0
    for i in range(start, stop):
        old[packed] = np.uint32(a[i]) << shift_a
        new[packed] = np.uint32(b[i]) << shift_b
        packed += old[packed] != new[packed]
    _subtract(old, new, packed, difference)
    return packed


@numba.njit(nogil=True, cache=True)
def _subtract(old, new, packed, difference):  # type: ignore[no-untyped-def]
    before, after = old.view(np.float32), new.view(np.float32)
    for j in range(packed):
        difference[j] = abs(np.float64(after[j]) - np.float64(before[j]))


@numba.njit(nogil=True, cache=True, fastmath={"reassoc"})
def energy(a, shift):  # type: ignore[no-untyped-def]
    """Sum of squares."""
    buffer = np.empty(_BLOCK, np.uint32)
    values = buffer.view(np.float32)
    total = 0.0
    for start in range(0, a.size, _BLOCK):
        stop = min(start + _BLOCK, a.size)
        for i in range(start, stop):
            buffer[i - start] = np.uint32(a[i]) << shift
        block = 0.0
        for j in range(stop - start):
            block += np.float64(values[j]) * np.float64(values[j])
        total += block
    return total


@numba.njit(nogil=True, cache=True)
def count(a, b, shift_a, shift_b, exact, inexact, inexact_energy, magnitudes, updated):  # type: ignore[no-untyped-def]
    """Fill the histograms of one part; returns coordinates beyond ETA, differences that are NaN or Inf, and the sum and
    the largest of the others."""
    old, new = np.empty(_BLOCK + 1, np.uint32), np.empty(_BLOCK + 1, np.uint32)
    before, after = old.view(np.float32), new.view(np.float32)
    difference = np.empty(_BLOCK, np.float64)
    bits = difference.view(np.uint64)
    beyond_eta, bad = 0, 0
    summed, largest = 0.0, 0.0
    for start in range(0, a.size, _BLOCK):
        stop = min(start + _BLOCK, a.size)
        packed = 0
        for i in range(start, stop):  # as `_differences`, in one loop with the magnitudes: half of the time is here
            word = np.uint32(a[i]) << shift_a
            magnitudes[(word >> np.uint32(16)) & np.uint32(0x7FFF)] += np.uint32(1)
            old[packed] = word
            new[packed] = np.uint32(b[i]) << shift_b
            packed += word != new[packed]
        _subtract(old, new, packed, difference)
        for j in range(packed):
            beyond_eta += difference[j] > ETA * max(abs(np.float64(before[j])), abs(np.float64(after[j])))
        block = 0.0
        for j in range(packed):
            if bits[j] == 0:  # +0 and -0 differ in their bits only
                continue
            k = np.int64(bits[j] >> np.uint64(TAIL_BITS)) - OFFSET
            if k >= BINS:
                bad += 1
                continue
            block += difference[j]
            if difference[j] > largest:
                largest = difference[j]
            updated[(old[j] >> np.uint32(16)) & np.uint32(0x7FFF)] += np.uint32(1)
            if bits[j] & np.uint64(_TAIL) == 0:
                exact[k] += np.uint32(1)
            else:
                inexact[k] += np.uint32(1)
                inexact_energy[k] += difference[j] * difference[j]
        summed += block
    return beyond_eta, bad, summed, largest


@numba.njit(nogil=True, cache=True)
def merge(parts, occupied):  # type: ignore[no-untyped-def]
    """Sum the two counters of all parts and drop the places where both are empty: (places, counters of shape (2, k)).

    `parts` is (parts, 2, places); `occupied` tells whether the second counter alone occupies a place, too.
    """
    size = parts.shape[2]
    places, counters = np.empty(size, np.int64), np.empty((2, size), np.int64)
    kept = 0
    for k in range(size):
        first, second = np.int64(0), np.int64(0)
        for p in range(parts.shape[0]):
            first += parts[p, 0, k]
            second += parts[p, 1, k]
        places[kept], counters[0, kept], counters[1, kept] = k, first, second
        if first > 0 or (occupied and second > 0):
            kept += 1
    return places[:kept].copy(), counters[:, :kept].copy()


@numba.njit(nogil=True, cache=True)
def collect(a, b, shift_a, shift_b, wanted, out):  # type: ignore[no-untyped-def]
    """Write the inexact differences of the `wanted` bins into `out`, which has just the right size."""
    old, new = np.empty(_BLOCK + 1, np.uint32), np.empty(_BLOCK + 1, np.uint32)
    difference = np.empty(_BLOCK, np.float64)
    bits = difference.view(np.uint64)
    filled = 0
    for start in range(0, a.size, _BLOCK):
        packed = _differences(a, b, shift_a, shift_b, start, min(start + _BLOCK, a.size), old, new, difference)
        for j in range(packed):
            if bits[j] & np.uint64(_TAIL) != 0 and wanted[np.int64(bits[j] >> np.uint64(TAIL_BITS)) - OFFSET]:
                out[filled] = difference[j]
                filled += 1


@numba.njit(nogil=True, cache=True)
def refine(a, b, shift_a, shift_b, slots, counts, energies):  # type: ignore[no-untyped-def]
    """Add the inexact differences of some bins to finer ones: the next FINE_BITS bits. `slots`: bin -> row, or -1."""
    old, new = np.empty(_BLOCK + 1, np.uint32), np.empty(_BLOCK + 1, np.uint32)
    difference = np.empty(_BLOCK, np.float64)
    bits = difference.view(np.uint64)
    for start in range(0, a.size, _BLOCK):
        packed = _differences(a, b, shift_a, shift_b, start, min(start + _BLOCK, a.size), old, new, difference)
        for j in range(packed):
            if bits[j] & np.uint64(_TAIL) != 0:
                row = slots[np.int64(bits[j] >> np.uint64(TAIL_BITS)) - OFFSET]
                if row >= 0:
                    fine = (bits[j] >> np.uint64(TAIL_BITS - FINE_BITS)) & np.uint64((1 << FINE_BITS) - 1)
                    counts[row, fine] += 1
                    energies[row, fine] += difference[j] * difference[j]


@numba.njit(nogil=True, cache=True)
def count_magnitudes(bits, shift):  # type: ignore[no-untyped-def]
    """Magnitudes by the top 16 bits of their float32 form, without the sign: (MAGNITUDES,) int64."""
    counts = np.zeros(MAGNITUDES, np.int64)
    for i in range(bits.size):
        counts[((np.uint32(bits[i]) << shift) >> np.uint32(16)) & np.uint32(0x7FFF)] += 1
    return counts


@numba.njit(nogil=True, cache=True)
def collect_magnitudes(bits, shift, wanted, size):  # type: ignore[no-untyped-def]
    """The `size` magnitudes, as bits of float32, whose top 16 bits are `wanted`."""
    out = np.empty(size, np.uint32)
    filled = 0
    for i in range(bits.size):
        magnitude = (np.uint32(bits[i]) << shift) & np.uint32(0x7FFFFFFF)
        if magnitude >> np.uint32(16) == wanted:
            out[filled] = magnitude
            filled += 1
    return out


@numba.njit(nogil=True, cache=True)
def add_low_codes(bits, shift, cuts, codes, unit):  # type: ignore[no-untyped-def]
    """Add unit * (levels * cuts below the magnitude + cuts up to it), with one level more than cuts.

    Looked up by the top 16 bits, except where those do not tell on which side of a cut a magnitude lies.
    """
    table, untold = np.empty(MAGNITUDES, np.uint16), np.uint16(0xFFFF)
    tail = np.uint32(0xFFFF) >> shift
    for top in range(MAGNITUDES):
        first = np.uint32(top) << np.uint32(16)
        code = _low_code(first, cuts, unit)
        table[top] = code if code == _low_code(first | tail, cuts, unit) else untold
    for i in range(bits.size):
        magnitude = (np.uint32(bits[i]) << shift) & np.uint32(0x7FFFFFFF)
        code = table[magnitude >> np.uint32(16)]
        codes[i] += code if code != untold else _low_code(magnitude, cuts, unit)


@numba.njit(nogil=True, cache=True)
def _low_code(magnitude, cuts, unit):  # type: ignore[no-untyped-def]
    below, up_to = 0, 0
    for c in range(cuts.size):
        below += cuts[c] < magnitude
        up_to += cuts[c] <= magnitude
    return np.uint16(unit * ((cuts.size + 1) * below + up_to))


@numba.njit(nogil=True, cache=True)
def add_principal_codes(bits, cut, codes, unit):  # type: ignore[no-untyped-def]
    """Add unit * (1 above the cut, 2 at it, 0 below), by magnitude; bits of float32."""
    for i in range(bits.size):
        magnitude = bits[i] & np.uint32(0x7FFFFFFF)
        codes[i] += np.uint16(unit) * np.uint16((magnitude > cut) + 2 * (magnitude == cut))


@numba.njit(nogil=True, cache=True)
def tabulate(codes, table):  # type: ignore[no-untyped-def]
    """Add the number of coordinates of each code, in two tables by turns: most codes follow one of their own kind."""
    odd = np.zeros_like(table)
    for i in range(1, codes.size, 2):
        table[codes[i - 1]] += 1
        odd[codes[i]] += 1
    if codes.size % 2:
        table[codes[-1]] += 1
    table += odd


@numba.njit(nogil=True, cache=True)
def count_codes(a, b, shift_a, shift_b, codes, atols, tables):  # type: ignore[no-untyped-def]
    """Count codes of the coordinates with abs(b - a) > atol, one row of `tables` for each atol."""
    old, new = np.empty(1, np.uint32), np.empty(1, np.uint32)
    before, after = old.view(np.float32), new.view(np.float32)
    for i in range(codes.size):
        old[0], new[0] = np.uint32(a[i]) << shift_a, np.uint32(b[i]) << shift_b
        if old[0] != new[0]:
            difference = abs(np.float64(after[0]) - np.float64(before[0]))
            for k in range(atols.size):
                tables[k, codes[i]] += difference > atols[k]


@numba.njit(nogil=True, cache=True)
def sum_chances(bits, shift, codes, chances, sums):  # type: ignore[no-untyped-def]
    """Add to each code the chances, (MAGNITUDES, k), of its coordinates' magnitudes; `sums` is (codes, k)."""
    for i in range(codes.size):
        top = ((np.uint32(bits[i]) << shift) >> np.uint32(16)) & np.uint32(0x7FFF)
        for k in range(chances.shape[1]):
            sums[codes[i], k] += chances[top, k]


@numba.njit(nogil=True, cache=True)
def count_overlap(source, a, b, atol, found):  # type: ignore[no-untyped-def]
    """Add to the row of each binade of abs(source), its exponent bits: coordinates, those updated in a, in b, in both,
    in both with one sign. All are float32; `found` is (256, 5)."""
    bits = source.view(np.uint32)
    for i in range(source.size):
        w = np.float64(source[i])
        by_a, by_b = np.float64(a[i]) - w, np.float64(b[i]) - w
        in_a, in_b = abs(by_a) > atol, abs(by_b) > atol
        row = (bits[i] >> np.uint32(23)) & np.uint32(0xFF)
        found[row, 0] += 1
        found[row, 1] += in_a
        found[row, 2] += in_b
        found[row, 3] += in_a and in_b
        found[row, 4] += in_a and in_b and (by_a > 0) == (by_b > 0)
