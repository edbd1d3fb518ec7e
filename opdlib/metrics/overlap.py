"""Overlap of the update masks of two trained checkpoints over one source."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from opdlib.metrics import kernels


@dataclass(frozen=True)
class Counts:
    """Coordinates of a part of a tensor, of one, or of several together."""

    size: int
    a: int
    """Updated in the first: abs(delta) > atol."""
    b: int
    both: int


def count(source: torch.Tensor, a: torch.Tensor, b: torch.Tensor, atol: float) -> list[Counts]:
    """Count updates with abs(trained - source) > atol, subtracted in float64, for three tensors of one shape.

    One entry for every binade of abs(source) that holds a coordinate, from the smallest up. Zeros and subnormals, which
    have the same exponent bits, are one binade.
    """
    arrays = [t.to(torch.float32).contiguous().flatten().numpy() for t in (source, a, b)]
    found = np.zeros((256, 4), np.int64)
    kernels.count_overlap(*arrays, atol, found)
    return [Counts(*map(int, row)) for row in found if row[0]]


def total(counts: Iterable[Counts]) -> Counts:
    """All coordinates together."""
    listed = list(counts)
    return Counts(*(sum(getattr(c, name) for c in listed) for name in ("size", "a", "b", "both")))


@dataclass(frozen=True)
class Overlap:
    """Shares in [0, 1]; NaN where a mask is empty."""

    o1: float
    """Share of the first mask that lies in the second (paper, Table 4)."""
    o2: float
    """Share of the second mask that lies in the first."""
    jaccard: float
    """Intersection over union (paper 3)."""


def overlap(counts: Counts) -> Overlap:
    """The observed overlap."""
    return _shares(counts.both, counts.a, counts.b)


def expected_globally(counts: Counts) -> Overlap:
    """If both masks were drawn over all coordinates, independently, at their densities: the paper's random baseline."""
    both = counts.a * counts.b / counts.size if counts.size else 0.0
    return _shares(both, counts.a, counts.b)


def expected_within(parts: Sequence[Counts]) -> Overlap:
    """If they were drawn independently within every part, at each part's own densities.

    With tensors as parts: this much overlap comes from the two runs preferring the same tensors, whatever they do
    inside them. With the binades of every tensor as parts: this much comes from preferring the same tensors and weights
    of the same size. bf16 alone makes two runs prefer small weights, whose grid is finer.
    """
    whole = total(parts)
    return _shares(math.fsum(c.a * c.b / c.size for c in parts if c.size), whole.a, whole.b)


def _shares(both: float, a: int, b: int) -> Overlap:
    union = a + b - both
    return Overlap(both / a if a else math.nan, both / b if b else math.nan, both / union if union else math.nan)
