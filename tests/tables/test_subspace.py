"""Where a change points and which weights it reaches, against counting and against chance."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from opdlib.tables import Results, magnitude, subspace
from tests.tables.results_of import results_of

SHARES = (0.01, 0.05, 0.1, 0.2)


UP = "model.layers.0.mlp.up_proj.weight"


def one_matrix(folder: Path, source: torch.Tensor, trained: torch.Tensor, view: str = "bf16") -> Results:
    return results_of(folder, {UP: source}, {UP: trained}, view)


def distinct(generator: torch.Generator) -> torch.Tensor:
    """A 32 x 32 matrix of bf16 numbers, no two of which have the same absolute value."""
    values = torch.tensor([2.0**e * (1 + m / 128) for e in range(-8, 0) for m in range(128)])
    signs = torch.randint(0, 2, (1024,), generator=generator) * 2 - 1
    return (values * signs)[torch.randperm(1024, generator=generator)].reshape(32, 32).bfloat16()


def test_an_isotropic_change_is_as_near_to_the_source_as_chance(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    source = torch.randn(300, 200, generator=generator).bfloat16()
    trained = source.double() + 0.01 * torch.randn(300, 200, generator=generator).double()
    table = subspace.projection(one_matrix(tmp_path, source, trained.float(), "stored"), SHARES)
    assert len(table) == 12
    assert table[table["share"] >= 0.1]["ratio"].to_list() == pytest.approx([1] * 6, abs=0.1)


def test_changed_by_size_is_what_counting_gives(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(1)
    source = distinct(generator)
    trained = (source.float() + 1e-3 * torch.randn(32, 32, generator=generator)).bfloat16()
    row = subspace.changed(one_matrix(tmp_path, source, trained)).iloc[0]
    order = source.abs().flatten().float().argsort()
    hit = (source != trained).flatten()[order].double()
    for share in SHARES:
        assert row[f"changed_in.low.{share:g}"] == pytest.approx(float(hit[: math.ceil(share * 1024)].mean()), rel=1e-9)
    assert row["changed_above.0.2"] == pytest.approx(float(hit[math.ceil(0.2 * 1024) :].mean()), rel=1e-9)
    assert row["density"] == pytest.approx(float(hit.mean()), rel=1e-9)


def test_the_arithmetic_on_one_matrix_is_the_measurement_but_for_the_size_of_the_mask(tmp_path: Path) -> None:
    """With one matrix there is nothing to mix: ceil(share * n) places against share * n."""
    generator = torch.Generator().manual_seed(1)
    source = distinct(generator)
    trained = (source.float() + 1e-3 * torch.randn(32, 32, generator=generator)).bfloat16()
    results = one_matrix(tmp_path, source, trained)
    direct, sums = subspace.changed(results).iloc[0], subspace.changed_by_arithmetic(results).iloc[0]
    assert sums["changed_in.low.0.2"] == pytest.approx(
        direct["changed_in.low.0.2"] * math.ceil(204.8) / 204.8, rel=1e-9
    )
    assert sums["changed_in.principal.0.1"] == pytest.approx(
        direct["changed_in.principal.0.1"] * math.ceil(102.4) / 102.4, rel=1e-9
    )


def test_coverage_beside_its_bounds(results: Results) -> None:
    table = subspace.coverage(results, SHARES)
    assert len(table) == 16
    numbers = table[["coverage", "ceiling", "inside", "anywhere"]]
    assert ((numbers >= 0) & (numbers <= 1)).all(axis=None)
    assert (table["coverage"] <= table["ceiling"] + 1e-9).all()
    exact = table[(table["atol"] == 0) & (table["mask"] == "low")].set_index("share")
    assert exact["coverage"].to_dict() == pytest.approx(
        {float(s): v for s, v in results.summary["coverage"]["low"].items()}, rel=1e-9
    )


def test_deciles_share_out_the_binades(tmp_path: Path) -> None:
    """128 weights a binade: tenths of 102.4 weights, each a mixture of at most two of them."""
    generator = torch.Generator().manual_seed(2)
    source = distinct(generator)
    noise = 1e-3 * torch.randn(32, 32, generator=generator)
    views = [one_matrix(tmp_path / v, source, source.float() + noise, v) for v in ("bf16", "stored")]
    binades = magnitude(*views)
    table = subspace.deciles(binades)
    assert table["share"].mean() == pytest.approx((binades["share"] * binades["coordinates"]).sum() / 1024, rel=1e-12)
    rates = binades.set_index("magnitude")["share"]
    assert table["share"][0] == pytest.approx(rates[2.0**-8], rel=1e-12)
    second = (25.6 * rates[2.0**-8] + 76.8 * rates[2.0**-7]) / 102.4
    assert table["share"][1] == pytest.approx(second, rel=1e-12)
    assert (table["from"][1], table["to"][1]) == (2.0**-8, 2.0**-7)
    assert table["expected"].notna().all()
    assert (table["expected"] - table["share"]).abs().max() < 0.2
    assert subspace.deciles(magnitude(views[0]))["expected"].isna().all()
