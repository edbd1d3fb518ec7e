"""Two rules for one pair, and what a float32 checkpoint has to do with it."""

from pathlib import Path

import pytest
import torch

from opdlib.tables import conflicts
from tests.conftest import pico_weights
from tests.tables.results_of import results_of


def normal(size: int, scale: float, seed: int) -> torch.Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * scale


def test_the_model_is_what_a_draw_shows() -> None:
    source = normal(200_000, 1.0, 0).bfloat16().double()
    trained = source + normal(200_000, 1.2e-3, 1)
    equal = float((trained.bfloat16().double() == source).double().mean())
    within = float(((trained - source).abs() <= 1e-3 * source.abs()).double().mean())
    seen = float((trained.bfloat16().double() - source).square().mean().sqrt())
    found = conflicts.expected(equal)
    assert found["stored"] == pytest.approx(1.2e-3, rel=0.02)
    assert found["within"] == pytest.approx(within, abs=0.01)
    assert found["rounded"] == pytest.approx(seen, rel=0.02)


def test_the_rules_agree_in_bf16_and_not_in_float32(tmp_path: Path) -> None:
    source = pico_weights()
    trained = {
        name: w.float() * (1 + 2e-3 * torch.linspace(-1, 1, w.numel()).reshape(w.shape)) for name, w in source.items()
    }
    bf16, stored = (results_of(tmp_path / view, source, trained, view) for view in ("bf16", "stored"))
    table = conflicts.rounded(bf16, stored)
    assert table["unchanged"].iloc[0] == table["unchanged"].iloc[1] > 0.9
    assert table["unchanged"].iloc[2] == pytest.approx(0.5, abs=0.05), "half of them move by less than a thousandth"


def test_what_the_paper_says_twice() -> None:
    table = conflicts.of_the_paper().set_index("what")
    assert table.loc["random overlap with DS-Qwen OPD", ["here", "there"]].tolist() == [
        "17.50% (Table 4)",
        "17.42% (Table 2)",
    ]
    assert table.loc["density of the GRPO mask", "there"] == "13.44% (Table 4)"
    assert table.loc["smallest coverage of small weights, OPD-style pairs", "there"] == "23.04% (Table 2)"
