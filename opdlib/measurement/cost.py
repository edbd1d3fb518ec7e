"""What the geometry of a tensor takes, from its header alone: multiplications, memory, seconds on one core.

The seconds are a model of four terms for one matrix, with m rows, n columns and m >= n: products grow with m n^2,
eigenproblems with n^3, passes over the coordinates with m n, and something is the same for each. The constants are what
these phases took in `benchmarks/cores.py`, which prints how far off the sum is; `speed` scales them to the machine at
hand.
"""

import heapq
import math
import time
from collections.abc import Iterable

import torch

from opdlib.metrics.eigen import one_blas_thread
from opdlib.metrics.geometry import geometry

ITEM = {"BF16": 2, "F16": 2, "F32": 4}
"""Bytes of a coordinate, by stored dtype."""

PRODUCTS, EIGENPROBLEMS, PASSES, EACH = 1.7e-10, 6.6e-10, 4e-8, 0.04
"""Seconds for each m n^2, n^3, m n and matrix of one pair, on one core of the machine of the benchmark."""
GRAM, TALL, HELPERS = 0.65, 1 << 16, 4
"""Part of the products that is Gram matrices, which several threads share from so many rows on (`metrics.gram`)."""
SHARED = 1 / 3
"""Part of them that is the source's, and the same for all pairs over it."""
SCAN = 4e-9
"""Seconds of the sparsity pass for each coordinate."""
SAMPLE = (640, 320)
"""Shape of the matrix that `speed` measures."""


def work(shape: tuple[int, ...]) -> int:
    """Multiplications of a Gram product of one matrix of this shape: what its geometry costs, up to a factor."""
    return max(shape[-2:]) * min(shape[-2:]) ** 2


def of_tensor(shape: tuple[int, ...], pairs: int) -> int:
    """Work of the geometry of a tensor for so many pairs: of each matrix of it, once for the source and for each."""
    return math.prod(shape[:-2]) * work(shape) * (pairs + 1)


def of_sparsity(size: int) -> int:
    """Work of the sparsity pass over so many coordinates, in the unit of `work`."""
    return 64 * size


def seconds(shape: tuple[int, ...], pairs: int = 1) -> float:
    """Of the geometry of a tensor for so many pairs over one source, on one core of the machine of the benchmark."""
    long, short = max(shape[-2:]), min(shape[-2:])
    one = PRODUCTS * long * short**2 + EIGENPROBLEMS * short**3 + PASSES * long * short + EACH
    return math.prod(shape[:-2]) * one * (SHARED + (1 - SHARED) * pairs)


def jobs(shape: tuple[int, ...], pairs: int = 1) -> list[float]:
    """`seconds` as `makespan` takes them: what one core has to do, and what others do of it for a tall matrix."""
    whole, (long, short) = seconds(shape, pairs), (max(shape[-2:]), min(shape[-2:]))
    if long < TALL or len(shape) > 2:
        return [whole]
    each = GRAM * PRODUCTS * long * short**2 * (SHARED + (1 - SHARED) * pairs) / HELPERS
    return [whole - (HELPERS - 1) * each] + [each] * (HELPERS - 1)


def speed() -> float:
    """Seconds that a matrix takes on one core here, over what `seconds` says; the smaller of two, the first of which
    loads what is compiled."""
    rows, columns = SAMPLE
    generator = torch.Generator().manual_seed(0)
    source = torch.randn(rows, columns, generator=generator)
    trained = source + 1e-3 * torch.randn(rows, columns, generator=generator)
    taken = []
    with one_blas_thread():
        for _ in range(2):
            start = time.thread_time()
            geometry(source, trained)
            taken.append(time.thread_time() - start)
    return min(taken) / seconds(SAMPLE)


def makespan(jobs: Iterable[float], workers: int) -> float:
    """When the last of `jobs` ends, in their unit, if the longest begins first, each at the worker that is free."""
    free = [0.0] * workers
    for job in sorted(jobs, reverse=True):
        heapq.heappush(free, heapq.heappop(free) + job)
    return max(free)


def memory(shape: tuple[int, ...], source: str, trained: tuple[str, ...], view: str) -> int:
    """Bytes that the geometry of one tensor takes at most, by its stored dtypes, those of all `trained` together.

    Of a tensor of fused experts all are read, and one is measured at a time. A matrix whose ranks its Gram matrix
    cannot decide is decomposed itself, which takes up to 24 bytes a coordinate more: that is rare, and not in here.
    """
    long, short = max(shape[-2:]), min(shape[-2:])
    size, stored = long * short, math.prod(shape)
    sides = (source, *trained)
    read = sum(ITEM[dtype] for dtype in sides) * stored
    rounded = [dtype for dtype in sides if view == "bf16" and dtype != "BF16"]
    seen = (2 * len(rounded) + 4 * sides.count("F16") + (16 if "F32" in trained and rounded else 0)) * size
    basis = 8 * (long + short) * (short // 5 + 1)
    masks = (2 + 4 + 2) * size  # a code, a float32 product, and the members of a bin while a cut is looked for
    products = 8 * (3 * short**2 + 3 * long * (short // 5 + 1) + 4 * 512 * short)
    return read + seen + basis + max(masks, products) + (16 << 20)


def memory_of_sparsity(size: int, source: str, trained: str, view: str) -> int:
    """Bytes that the sparsity pass takes at most for a tensor of so many coordinates, by its stored dtypes: both sides
    as they are read and, where that is something else, as they are seen (rounded, or two dtypes as float32), and one
    float64: differences while a cut is looked for, or the delta of master weights."""
    sides = (source, trained)
    converted = [d for d in sides if (d != "BF16" if view == "bf16" else d != "F32" and sides != ("BF16", "BF16"))]
    seen = (2 if view == "bf16" else 4) * len(converted)
    return (sum(ITEM[dtype] for dtype in sides) + seen + 8) * size + (64 << 20)
