"""What numbers are called, and how they are written."""

from __future__ import annotations

import math

import pytest

from opdlib.quantities import name_of
from opdlib.quantities import written as text_of
from opdlib.tables import (
    summary_names,
)


def test_names() -> None:
    assert name_of("energy_top", at=16.0) == "top 16"
    assert name_of("projection", "joint", 0.1) == "joint projection, 10%"
    assert name_of("rank_share", at=1e-5) == "rank above 1e-5"
    assert name_of("coverage", "nonprincipal_or_low", 0.01, 0.0) == "nonprincipal or low coverage, 1%"
    assert name_of("density", atol=1e-5) == "changed (above 1e-5)"


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("top 16", 0.4038, "40.38%"),
        ("joint projection, 1%", 0.000037, "0.0037%"),
        ("joint projection, 1%", 0.0, "0.00%"),
        ("stable rank, bf16", 8.277, "8.28"),
        ("effective rank", 405.5, "406"),
        ("mean sine, left", 6.52e-4, "6.5e-4"),
        ("to", 0.0, "0"),
        ("top 1", math.nan, "-"),
    ],
)
def test_values_for_the_eye(name: str, value: float, text: str) -> None:
    assert text_of(name, value) == text


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("rel_norm", "relative norm"),
        ("sparsity.1e-05", "within 1e-5"),
        ("top_energy.0.01", "energy of top 1%"),
        ("svd_energy.16", "top 16"),
        ("svd_energy_rank.0.1", "top 10% of rank"),
        ("projection_expected.left.0.05", "left projection, 5%: chance"),
        ("coverage_1e-05.principal_not_low.0.2", "principal not low coverage, 20% (above 1e-5)"),
        ("coverage_ceiling.low.0.1", "low coverage, 10%: ceiling"),
        ("blocks.lm_head.energy_share", "lm head: share of the energy"),
        ("sines.right.max", "largest sine, right"),
        ("accuracy", "accuracy"),
    ],
)
def test_names_of_the_numbers(key: str, expected: str) -> None:
    assert summary_names.name(key) == expected
