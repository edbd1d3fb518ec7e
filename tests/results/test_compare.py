"""Results beside committed ones: what is equal, and what is told of the rest."""

from __future__ import annotations

from opdlib.results.compare import differences, disagreements


def test_committed_numbers_have_two_tolerances() -> None:
    committed = {"rel_norm": 1.0, "layers": [], "stable_rank": 8.0}
    assert disagreements(committed | {"stable_rank": 8.0 * (1 + 1e-7)}, committed) == []
    assert disagreements(committed | {"stable_rank": 8.0 * (1 + 1e-5)}, committed)
    assert disagreements(committed | {"rel_norm": 1.0 + 1e-7}, committed)
    first = {"rel_norm": 1.0, "layers": []}
    assert disagreements(first, committed) == ["stable_rank is only on one side"]
    assert disagreements(first, committed, only="sparsity") == []


def test_differences_are_told_by_key() -> None:
    a = {"x": 1.0, "n": 3, "deep": [{"y": 2.0}], "none": None}
    assert differences(a, a, 1e-9) == []
    assert differences(a, a | {"x": 1.0 + 1e-12}, 1e-9) == []
    assert differences(a, a | {"x": 1.1}, 1e-9) == ["x is 1.0, committed 1.1"]
    assert differences(a, a | {"n": 4}, 1e-9) == ["n is 3, committed 4"]
    assert differences(a, a | {"deep": [{"y": 2.5}]}, 1e-9) == ["deep.0.y is 2.0, committed 2.5"]
    assert differences(a, {"x": 1.0, "n": 3, "deep": []}, 1e-9)
    assert differences(a, a | {"none": 0.0}, 1e-9) == ["none is None, committed 0.0"]
