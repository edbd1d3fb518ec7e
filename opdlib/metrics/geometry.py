"""The whole geometry of one matrix: spectrum, subspaces and masks, the source's part computed once."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from opdlib.metrics import spectrum as of
from opdlib.metrics.gram import LinAlgError
from opdlib.metrics.masks import Coverage, Masks, coverages, masks
from opdlib.metrics.spectrum import RANK_SHARES, RANK_TOLERANCES, TOP, Spectrum
from opdlib.metrics.subspace import (
    SHARES,
    Projection,
    SourceBasis,
    Turning,
    compare,
    determined,
    expected_projection,
    rank_of,
    source_basis,
)


@dataclass(frozen=True)
class SourceGeometry:
    """What every comparison with one source matrix needs: its decomposition and its masks."""

    basis: SourceBasis
    masks: Masks


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


def source_geometry(source: torch.Tensor) -> SourceGeometry:
    """Decompose an (m, n) source, m, n >= 1, and code its masks. Raises torch.linalg.LinAlgError if that fails."""
    basis = source_basis(source)
    return SourceGeometry(basis, masks(source, basis))


def geometry(known: SourceGeometry, source: torch.Tensor, trained: torch.Tensor) -> Geometry:
    """Measure `trained - source`, both (m, n) of a float dtype, which must differ somewhere."""
    seen = compare(known.basis, source, trained)
    try:
        eigenvalues = torch.linalg.eigvalsh(seen.delta).flip(0).clamp(min=0)
        sigma = None if of.undecided(eigenvalues, max(source.shape)) else eigenvalues.sqrt()
    except LinAlgError:
        sigma = None
    own = Spectrum(sigma.cpu(), "gram") if sigma is not None else of.direct(trained.double() - source.double())
    shape = known.basis.shape
    return Geometry(
        shape=shape,
        route=f"{own.route}/{known.basis.route}",
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
        coverage=coverages(known.masks, source, trained),
        reasons=_reasons(known.basis, own, seen.turning),
    )


def _reasons(basis: SourceBasis, own: Spectrum, turning: Turning) -> dict[str, str]:
    reasons = {
        f"projection {share:g}": f"the source has rank {basis.rank} and does not determine its leading "
        f"{rank_of(share, basis.shape)} directions"
        for share in SHARES
        if not determined(basis, share)
    }
    if math.isnan(turning.left_mean):
        reasons["turning"] = "a leading subspace is not determined"
    if math.isnan(of.hill_exponent(own)):
        reasons["hill"] = "fewer than two distinct singular values at the top"
    return reasons
