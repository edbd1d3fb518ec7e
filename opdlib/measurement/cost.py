"""What the geometry of a tensor takes, from its header alone: multiplications, memory, seconds on one core."""

from __future__ import annotations

import math

ITEM = {"BF16": 2, "F16": 2, "F32": 4}
"""Bytes of a coordinate, by stored dtype."""


def work(shape: tuple[int, ...]) -> int:
    """Multiplications of a Gram product of one matrix of this shape: what its geometry costs, up to a factor."""
    return max(shape[-2:]) * min(shape[-2:]) ** 2


def memory(shape: tuple[int, ...], source: str, trained: tuple[str, ...], view: str) -> int:
    """Bytes that the geometry of one tensor takes at most, by its stored dtypes, those of all `trained` together.

    Of a tensor of fused experts all are mapped, and one is measured at a time. A matrix whose ranks its Gram matrix
    cannot decide is decomposed itself, which takes up to 24 bytes a coordinate more: that is rare, and not in here.
    """
    long, short = max(shape[-2:]), min(shape[-2:])
    size, stored = long * short, math.prod(shape)
    sides = (source, *trained)
    mapped = sum(ITEM[dtype] for dtype in sides) * stored
    rounded = [dtype for dtype in sides if view == "bf16" and dtype != "BF16"]
    seen = (2 * len(rounded) + 4 * sides.count("F16") + (16 if "F32" in trained and rounded else 0)) * size
    basis = 8 * (long + short) * (short // 5 + 1)
    masks = (2 + 4 + 2) * size  # a code, a float32 product, and the members of a bin while a cut is looked for
    products = 8 * (3 * short**2 + 3 * long * (short // 10 + 1) + 4 * 512 * short)
    return mapped + seen + basis + max(masks, products) + (16 << 20)


def of_tensor(shape: tuple[int, ...], pairs: int) -> int:
    """Work of the geometry of a tensor for so many pairs: of each matrix of it, once for the source and for each."""
    return math.prod(shape[:-2]) * work(shape) * (pairs + 1)


def of_sparsity(size: int) -> int:
    """Work of the sparsity pass over so many coordinates, in the unit of `work`."""
    return 64 * size


def memory_of_sparsity(size: int) -> int:
    """Bytes that the sparsity pass takes at most for a tensor of so many coordinates: both sides in float32."""
    return 16 * size + (64 << 20)
