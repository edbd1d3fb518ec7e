"""Generators of the package reasoning-gym itself. Not in the suite, and not collected by it: the package pins others to
exact versions, one of them against constraints.txt, and one has to be compiled. In an environment that has it:

pytest tests/train/real_generators.py
"""

import pytest

from opdlib.train.tasks import find_task, gym
from opdlib.train.tasks.task import Problem


def question(problem: Problem) -> str:
    """Its text, whatever the spacing and the case."""
    return " ".join(problem.prompt.split()).casefold()


@pytest.mark.parametrize("generator", ["chain_sum", "spell_backward", "number_filtering", "prime_factorization"])
def test_real_generators(generator: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gym, "SPACE", 600)
    task = find_task(f"reasoning-gym:{generator}")
    training, held_out = task.training(2000, seed=3), task.held_out(100, seed=3)
    assert {question(p) for p in training}.isdisjoint(question(p) for p in held_out)
    assert all(task.is_correct(p.completion, p.reference) for p in held_out)
    assert not any(task.is_correct(" nonsense ((\n", p.reference) for p in held_out)
