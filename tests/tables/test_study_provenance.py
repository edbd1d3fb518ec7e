"""What runs were made with and judged on, as their records have it."""

from __future__ import annotations

from pathlib import Path

from opdlib.tables import study_provenance
from tests.tables.matched_runs import write_runs
from tests.tables.optimizer_page import page


def test_the_provenance_says_everything_that_occurs(tmp_path: Path) -> None:
    write_runs(tmp_path, 5)
    table = study_provenance.provenance("pico", ["opd", "offline"], tmp_path)
    assert table.loc["runs", "pico"] == "10"
    assert table.loc["source digest", "pico"] == "ab" * 8
    assert table.loc["code", "pico"] == "01234567; 01234567 (with uncommitted changes)"
    assert study_provenance.provenance("smollm2", ["opd"], tmp_path).empty


def test_origins(tmp_path: Path) -> None:
    five = page(tmp_path, 5, "adam-zero")
    shown = study_provenance.origins("pico", five.arms["arm"], five.root)["pico"]
    assert shown["runs"] == "60"
    assert shown["source digest"] == "0123456789abcdef"
    assert shown["trained with"] == "opdlib 0.1.0, torch 2"
