"""What runs were made with and judged on, as their records have it."""

from pathlib import Path

from opdlib.tables import study_provenance
from tests.tables.matched_runs import write_runs


def test_the_provenance_says_everything_that_occurs(tmp_path: Path) -> None:
    write_runs(tmp_path, 5)
    table = study_provenance.provenance("pico", ["opd", "offline"], tmp_path)
    assert table.loc["runs", "pico"] == "10"
    assert table.loc["source digest", "pico"] == "ab" * 8
    assert table.loc["code", "pico"] == "01234567; 01234567 (with uncommitted changes)"
    assert study_provenance.provenance("smollm2", ["opd"], tmp_path).empty
    both = study_provenance.provenance(["pico", "smollm2"], ["opd", "offline"], tmp_path)
    assert both.equals(table), "a scale without runs has no column"
