"""The whole geometry of one matrix: spectrum, subspaces and masks, the source's part computed once."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from opdlib.metrics import spectrum as of
from opdlib.metrics.masks import Coverage, coverages, masks
from opdlib.metrics.spectrum import RANK_SHARES, RANK_TOLERANCES, TOP, Spectrum
from opdlib.metrics.subspace import (
    SHARES,
    Basis,
    Comparison,
    Projection,
    Turning,
    compare,
    determined,
    expected_projection,
    rank_of,
    source_basis,
)


@dataclass(frozen=True)
class Geometry:
    """What is measured of one delta with at least one nonzero entry. An undefined number is NaN; `reasons` says why."""

    shape: tuple[int, int]
    route: str
    """How the delta's and the source's decompositions were made, as `delta/source`: gram or svd each."""
    spectrum: Spectrum
    energy_top: Mapping[int, float]
    """k -> share of energy in the k largest singular values."""
    energy_rank: Mapping[float, float]
    """Share of rank -> share of energy."""
    stable_rank: float
    effective_rank: float
    rank_share: Mapping[float, float]
    """Tolerance -> numerical rank over min(m, n)."""
    hill: float
    projection: Projection
    expected: Projection
    turning: Turning
    drift: float
    drift_of_delta: float
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
    own, shape = seen.spectrum, basis.shape
    return Geometry(
        shape=shape,
        route=f"{own.route}/{basis.route}",
        spectrum=own,
        energy_top={k: of.top_share(own, k) for k in TOP},
        energy_rank={share: of.top_share(own, rank_of(share, shape)) for share in RANK_SHARES},
        stable_rank=of.stable_rank(own),
        effective_rank=of.effective_rank(own),
        rank_share={t: of.rank_share(own, t) for t in RANK_TOLERANCES},
        hill=of.hill_exponent(own),
        projection=seen.projection,
        expected=expected_projection(shape),
        turning=seen.turning,
        drift=seen.drift,
        drift_of_delta=seen.drift_of_delta,
        coverage=covered,
        reasons=_reasons(basis, own, seen.turning),
    )


def _reasons(basis: Basis, own: Spectrum, turning: Turning) -> dict[str, str]:
    reasons = {
        f"projection {share:g}": f"the source has rank {basis.rank} and does not determine its leading "
        f"{rank_of(share, basis.shape)} directions"
        for share in SHARES
        if not determined(basis, share)
    }
    if math.isnan(turning.left_mean):
        reasons["turning"] = "a leading subspace is not determined"
    if math.isnan(of.hill_exponent(own)):
        rank, k = int((own.sigma > 0).sum()), of.tail(len(own.sigma))
        reasons["hill"] = (
            f"the delta has rank {rank} and no {k} singular values for a tail"
            if rank < k
            else "fewer than two distinct singular values at the top"
        )
    return reasons
