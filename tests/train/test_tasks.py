from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opdlib.errors import ParameterError
from opdlib.train.tasks import TASKS, find_task, is_correct, wilson

ARITHMETIC = TASKS["arithmetic"]


def operands(prompt: str) -> tuple[str, frozenset[str]]:
    """What a problem asks, whatever the order of its operands."""
    a, sign, b = prompt.removeprefix("Calculate: ").removesuffix("\nResult:").split(" ")
    return sign, frozenset((a, b))


def test_problems_are_right_and_complete() -> None:
    problems = [problem for twins in ARITHMETIC.space() for problem in twins]
    assert len(problems) == len({p.prompt for p in problems}) == 60**2 + 29**2
    for problem in problems:
        question = problem.prompt.removeprefix("Calculate: ").removesuffix("\nResult:")
        a, sign, b = question.split(" ")
        assert problem.answer == str(int(a) + int(b) if sign == "+" else int(a) * int(b))
        assert problem.completion == f" {problem.answer}\n"


def test_form_of_a_prompt() -> None:
    prompts = {problem.prompt for twins in ARITHMETIC.space() for problem in twins}
    assert "Calculate: 47 + 12\nResult:" in prompts


def test_training_and_held_out_share_nothing_in_either_order() -> None:
    everything = sum(1 for _ in ARITHMETIC.space())
    trained = {operands(p.prompt) for p in ARITHMETIC.training(20_000, seed=0)}
    remaining = everything - len(trained)
    held_out = {operands(p.prompt) for p in ARITHMETIC.held_out(remaining, seed=0)}
    assert len(held_out) == remaining >= 500
    assert trained.isdisjoint(held_out)
    with pytest.raises(ParameterError, match=f"choose between 1 and {remaining}"):
        ARITHMETIC.held_out(remaining + 1, seed=0)


@given(st.integers(0, 2**31 - 1), st.integers(0, 2**31 - 1))
def test_no_seed_leaks(train_seed: int, test_seed: int) -> None:
    trained = {operands(p.prompt) for p in ARITHMETIC.training(300, train_seed)}
    assert trained.isdisjoint(operands(p.prompt) for p in ARITHMETIC.held_out(100, test_seed))


def test_seeds_decide_the_problems() -> None:
    assert ARITHMETIC.training(50, seed=3) == ARITHMETIC.training(50, seed=3)
    assert ARITHMETIC.training(50, seed=3) != ARITHMETIC.training(50, seed=4)
    assert ARITHMETIC.training(50, seed=3) == ARITHMETIC.training(80, seed=3)[:50]
    assert ARITHMETIC.held_out(50, seed=3) == ARITHMETIC.held_out(50, seed=3)
    assert ARITHMETIC.held_out(50, seed=3) != ARITHMETIC.held_out(50, seed=4)


@pytest.mark.parametrize("n", [-1, 0, 100_000])
def test_impossible_numbers_are_refused(n: int) -> None:
    with pytest.raises(ParameterError, match="choose between 1 and"):
        ARITHMETIC.held_out(n, seed=0)


def test_unknown_task_lists_the_known() -> None:
    with pytest.raises(ParameterError, match="'algebra' is unknown; choose one of: arithmetic"):
        find_task("algebra")


@pytest.mark.parametrize(
    ("completion", "correct"),
    [
        (" 59\n", True),
        ("59", True),
        (" 59 \nCalculate: 1 + 1", True),
        (" 59.\n", False),
        (" 590\n", False),
        (" 059\n", False),
        (" 47 + 12 = 59\n", False),
        ("\n59", False),
        ("", False),
    ],
)
def test_the_scorer_is_strict(completion: str, correct: bool) -> None:
    assert is_correct(completion, "59") is correct


def test_wilson_known_answers() -> None:
    assert wilson(0, 10) == pytest.approx((0, 0.2775328), abs=1e-6)
    assert wilson(155, 500) == pytest.approx((0.2710389, 0.3518583), abs=1e-6)
    assert wilson(10, 10) == pytest.approx((1 - 0.2775328, 1), abs=1e-6)


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_encloses_the_share_and_is_symmetric(counts: tuple[int, int]) -> None:
    correct, n = counts
    low, high = wilson(correct, n)
    assert 0 <= low <= correct / n <= high <= 1
    assert wilson(n - correct, n) == pytest.approx((1 - high, 1 - low))


@pytest.mark.parametrize(("correct", "n"), [(0, 0), (3, 2), (-1, 5)])
def test_wilson_refuses_impossible_counts(correct: int, n: int) -> None:
    with pytest.raises(ParameterError):
        wilson(correct, n)
