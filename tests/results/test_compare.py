"""Results beside committed ones: what is equal, and what is told of the rest."""

from opdlib.results.compare import differences, disagreements


def test_committed_numbers_have_two_tolerances() -> None:
    committed = {"rel_norm": 1.0, "layers": [], "stable_rank": 8.0}
    assert disagreements(committed | {"stable_rank": 8.0 * (1 + 1e-7)}, committed) == []
    assert disagreements(committed | {"stable_rank": 8.0 * (1 + 1e-5)}, committed)
    assert disagreements(committed | {"rel_norm": 1.0 + 1e-7}, committed)
    first = {"rel_norm": 1.0, "layers": []}
    assert disagreements(first, committed) == ["stable_rank is only on one side"]
    assert disagreements(first, committed, only="sparsity") == []


def test_a_number_that_is_newer_than_the_committed_ones_is_not_missed_there() -> None:
    committed = {"rel_norm": 1.0, "layers": [], "rotation": {"0.1": 2.0}}
    newer = committed | {"delta_abs": {"max": 1.0}, "rotation": {"0.1": 2.0, "0.2": 3.0}}
    assert disagreements(newer, committed) == []
    assert disagreements(newer | {"rotation": {"0.1": 2.1, "0.2": 3.0}}, committed)
    assert disagreements(committed, newer) == ["delta_abs is only on one side", "rotation.0.2 is only on one side"]


def test_differences_are_told_by_key() -> None:
    a = {"x": 1.0, "n": 3, "deep": [{"y": 2.0}], "none": None}
    assert differences(a, a, 1e-9) == []
    assert differences(a, a | {"x": 1.0 + 1e-12}, 1e-9) == []
    assert differences(a, a | {"x": 1.1}, 1e-9) == ["x is 1.0, committed 1.1"]
    assert differences(a, a | {"n": 4}, 1e-9) == ["n is 3, committed 4"]
    assert differences(a, a | {"deep": [{"y": 2.5}]}, 1e-9) == ["deep.0.y is 2.0, committed 2.5"]
    assert differences(a, {"x": 1.0, "n": 3, "deep": []}, 1e-9)
    assert differences(a, a | {"none": 0.0}, 1e-9) == ["none is None, committed 0.0"]
