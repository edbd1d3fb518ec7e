"""Products of tall matrices, by blocks of rows, in float64: what every decomposition here is made of.

A matrix is looked at with its longer side as rows; a wide one is transposed while its blocks are read, so nothing but a
block exists twice. With m rows, n columns and m >= n a Gram matrix costs m * n^2 multiplications and an eigenproblem of
order n follows it; a singular value decomposition of the matrix itself costs several times more.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import torch

ROWS = 512
"""Rows of a block: large enough for the BLAS to be at its best, small enough to be forgotten in memory."""

_PANEL, _WIDE_PANEL, _WIDE_FROM = 96, 384, 1024
"""Columns of a panel, and of those of a matrix that has at least so many: narrow enough to skip nearly half of the
product, wide enough for the BLAS. At 1536 columns the wide ones take two thirds of the time, at 576 a third more."""

_TALL, _TALL_PANEL, _HELPERS = 1 << 16, 192, 4
"""Rows from which on the panels of a block are shared among so many threads. An embedding takes as long as a dozen
other matrices, and would keep all cores but one waiting at the end. Panels do not touch, so no bit depends on it."""


@cache
def _helpers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_HELPERS, initializer=torch.set_num_threads, initargs=(1,))


def is_wide(matrix: torch.Tensor) -> bool:
    """Whether a 2-D tensor has fewer rows than columns, so that it is looked at transposed."""
    return matrix.shape[0] < matrix.shape[1]


def blocks(matrix: torch.Tensor) -> Iterator[tuple[slice, torch.Tensor]]:
    """The rows of the tall form in float64: (rows, block of at most ROWS x n)."""
    tall = matrix.mT if is_wide(matrix) else matrix
    for start in range(0, tall.shape[0], ROWS):
        rows = slice(start, min(start + ROWS, tall.shape[0]))
        yield rows, tall[rows].to(torch.float64).contiguous()


class Gram:
    """Sum of block^T block over blocks of rows. Only half of the symmetric product is computed."""

    def __init__(self, shape: tuple[int, ...], device: torch.device):
        n, self._tall = min(shape), max(shape) >= _TALL and device.type == "cpu"
        self._sum = torch.zeros(n, n, dtype=torch.float64, device=device)
        self._panel = _TALL_PANEL if self._tall else _WIDE_PANEL if n >= _WIDE_FROM else _PANEL
        self._starts = range(0, n, self._panel)

    def add(self, block: torch.Tensor) -> None:
        """Add a block of shape (rows, n), float64."""

        def one(start: int) -> None:
            left = block[:, start : start + self._panel]
            self._sum[start : start + self._panel, start:].addmm_(left.mT, block[:, start:])

        for _ in _helpers().map(one, self._starts) if self._tall else map(one, self._starts):
            pass

    def matrix(self) -> torch.Tensor:
        """(n, n) float64, symmetric to the bit. The last thing to ask of a Gram: its sum becomes the result."""
        for start in self._starts:
            panel = self._sum[start : start + self._panel]
            panel[:, :start] = self._sum[:start, start : start + self._panel].mT
            square = panel[:, start : start + self._panel]
            square.copy_(square.triu() + square.triu(1).mT)
        return self._sum
