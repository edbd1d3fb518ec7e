"""Tasks made by generators of reasoning-gym, and names of tasks that are not enumerated here."""

import random
import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from opdlib.errors import MissingDependencyError, ParameterError
from opdlib.train.tasks import find_task, gym
from opdlib.train.tasks.task import Problem


class Dice:
    """Stands for a generator of reasoning-gym: seed plus index numbers the problems, and questions repeat."""

    def __init__(self, name: str, seed: int, size: int) -> None:
        self.name, self.seed, self.size = name, seed, size

    def __getitem__(self, index: int) -> dict[str, Any]:
        """The same entry for the same seed plus index, unless the generator is `fickle`."""
        rng = random.Random(None if self.name == "fickle" else self.seed + index)
        a, b = rng.randint(1, 40), rng.randint(1, 40)
        spacing = " " * (1 + index % 2)
        answer = {"grids": f"{a}\n{b}", "broken": "?"}.get(self.name, str(a + b))
        return {"question": f"Add {a} and{spacing}{b}", "answer": answer, "metadata": {"sum": a + b}}

    def score_answer(self, answer: str, entry: dict[str, Any]) -> float:
        """Half a point for any other number; trips over what is none."""
        return 1.0 if int(answer) == entry["metadata"]["sum"] else 0.5


@pytest.fixture
def fake_gym(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A package reasoning-gym of four generators."""

    def create(name: str, seed: int, size: int) -> Dice:
        assert name != "composite", "Must specify at least one dataset"
        return Dice(name, seed, size)

    names = ("dice", "grids", "broken", "fickle", "composite")
    fake = SimpleNamespace(factory=SimpleNamespace(DATASETS=dict.fromkeys(names)), create_dataset=create)
    for cached in (gym._generated, gym._split):
        cached.cache_clear()
    monkeypatch.setitem(sys.modules, "reasoning_gym", fake)
    yield
    for cached in (gym._generated, gym._split):
        cached.cache_clear()


def question(problem: Problem) -> str:
    """Its text, whatever the spacing and the case."""
    return " ".join(problem.prompt.split()).casefold()


@pytest.mark.usefixtures("fake_gym")
def test_a_generated_question_is_on_one_side_for_all_seeds() -> None:
    task = find_task("reasoning-gym:dice")
    split = task.split()
    training, held_out = {question(p) for p in split.training}, {question(p) for (p,) in split.held_out}
    assert len(training) == len(split.training)  # each question once, though the generator repeats
    assert 0.2 < len(held_out) / (len(training) + len(held_out)) < 0.45
    assert training.isdisjoint(held_out)
    for seed in range(5):
        assert {question(p) for p in task.training(5000, seed)} <= training
        assert {question(p) for p in task.held_out(100, seed)} <= held_out
    assert task.training(50, 1) == task.training(50, 1) != task.training(50, 2)


@pytest.mark.usefixtures("fake_gym")
def test_a_generated_answer_is_scored_by_the_package_alone() -> None:
    task = find_task("reasoning-gym:dice")
    problem = task.held_out(1, 0)[0]
    assert problem.prompt.endswith("\nAnswer:")
    assert task.is_correct(problem.completion, problem.reference)
    assert task.is_correct(f" 0{problem.answer} \nAdd", problem.reference)  # as the package sees it
    for wrong in ("", "\n5", f" {problem.answer}0\n", " I do not know\n"):  # half a point, or none
        assert not task.is_correct(wrong, problem.reference)


@pytest.mark.usefixtures("fake_gym")
@pytest.mark.parametrize(
    ("generator", "message"),
    [
        ("dize", "no such generator; choose one of: broken, composite, dice, fickle, grids"),
        ("grids", "take more than one line; choose another"),
        ("broken", "take more than one line; choose another"),
        ("fickle", "makes other problems every time; choose another"),
        ("composite", r"no default form \(Must specify at least one dataset"),
    ],
)
def test_generators_that_cannot_be_used(generator: str, message: str) -> None:
    with pytest.raises(ParameterError, match=f"task reasoning-gym:{generator}: .*{message}"):
        find_task(f"reasoning-gym:{generator}").held_out(1, 0)


@pytest.mark.parametrize(
    ("name", "package"), [("reasoning-gym:chain_sum", "reasoning-gym"), ("hub:aime-2024", "math-verify")]
)
def test_a_missing_package_is_named_with_its_command(name: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package.replace("-", "_"), None)
    gym._generated.cache_clear()
    with pytest.raises(MissingDependencyError, match=rf"not installed; run: pip install {package}$"):
        find_task(name).held_out(1, 0)


@pytest.mark.parametrize("name", ["hub:gsm8k", "hub:", "reasoning-gym:", "reasoning-gym:No-Such", "gym:dice", ""])
def test_unknown_names_list_the_known(name: str) -> None:
    known = "arithmetic, sums, hub:dapo-math-17k, .*, hub:geo3k, reasoning-gym:GENERATOR, jsonl:FILE, hub:ORG/NAME"
    with pytest.raises(ParameterError, match=f"is unknown; choose one of: {known}$"):
        find_task(name)


def test_a_name_is_checked_without_the_packages_behind_it() -> None:
    code = """
import sys
from opdlib.train.tasks import find_task
for name in ("arithmetic", "hub:geo3k", "reasoning-gym:chain_sum"):
    find_task(name)
assert not {"torch", "datasets", "transformers", "reasoning_gym", "math_verify"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
