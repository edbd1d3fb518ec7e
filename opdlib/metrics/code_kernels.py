"""The inner loops of masks and overlaps, compiled like those of `opdlib.metrics.kernels`."""

import numba
import numpy as np

from opdlib.metrics.kernels import MAGNITUDES


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
