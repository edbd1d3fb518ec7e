"""Where a change points and which weights it reaches, against counting and against chance."""

import math
from pathlib import Path

import pytest
import torch

from opdlib.tables import Results, subspace
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
