"""The whole geometry of one matrix: spectrum, subspaces and masks, the source's part computed once."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from opdlib.metrics.masks import Coverage, chance_nonprincipal_or_low, coverages, expected_coverages, masks
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
    nonprincipal_or_low: Mapping[float, float]
    """rho -> share of all coordinates in that set: what a random update covers of it."""
    nulls: Mapping[str, Coverage]
    """Null -> the coverage that it expects of exact nonzero updates."""
    reasons: Mapping[str, str]


Chances = Mapping[str, NDArray[np.float64]]
"""Null -> P(updated) by magnitude, see `opdlib.metrics.nulls.by_magnitude`."""


def geometries(
    source: torch.Tensor, trained: Sequence[torch.Tensor], chances: Sequence[Chances] = ()
) -> list[Geometry]:
    """Measure every `trained - source`, all (m, n) with m, n >= 1 and of a float dtype; each must differ somewhere.

    The source is decomposed once. Its masks are used for all and dropped before the larger work on subspaces begins.
    `chances` has the nulls of each trained matrix, or nothing. Raises torch.linalg.LinAlgError if a matrix cannot be
    decomposed.
    """
    basis = source_basis(source)
    known = masks(source, basis)
    covered = [coverages(known, source, other) for other in trained]
    nulls = [expected_coverages(known, source, own) if own else {} for own in chances or [{}] * len(trained)]
    random = chance_nonprincipal_or_low(known)
    del known
    found = []
    for other, own, null in zip(trained, covered, nulls, strict=True):
        seen = compare(basis, source, other)
        found.append(
            Geometry(
                **vars(seen),
                shape=basis.shape,
                route=f"{seen.spectrum.route}/{basis.route}",
                expected=expected_projection(basis.shape),
                coverage=own,
                nonprincipal_or_low=random,
                nulls=null,
                reasons=_reasons(basis, seen),
            )
        )
    return found


def geometry(source: torch.Tensor, trained: torch.Tensor) -> Geometry:
    """`geometries` for one trained matrix."""
    return geometries(source, [trained])[0]


def _reasons(basis: Basis, seen: Comparison) -> dict[str, str]:
    reasons = {
        f"projection {share:g}": f"the source has rank {basis.rank} and does not determine its leading "
        f"{rank_of(share, basis.shape)} directions"
        for share in SHARES
        if not determined(basis, share)
    }
    if math.isnan(seen.turning.left_mean):
        reasons["turning"] = "a leading subspace is not determined"
    undetermined = [share for share, sine in seen.turning.rotation.items() if math.isnan(sine)]
    reasons |= {f"rotation {share:g}": "a leading subspace is not determined" for share in undetermined}
    if math.isnan(hill_exponent(seen.spectrum)):
        sigma = seen.spectrum.sigma
        rank, k = int((sigma > 0).sum()), tail(len(sigma))
        reasons["hill"] = (
            f"the delta has rank {rank} and no {k} singular values for a tail"
            if rank < k
            else "fewer than two distinct singular values at the top"
        )
    return reasons
