import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from opdlib.metrics.geometry import geometries, geometry
from opdlib.metrics.masks import UPDATE_ATOL
from opdlib.metrics.spectrum import (
    RANK_SHARES,
    RANK_TOLERANCES,
    TOP,
    effective_rank,
    hill_exponent,
    rank_share,
    stable_rank,
    top_share,
)
from opdlib.metrics.subspace import ANGLE_SHARE, SHARES, determined, expected_projection, rank_of, source_basis

from . import geometry_reference as reference
from .test_spectrum import gaussian, with_values

SHAPES = [(60, 40), (40, 60), (50, 50), (8, 200), (200, 8)]


def pair(shape: tuple[int, int], seed: int = 0, scale: float = 1e-3) -> tuple[torch.Tensor, torch.Tensor]:
    """A bf16 source and a trained matrix with a low-rank and a dense update."""
    source = (gaussian(shape, seed) * 0.05).to(torch.bfloat16)
    low_rank = gaussian((shape[0], 2), seed + 1) @ gaussian((2, shape[1]), seed + 2)
    dense = gaussian(shape, seed + 3)
    return source, (source.double() + scale * (low_rank + dense) * 0.1).to(torch.bfloat16)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("scale", [1e-3, 3e-2])
def test_every_number_agrees_with_the_slow_definition(shape: tuple[int, int], scale: float) -> None:
    source, trained = pair(shape, scale=scale)
    found = geometry(source, trained)
    w, v = reference.wide(source), reference.wide(trained)
    delta = v - w
    sigma = reference.singular_values(delta)
    squares = sigma**2 / (sigma**2).sum()
    for k in TOP:
        assert top_share(found.spectrum, k) == pytest.approx(squares[:k].sum(), rel=1e-9)
    for share in RANK_SHARES:
        k = rank_of(share, shape)
        assert top_share(found.spectrum, k) == pytest.approx(squares[:k].sum(), rel=1e-9)
    assert stable_rank(found.spectrum) == pytest.approx(1 / squares[0], rel=1e-9)
    p = sigma / sigma.sum()
    assert effective_rank(found.spectrum) == pytest.approx(math.exp(-(p * np.log(p)).sum()), rel=1e-7)
    for tolerance in RANK_TOLERANCES:
        assert rank_share(found.spectrum, tolerance) == (sigma > tolerance * sigma[0]).mean()
    for share in SHARES:
        joint, left, right = reference.projections(w, delta, share)
        assert found.projection.joint[share] == pytest.approx(joint, rel=1e-7)
        assert found.projection.left[share] == pytest.approx(left, rel=1e-7)
        assert found.projection.right[share] == pytest.approx(right, rel=1e-7)
    left_sines, right_sines = reference.turning(w, v, ANGLE_SHARE)
    assert found.turning.left_mean == pytest.approx(left_sines.mean(), rel=1e-5)
    assert found.turning.left_max == pytest.approx(left_sines.max(), rel=1e-5)
    assert found.turning.right_mean == pytest.approx(right_sines.mean(), rel=1e-5)
    assert found.turning.right_max == pytest.approx(right_sines.max(), rel=1e-5)
    for share in SHARES:
        assert found.turning.rotation[share] == pytest.approx(reference.turning(w, v, share)[0].mean(), rel=1e-5)
    before, after = reference.singular_values(w), reference.singular_values(v)
    drift = np.linalg.norm(after - before)
    assert found.drift == pytest.approx(drift / np.linalg.norm(before), rel=1e-7)
    assert found.drift_of_delta == pytest.approx(drift / np.linalg.norm(delta), rel=1e-7)
    for atol in UPDATE_ATOL:
        own = found.coverage[atol]
        assert own.density == (np.abs(delta) > atol).mean()
        for share in SHARES:
            slow = reference.coverage(w, delta, share, atol)
            assert own.principal[share] == pytest.approx(slow["principal"], abs=1e-12), share
            assert own.low[share] == pytest.approx(slow["low"], abs=1e-12), share
            assert own.principal_not_low[share] == pytest.approx(slow["principal_not_low"], abs=1e-12)
            assert own.nonprincipal_or_low[share] == pytest.approx(1 - slow["principal_not_low"], abs=1e-12)
            assert own.ceiling[share] == pytest.approx(slow["ceiling"])
            assert own.changed_principal[share] == pytest.approx(slow["changed_principal"], abs=1e-12)
            assert own.changed_low[share] == pytest.approx(slow["changed_low"], abs=1e-12)
    assert found.reasons == {}
    assert found.route == "gram/gram"


def test_one_source_serves_many_trained_matrices() -> None:
    source, first = pair((40, 30))
    _, second = pair((40, 30), seed=5)
    for shared, trained in zip(geometries(source, [first, second.float()]), (first, second), strict=True):
        alone = geometry(source, trained)
        assert shared.projection == alone.projection
        assert shared.coverage == alone.coverage


def test_a_delta_inside_the_leading_subspace_projects_to_one() -> None:
    source = with_values([10.0 / (i + 1) for i in range(30)], (50, 30))
    u, _, vh = torch.linalg.svd(source, full_matrices=False)
    inside = u[:, :3] @ gaussian((3, 3)) @ vh[:3]
    outside = u[:, 20:] @ gaussian((10, 10)) @ vh[20:]
    assert geometry(source, source + 1e-3 * inside).projection.joint[0.1] == pytest.approx(1.0, abs=1e-9)
    assert geometry(source, source + 1e-3 * outside).projection.joint[0.2] == pytest.approx(0.0, abs=1e-9)


def test_an_isotropic_delta_meets_its_expectation() -> None:
    shape = (120, 80)
    chance = expected_projection(shape)
    source = gaussian(shape)
    found = [geometry(source, source + 1e-4 * gaussian(shape, seed)).projection for seed in range(1, 31)]
    for side in ("joint", "left", "right"):
        for share in (0.1, 0.2):
            mean = np.mean([getattr(f, side)[share] for f in found])
            assert mean == pytest.approx(getattr(chance, side)[share], rel=0.1)
    assert chance.joint[0.1] == 8 * 8 / (120 * 80)
    assert (chance.left[0.1], chance.right[0.1]) == (8 / 120, 8 / 80)


def test_a_known_rotation_is_measured_and_its_noise_floor_is_low() -> None:
    """Turn the leading left vectors by a known angle; identical subspaces read as far below 10^-7."""
    u = torch.linalg.qr(gaussian((60, 40))).Q
    v = torch.linalg.qr(gaussian((40, 40), 1)).Q
    sigma = torch.linspace(2, 1, 40, dtype=torch.float64)
    source = (u * sigma) @ v.mT
    for angle in (1e-6, 1e-4, 1e-2):
        turned = u.clone()
        turned[:, 0] = math.cos(angle) * u[:, 0] + math.sin(angle) * u[:, 30]
        turned[:, 30] = math.cos(angle) * u[:, 30] - math.sin(angle) * u[:, 0]
        found = geometry(source, (turned * sigma) @ v.mT).turning
        assert found.left_max == pytest.approx(math.sin(angle), rel=1e-3)
        assert found.left_mean == pytest.approx(math.sin(angle) / 4, rel=1e-3)
        assert found.right_max < 1e-7
    scaled = geometry(source, source * 1.5)
    assert max(scaled.turning.left_max, scaled.turning.right_max) < 1e-7
    assert scaled.drift == pytest.approx(0.5, rel=1e-12)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (2, 2)])
def test_smallest_shapes(shape: tuple[int, int]) -> None:
    source, trained = gaussian(shape).float(), gaussian(shape, 1).float()
    found = geometry(source, trained)
    w, delta = reference.wide(source), reference.wide(trained) - reference.wide(source)
    assert found.projection.joint[0.1] == pytest.approx(reference.projections(w, delta, 0.1)[0], rel=1e-5)
    assert found.coverage[0.0].low[0.2] == pytest.approx(reference.coverage(w, delta, 0.2, 0.0)["low"])


def test_a_source_of_low_rank_leaves_subspaces_undetermined_and_says_so() -> None:
    source = with_values([1.0], (50, 30))
    found = geometry(source, source + 1e-3 * gaussian((50, 30)))
    assert not determined(source_basis(source), 0.1)
    assert math.isnan(found.projection.joint[0.1])
    assert math.isnan(found.turning.left_mean)
    assert "rank 1" in found.reasons["projection 0.1"]
    assert "turning" in found.reasons
    undetermined = {share for share, sine in found.turning.rotation.items() if math.isnan(sine)}
    assert {f"rotation {share:g}" for share in undetermined} == {r for r in found.reasons if r.startswith("rotation")}
    assert 0.1 in undetermined
    assert 0.01 not in undetermined
    assert not math.isnan(found.projection.joint[0.01]), "k = 1 is determined"
    assert stable_rank(found.spectrum) > 1


def test_a_delta_of_low_rank_has_no_hill_exponent_and_says_why() -> None:
    source = gaussian((60, 40))
    thin, whole = source.clone(), source + 1e-3 * gaussian((60, 40), 1)
    thin[:3] += 1
    thin[1, 5:] -= 3
    found, usual = geometries(source, [thin, whole])
    assert math.isnan(hill_exponent(found.spectrum))
    assert found.reasons["hill"] == "the delta has rank 2 and no 4 singular values for a tail"
    assert (found.route, usual.route) == ("svd/gram", "gram/gram")
    assert hill_exponent(usual.spectrum) > 0
    assert "hill" not in usual.reasons
    flat = geometry(torch.ones(60, 40), torch.ones(60, 40) + torch.eye(60, 40))
    assert flat.reasons["hill"] == "fewer than two distinct singular values at the top"


def test_a_zero_source_has_masks_but_no_subspace() -> None:
    source = torch.zeros(20, 10, dtype=torch.bfloat16)
    found = geometry(source, source + 1)
    assert math.isnan(found.projection.left[0.2])
    assert math.isnan(found.drift)
    # every coordinate ties everywhere, so a mask holds each with probability rho
    assert found.coverage[0.0].low[0.1] == pytest.approx(0.1)
    assert found.coverage[0.0].principal[0.1] == pytest.approx(0.1)


def test_ill_conditioned_sources_take_the_direct_route() -> None:
    source = with_values([10.0 ** (-12 * i / 59) for i in range(60)], (80, 60))
    trained = source + 1e-3 * gaussian((80, 60))
    found = geometry(source, trained)
    assert found.route.endswith("/svd") == (10.0 ** (-12 * 11 / 59) <= 1e-4) or found.route.endswith("/gram")
    w = reference.wide(source)
    joint = reference.projections(w, reference.wide(trained) - w, 0.1)[0]
    assert found.projection.joint[0.1] == pytest.approx(joint, rel=1e-6)
    steep = with_values([10.0 ** (-12 * i / 11) for i in range(12)], (80, 60))
    assert source_basis(steep).route == "svd"


def test_ties_are_shared_out_evenly() -> None:
    """Half the coordinates have one magnitude; which of them a mask takes must not depend on anything."""
    source = torch.ones(20, 10, dtype=torch.bfloat16)
    source[10:] = 2
    updated = source.clone()
    updated[0, :] = 1.5  # 10 of the 100 coordinates that tie for the smallest
    found = geometry(source, updated).coverage[0.0]
    assert found.low[0.2] == pytest.approx(40 / 100)
    assert found.changed_low[0.2] == pytest.approx(10 * 0.4 / 40)


@given(st.integers(0, 10**6), st.sampled_from(SHAPES))
@settings(max_examples=25, deadline=None)
def test_ranges_and_invariances(seed: int, shape: tuple[int, int]) -> None:
    source, trained = pair(shape, seed)
    found = geometry(source, trained)
    for side in ("joint", "left", "right"):
        values = list(getattr(found.projection, side).values())
        assert values == sorted(values)
        assert 0 <= values[0] <= values[-1] <= 1 + 1e-9
    for share in SHARES:
        assert found.projection.joint[share] <= min(found.projection.left[share], found.projection.right[share]) + 1e-12
        own = found.coverage[0.0]
        assert own.low[share] <= own.ceiling[share] + 1e-12
        assert own.principal_not_low[share] <= own.principal[share] + 1e-12
    # transposing swaps the sides, permuting rows changes nothing
    flipped = geometry(source.mT.contiguous(), trained.mT.contiguous())
    assert flipped.projection.left == pytest.approx(found.projection.right, rel=1e-6)
    assert flipped.coverage[0.0].low == pytest.approx(found.coverage[0.0].low, abs=1e-12)
    order = torch.randperm(shape[0], generator=torch.Generator().manual_seed(seed))
    moved = geometry(source[order], trained[order])
    assert moved.projection.joint == pytest.approx(found.projection.joint, rel=1e-6)
    assert moved.coverage[0.0].principal == pytest.approx(found.coverage[0.0].principal, abs=1e-9)
    assert moved.turning.left_mean == pytest.approx(found.turning.left_mean, rel=1e-4)
