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
NEAR = 3
"""Steps from one bf16 number to another up to which the pair is only counted. Such a difference is exact, even across a
power of two: at most 2 * NEAR of the smaller steps."""
_TAIL = (1 << TAIL_BITS) - 1
_INFINITE = 0x7F80
"""Top 16 bits of an infinite float32 without the sign; those of NaN are larger."""
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


def alike(source: torch.Tensor, trained: torch.Tensor) -> tuple[NDArray[np.integer], NDArray[np.integer]]:
    """The raw bits of both: uint16 if both are bf16, else uint32."""
    a, b = raw_bits(source), raw_bits(trained)
    if a.dtype == b.dtype:
        return a, b
    return a.astype(np.uint32) << shift_of(a), b.astype(np.uint32) << shift_of(b)


def steps_of(bits: NDArray[np.integer]) -> tuple[np.uint32, np.integer, np.integer]:
    """What the kernels are told of these bits: `shift_of`, the steps that are near, and the column of all others."""
    near = NEAR if bits.dtype == np.uint16 else 0
    return shift_of(bits), bits.dtype.type(near), bits.dtype.type(2 * near + 1)


def shift_of(bits: NDArray[np.integer]) -> np.uint32:
    """Left shift by which these bits become those of a float32: 16 for bf16, 0 otherwise."""
    return np.uint32(16 if bits.dtype == np.uint16 else 0)


@numba.njit(nogil=True, cache=True)
def _far(x, y, shift, near, last, step, apart, old, new, difference):  # type: ignore[no-untyped-def]
    """Of one block: the steps from `x` to `y` in `step`, counted from -near and at most `last`; the pairs that are
    `last`, packed, in `old` and `new` (bits) and abs(new - old) in `difference`. Returns how many these are."""
    for i in range(x.size):
        step[i] = y[i] - x[i] + near  # wraps, as unsigned numbers do
    for i in range(x.size):
        step[i] = min(step[i], last)
    packed = 0
    for i in range(x.size):
        apart[packed] = i
        packed += step[i] == last
    for j in range(packed):
        old[j], new[j] = np.uint32(x[apart[j]]) << shift, np.uint32(y[apart[j]]) << shift
    before, after = old.view(np.float32), new.view(np.float32)
    for j in range(packed):
        difference[j] = abs(np.float64(after[j]) - np.float64(before[j]))
    return packed


@numba.njit(nogil=True, cache=True, fastmath={"reassoc"})
def energy(bits):  # type: ignore[no-untyped-def]
    """Sum of squares of float32 numbers."""
    values = bits.view(np.float32)
    total = 0.0
    for start in range(0, values.size, _BLOCK):
        block = 0.0
        for i in range(start, min(start + _BLOCK, values.size)):
            block += np.float64(values[i]) * np.float64(values[i])
        total += block
    return total


@numba.njit(nogil=True, cache=True)
def count(a, b, shift, near, last, table, exact, inexact, inexact_energy, updated):  # type: ignore[no-untyped-def]
    """Count one part: every coordinate in `table`, and the differences that are far in the histograms.

    `table` is (MAGNITUDES, last + 1): abs(source) by the steps from source to trained, -near to near, and in the last
    column those that are farther. Returns, of these, coordinates beyond ETA, differences that are NaN or Inf, and the
    sum and the largest of the others.
    """
    counters, columns, drop = table.reshape(-1), np.uint32(table.shape[1]), np.uint32(16) - shift
    step, place, apart = np.empty(_BLOCK, a.dtype), np.empty(_BLOCK, np.uint32), np.empty(_BLOCK + 1, np.uint16)
    old, new = np.empty(_BLOCK, np.uint32), np.empty(_BLOCK, np.uint32)
    before, after = old.view(np.float32), new.view(np.float32)
    difference = np.empty(_BLOCK, np.float64)
    bits = difference.view(np.uint64)
    beyond_eta, bad = 0, 0
    summed, largest = 0.0, 0.0
    for start in range(0, a.size, _BLOCK):
        x, y = a[start : start + _BLOCK], b[start : start + _BLOCK]
        packed = _far(x, y, shift, near, last, step, apart, old, new, difference)
        for i in range(x.size):
            place[i] = ((x[i] >> drop) & np.uint32(0x7FFF)) * columns + step[i]
        for i in range(x.size):
            counters[place[i]] += np.uint32(1)
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
def spread(table, near, exact, magnitudes, updated):  # type: ignore[no-untyped-def]
    """Add what `count` left in its table, each difference once and times how often it occurs: of few steps, they are
    all exact. Returns as `count` does."""
    words = np.empty(2, np.uint32)
    values = words.view(np.float32)
    difference = np.empty(1, np.float64)
    bits = difference.view(np.uint64)
    beyond_eta, bad = np.int64(0), np.int64(0)
    summed, largest = 0.0, 0.0
    for top in range(MAGNITUDES):
        held = np.int64(0)
        for column in range(table.shape[1]):
            held += table[top, column]
        if held == 0:
            continue
        magnitudes[top] += held
        for column in range(table.shape[1] - 1):
            times = np.int64(table[top, column])
            if times == 0:
                continue
            other = top + column - near
            if max(top, other) >= _INFINITE or other < 0:
                bad += times
            elif other != top:
                words[0], words[1] = np.uint32(top) << np.uint32(16), np.uint32(other) << np.uint32(16)
                difference[0] = abs(np.float64(values[1]) - np.float64(values[0]))
                beyond_eta += times * (difference[0] > ETA * max(np.float64(values[0]), np.float64(values[1])))
                summed += times * difference[0]
                largest = max(largest, difference[0])
                updated[top] += times
                exact[np.int64(bits[0] >> np.uint64(TAIL_BITS)) - OFFSET] += times
    return beyond_eta, bad, summed, largest


@numba.njit(nogil=True, cache=True)
def collect(a, b, shift, near, last, wanted, out):  # type: ignore[no-untyped-def]
    """Write the inexact differences of the `wanted` bins into `out`, which has just the right size."""
    step, apart = np.empty(_BLOCK, a.dtype), np.empty(_BLOCK + 1, np.uint16)
    old, new, difference = np.empty(_BLOCK, np.uint32), np.empty(_BLOCK, np.uint32), np.empty(_BLOCK, np.float64)
    bits = difference.view(np.uint64)
    filled = 0
    for start in range(0, a.size, _BLOCK):
        x, y = a[start : start + _BLOCK], b[start : start + _BLOCK]
        for j in range(_far(x, y, shift, near, last, step, apart, old, new, difference)):
            if bits[j] & np.uint64(_TAIL) != 0 and wanted[np.int64(bits[j] >> np.uint64(TAIL_BITS)) - OFFSET]:
                out[filled] = difference[j]
                filled += 1


@numba.njit(nogil=True, cache=True)
def refine(a, b, shift, near, last, slots, counts, energies):  # type: ignore[no-untyped-def]
    """Add the inexact differences of some bins to finer ones: the next FINE_BITS bits. `slots`: bin -> row, or -1."""
    step, apart = np.empty(_BLOCK, a.dtype), np.empty(_BLOCK + 1, np.uint16)
    old, new, difference = np.empty(_BLOCK, np.uint32), np.empty(_BLOCK, np.uint32), np.empty(_BLOCK, np.float64)
    bits = difference.view(np.uint64)
    for start in range(0, a.size, _BLOCK):
        x, y = a[start : start + _BLOCK], b[start : start + _BLOCK]
        for j in range(_far(x, y, shift, near, last, step, apart, old, new, difference)):
            if bits[j] & np.uint64(_TAIL) != 0:
                row = slots[np.int64(bits[j] >> np.uint64(TAIL_BITS)) - OFFSET]
                if row >= 0:
                    fine = (bits[j] >> np.uint64(TAIL_BITS - FINE_BITS)) & np.uint64((1 << FINE_BITS) - 1)
                    counts[row, fine] += 1
                    energies[row, fine] += difference[j] * difference[j]
