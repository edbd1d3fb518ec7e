"""What rounding does to a spectrum, against torch."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from opdlib.tables import Results, rounding
from tests.conftest import Weights


@given(st.lists(st.floats(-1e30, 1e30).filter(lambda x: x == 0 or abs(x) > 1e-30), min_size=1))
def test_rounding_is_that_of_torch(values: list[float]) -> None:
    """Of numbers that float32 holds: torch goes through it."""
    numbers = torch.tensor(values, dtype=torch.float32)
    assert rounding.to_bf16(numbers.double().numpy()).tolist() == numbers.bfloat16().double().tolist()


def test_a_change_of_rank_one_looks_full_once_it_is_rounded() -> None:
    table = rounding.rounded_rank_one(1e-3).set_index("quantity")
    exact, rounded = table["exact"], table["rounded"]
    assert exact["svd_energy.1"] == pytest.approx(1)
    assert exact["rank_share.1e-06"] == 1 / 256
    assert rounded["rank_share.1e-05"] > 0.9
    assert rounded["svd_energy.1"] < 0.9
    assert rounded["stable_rank"] == pytest.approx(1 / rounded["svd_energy.1"])
    nothing = rounding.rounded_rank_one(0.0).set_index("quantity")["rounded"]
    assert nothing["exact_zero"] == 1
    assert nothing.drop("exact_zero").isna().all()


def test_the_budget_of_a_rounding(results: Results, stored: Results, weights: tuple[Weights, Weights]) -> None:
    def energies(view: str) -> tuple[float, float]:
        inside = whole = 0.0
        for name, before in weights[0].items():
            after = weights[1][name]
            if before.ndim == 2:
                delta = (after.bfloat16() if view == "bf16" else after).double() - before.double()
                squares = torch.linalg.svdvals(delta) ** 2
                inside, whole = inside + float(squares[:2].sum()), whole + float(squares.sum())
        return inside, whole

    table = rounding.budget(results, stored, top=2).set_index("part")
    (rounded, after), (exact, before) = energies("bf16"), energies("stored")
    assert table.loc["top 2", "kept"] == pytest.approx(rounded / exact, rel=1e-9)
    assert table.loc["top 2", "stored"] == pytest.approx(exact / before, rel=1e-9)
    assert table.loc["all others", "bf16"] == pytest.approx((after - rounded) / before, rel=1e-9)
