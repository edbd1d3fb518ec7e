"""Matrices, and how architectures put several of them into one tensor."""

import torch
from torch import Tensor

HIDDEN, INNER, HEADS, KEY_HEADS, SIZE, EXPERTS = 12, 20, 4, 2, 5, 3
"""All widths that could be mistaken for each other differ: query heads have 20 rows together, key heads 10."""


def numbers(*shape: int, seed: int) -> Tensor:
    """Random bf16 numbers."""
    return (0.05 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))).to(torch.bfloat16)


def stacked(gates: Tensor, ups: Tensor) -> Tensor:
    """Gate and up of each expert, one below the other."""
    return torch.cat([gates, ups], dim=1)


def alternating(gates: Tensor, ups: Tensor) -> Tensor:
    """Gate and up of each expert, or their biases, row by row in turn."""
    return torch.stack([gates, ups], dim=2).flatten(1, 2)


def grouped(q: Tensor, k: Tensor, v: Tensor, groups: int) -> Tensor:
    """For each key head its query heads, its key and its value."""
    return torch.cat([part for group in zip(*(m.chunk(groups) for m in (q, k, v)), strict=True) for part in group])
