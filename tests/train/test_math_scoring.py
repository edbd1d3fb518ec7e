"""Scoring of answers that are mathematics: what is stated as final, and math-verify."""

import sys
from types import SimpleNamespace

import pytest

from opdlib.train.tasks import hub
from opdlib.train.tasks.scoring import is_equal
from opdlib.train.tasks.task import Split
from tests.train.hub_rows import aime_row, dapo_row


@pytest.fixture
def fake_verifier(monkeypatch: pytest.MonkeyPatch) -> None:
    """A package math-verify that knows boxed whole numbers."""

    def parse(text: str, parsing_timeout: int | None) -> list[int]:
        inner = text.removeprefix("\\boxed{").partition("}")[0]
        return [int(inner)] if inner.isdigit() else []

    def verify(gold: list[int], target: list[int], timeout_seconds: int | None) -> bool:
        return gold == target

    monkeypatch.setitem(sys.modules, "math_verify", SimpleNamespace(parse=parse, verify=verify))


ANSWERS = [
    ("Thus it is \\boxed{42}.", True),
    ("Thus it is \\boxed{042}.", True),
    ("First \\boxed{41}, no: \\boxed{42}", True),
    ("Sure.\nAnswer: 42", True),
    ("Sure.\nAnswer: $42$.\n", True),
    ("**Answer:** 42", True),
    ("<think>Maybe \\boxed{41}.\nWait.\n</think>\n\nIt is \\boxed{42}.", True),
    ("<think>Surely \\boxed{42}.\nWait.\n</think>\n\nIt is \\boxed{41}.", False),
    ("Answer: 41, but then \\boxed{42}", True),
    ("\\boxed{42}\nAnswer: 41", False),
    ("First \\boxed{42}, no: \\boxed{41}", False),
    ("Answer:\n42", False),
    ("It is 42", False),
    ("\\boxed{}", False),
    ("\\boxed{forty-two apples", False),
    ("", False),
]


@pytest.mark.usefixtures("fake_verifier")
@pytest.mark.parametrize(("completion", "right"), ANSWERS)
def test_only_a_stated_final_answer_counts(completion: str, right: bool) -> None:
    assert is_equal(completion, "42") is right


@pytest.mark.parametrize(
    ("completion", "answer", "right"),
    [
        *((completion, "42", right) for completion, right in ANSWERS),
        ("\\boxed{\\frac{1}{2}}", "0.5", True),
        ("\\boxed{2\\sqrt{221}}", "2\\sqrt{221}", True),
        ("\\boxed{42, 43}", "42", False),
        ("\\boxed{33}", "033", True),
    ],
)
def test_the_real_verifier(completion: str, answer: str, right: bool) -> None:
    assert is_equal(completion, answer) is right


@pytest.mark.usefixtures("fake_verifier")
def test_what_a_teacher_is_shown_would_score() -> None:
    problems = [hub.parse_dapo(dapo_row("What is 6 times 7?", "42")), hub.parse_problem(aime_row("6 times 7?", "42"))]
    assert all(is_equal(problem.completion, problem.reference) for problem in problems)
    assert Split(problems, []).training[0].privileged.count("What is 6 times 7?") == 2
