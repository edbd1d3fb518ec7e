import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opdlib.errors import ParameterError
from opdlib.registry.tasks import DATA, MADE
from opdlib.train.tasks import TASKS, Task, arithmetic, find_task, is_correct, sums

pytestmark = pytest.mark.slow

ARITHMETIC, SUMS = TASKS["arithmetic"], TASKS["sums"]


def asked(prompt: str) -> tuple[str, frozenset[int]]:
    """What a problem asks, whatever the order of its"""
    question = prompt.removeprefix("Calculate: ").removesuffix("\nResult:").removesuffix("=")
    sign = "*" if "*" in question else "+"
    return sign, frozenset(int(number) for number in question.split(sign))


def test_problems_are_right_and_complete() -> None:
    problems = [problem for twins in arithmetic() for problem in twins]
    assert len(problems) == len({p.prompt for p in problems}) == 60**2 + 29**2
    for problem in problems:
        question = problem.prompt.removeprefix("Calculate: ").removesuffix("\nResult:")
        a, sign, b = question.split(" ")
        assert problem.answer == str(int(a) + int(b) if sign == "+" else int(a) * int(b))
        assert problem.completion == f" {problem.answer}\n"


def test_sums_are_right_and_complete() -> None:
    problems = [problem for twins in sums() for problem in twins]
    assert len(problems) == len({p.prompt for p in problems}) == 90**2
    assert {len(p.prompt) for p in problems} == {6}
    for problem in problems:
        a, b = problem.prompt.removesuffix("=").split("+")
        assert problem.answer == str(int(a) + int(b))
        assert 20 <= int(problem.answer) <= 198


def test_no_answer_is_worth_guessing() -> None:
    """Difficulty: always giving the most frequent answer is right in at most 2 of 100 held-out problems."""
    for task in (ARITHMETIC, SUMS):
        answers = [problem.answer for twins in task.split().held_out for problem in twins]
        assert max(map(answers.count, set(answers))) / len(answers) < 0.02


def test_answers_fit_into_the_tokens_they_may_take() -> None:
    for task in (ARITHMETIC, SUMS):
        problems = [p for twins in task.split().held_out for p in twins]
        assert max(len(p.completion) for p in problems) <= task.max_new_tokens


def test_form_of_a_prompt() -> None:
    prompts = {problem.prompt for twins in arithmetic() for problem in twins}
    assert "Calculate: 47 + 12\nResult:" in prompts
    assert "47+12=" in {problem.prompt for twins in sums() for problem in twins}


@pytest.mark.parametrize(("task", "pairs"), [(ARITHMETIC, 2265), (SUMS, 4095)], ids=["arithmetic", "sums"])
def test_training_and_held_out_share_nothing_in_either_order(task: Task, pairs: int) -> None:
    trained = {asked(p.prompt) for p in task.training(20_000, seed=0)}
    remaining = pairs - len(trained)
    held_out = {asked(p.prompt) for p in task.held_out(remaining, seed=0)}
    assert len(held_out) == remaining >= 500
    assert 0.3 < remaining / pairs < 0.37
    assert trained.isdisjoint(held_out)
    with pytest.raises(ParameterError, match=f"choose between 1 and {remaining}"):
        task.held_out(remaining + 1, seed=0)


@settings(deadline=None)
@given(st.sampled_from([ARITHMETIC, SUMS]), st.integers(0, 2**31 - 1), st.integers(0, 2**31 - 1))
def test_no_seed_leaks(task: Task, train_seed: int, test_seed: int) -> None:
    trained = {asked(p.prompt) for p in task.training(300, train_seed)}
    assert trained.isdisjoint(asked(p.prompt) for p in task.held_out(100, test_seed))


def test_the_split_is_the_one_of_the_committed_runs() -> None:
    """A change here would make every committed accuracy one of other problems."""
    first = {task.name: (task.training(1, 0)[0].prompt, task.held_out(1, 0)[0].prompt) for task in (ARITHMETIC, SUMS)}
    assert first == {
        "arithmetic": ("Calculate: 26 + 42\nResult:", "Calculate: 44 + 24\nResult:"),
        "sums": ("41+72=", "81+42="),
    }


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


@pytest.mark.parametrize("name", [*MADE, *DATA, "reasoning-gym:chain_sum"])
def test_every_name_that_a_recipe_may_have_is_a_task(name: str) -> None:
    assert find_task(name).name == name


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
