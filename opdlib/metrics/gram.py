"""Products of tall matrices, by blocks of rows, in float64: what every decomposition here is made of.

A matrix is looked at with its longer side as rows; a wide one is transposed while its blocks are read, so nothing but a
block exists twice. With m rows, n columns and m >= n a Gram matrix costs m * n^2 multiplications and an eigenproblem of
order n follows it; a singular value decomposition of the matrix itself costs several times more.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

ROWS = 512
"""Rows of a block: large enough for the BLAS to be at its best, small enough to be forgotten in memory."""

_PANEL = 96
"""Columns of a panel: narrow enough to skip nearly half of the product, wide enough for the BLAS."""


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

    def __init__(self, n: int, device: torch.device):
        self._sum = torch.zeros(n, n, dtype=torch.float64, device=device)
        self._starts = range(0, n, _PANEL)

    def add(self, block: torch.Tensor) -> None:
        """Add a block of shape (rows, n), float64."""
        for start in self._starts:
            left = block[:, start : start + _PANEL]
            self._sum[start : start + _PANEL, start:].addmm_(left.mT, block[:, start:])

    def matrix(self) -> torch.Tensor:
        """(n, n) float64, symmetric to the bit. The last thing to ask of a Gram: its sum becomes the result."""
        for start in self._starts:
            panel = self._sum[start : start + _PANEL]
            panel[:, :start] = self._sum[:start, start : start + _PANEL].mT
            square = panel[:, start : start + _PANEL]
            square.copy_(square.triu() + square.triu(1).mT)
        return self._sum
