"""The whole geometry of one matrix: spectrum, subspaces and masks, the source's part computed once."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from opdlib.metrics.masks import Coverage, coverages, masks
from opdlib.metrics.spectrum import hill_exponent, tail
from opdlib.metrics.subspace import (
    SHARES,
    Basis,
    Comparison,
    Projection,
    compare,
    determined,
    expected_projection,
    rank_of,
    source_basis,
)


@dataclass(frozen=True)
class Geometry(Comparison):
    """What is measured of one delta with at least one nonzero entry. An undefined number is NaN; `reasons` says why."""

    shape: tuple[int, int]
    route: str
    """How the delta's and the source's decompositions were made, as `delta/source`: gram or svd each."""
    expected: Projection
    coverage: Mapping[float, Coverage]
    """atol of the update mask -> coverage."""
    reasons: Mapping[str, str]


def geometries(source: torch.Tensor, trained: Sequence[torch.Tensor]) -> list[Geometry]:
    """Measure every `trained - source`, all (m, n) with m, n >= 1 and of a float dtype; each must differ somewhere.

    The source is decomposed once. Its masks are used for all and dropped before the larger work on subspaces begins.
    Raises torch.linalg.LinAlgError if a matrix cannot be decomposed.
    """
    basis = source_basis(source)
    known = masks(source, basis)
    covered = [coverages(known, source, other) for other in trained]
    del known
    return [_geometry(basis, compare(basis, source, other), own) for other, own in zip(trained, covered, strict=True)]


def geometry(source: torch.Tensor, trained: torch.Tensor) -> Geometry:
    """`geometries` for one trained matrix."""
    return geometries(source, [trained])[0]


def _geometry(basis: Basis, seen: Comparison, covered: Mapping[float, Coverage]) -> Geometry:
    return Geometry(
        **vars(seen),
        shape=basis.shape,
        route=f"{seen.spectrum.route}/{basis.route}",
        expected=expected_projection(basis.shape),
        coverage=covered,
        reasons=_reasons(basis, seen),
    )


def _reasons(basis: Basis, seen: Comparison) -> dict[str, str]:
    reasons = {
        f"projection {share:g}": f"the source has rank {basis.rank} and does not determine its leading "
        f"{rank_of(share, basis.shape)} directions"
        for share in SHARES
        if not determined(basis, share)
    }
    if math.isnan(seen.turning.left_mean):
        reasons["turning"] = "a leading subspace is not determined"
    if math.isnan(hill_exponent(seen.spectrum)):
        sigma = seen.spectrum.sigma
        rank, k = int((sigma > 0).sum()), tail(len(sigma))
        reasons["hill"] = (
            f"the delta has rank {rank} and no {k} singular values for a tail"
            if rank < k
            else "fewer than two distinct singular values at the top"
        )
    return reasons
