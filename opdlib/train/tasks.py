"""Verifiable tasks: seeded problems with one right answer, a strict scorer, a leak-proof split.

A task enumerates its whole problem space as *twins*: problems that ask the same thing (3 + 5 and
5 + 3). A hash of the twins decides, once and for every seed, whether they are trained on or held
out; so no held-out problem, in either order, is ever seen in training.
"""

from __future__ import annotations

import hashlib
import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import sqrt

from opdlib.errors import ParameterError

HELD_OUT_SHARE = 3
"""One pair of twins in this many is held out."""


@dataclass(frozen=True)
class Problem:
    """One question in the form the model sees it, and its only right answer."""

    prompt: str
    answer: str

    @property
    def completion(self) -> str:
        """The gold continuation of the prompt, ended by a newline."""
        return f" {self.answer}\n"

    @property
    def privileged(self) -> str:
        """The prompt after the solved problem: what a teacher sees that knows the answer."""
        return self.prompt + self.completion + self.prompt


Twins = tuple[Problem, ...]


@dataclass(frozen=True)
class Task:
    """A named problem space; `max_new_tokens` is what an answer may take when it is scored."""

    name: str
    max_new_tokens: int
    space: Callable[[], Iterator[Twins]]

    def is_correct(self, completion: str, answer: str) -> bool:
        """Strict: see `is_correct` of this module."""
        return is_correct(completion, answer)

    def training(self, n: int, seed: int) -> list[Problem]:
        """`n` >= 1 training problems in an order drawn from `seed`.

        When all have been drawn they come again, in a new order.
        """
        pool = [problem for twins in self.space() if not _held_out(twins) for problem in twins]
        rng = random.Random(seed)
        problems: list[Problem] = []
        while len(problems) < n:
            problems += rng.sample(pool, len(pool))
        return problems[:n]

    def held_out(self, n: int, seed: int) -> list[Problem]:
        """`n` held-out problems drawn from `seed` without repetition, one of each pair of twins.

        Raises ParameterError if `n` < 1 or the task holds out fewer.
        """
        pool = [twins for twins in self.space() if _held_out(twins)]
        if not 1 <= n <= len(pool):
            raise ParameterError(f"task {self.name}: {n} held-out problems asked for; choose between 1 and {len(pool)}")
        rng = random.Random(seed)
        return [rng.choice(twins) for twins in rng.sample(pool, n)]


def _held_out(twins: Twins) -> bool:
    digest = hashlib.sha256(twins[0].prompt.encode()).digest()
    return int.from_bytes(digest[:8], "big") % HELD_OUT_SHARE == 0


def _arithmetic() -> Iterator[Twins]:
    """Sums of 1 to 60 and products of 2 to 30: 4,441 problems, 2,265 pairs of twins.

    The ranges are such that SmolLM2-135M-Instruct answers some of them, and by far not all.
    """
    for sign, operands in (("+", range(1, 61)), ("*", range(2, 31))):
        for a, b in itertools.combinations_with_replacement(operands, 2):
            answer = str(a + b if sign == "+" else a * b)
            orders = dict.fromkeys(((a, b), (b, a)))
            yield tuple(Problem(f"Calculate: {x} {sign} {y}\nResult:", answer) for x, y in orders)


def _sums() -> Iterator[Twins]:
    """Sums of two numbers of two digits: 8,100 problems, 4,095 pairs of twins, in as few characters as can be."""
    for a, b in itertools.combinations_with_replacement(range(10, 100), 2):
        orders = dict.fromkeys(((a, b), (b, a)))
        yield tuple(Problem(f"{x}+{y}=", str(a + b)) for x, y in orders)


TASKS = {
    task.name: task
    for task in (
        Task("arithmetic", max_new_tokens=8, space=_arithmetic),
        Task("sums", max_new_tokens=6, space=_sums),
    )
}


def find_task(name: str) -> Task:
    """The task called `name`. Raises ParameterError that lists the known ones."""
    if name not in TASKS:
        raise ParameterError(f"task {name!r} is unknown; choose one of: {', '.join(TASKS)}")
    return TASKS[name]


def is_correct(completion: str, answer: str) -> bool:
    """True if the text up to the first newline, stripped, is exactly the answer."""
    return completion.split("\n", 1)[0].strip() == answer


def wilson(correct: int, n: int) -> tuple[float, float]:
    """Wilson's 95% interval of the share `correct` of `n` >= 1: (low, high), both in [0, 1]."""
    if not 0 <= correct <= n or n < 1:
        raise ParameterError(f"{correct} correct of {n}: wanted 0 <= correct <= n and n >= 1")
    z = 1.959963984540054
    share = correct / n
    centre = share + z * z / (2 * n)
    spread = z * sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    # At the ends the limits are exactly 0 and 1; rounding would miss them by a bit.
    low = 0.0 if correct == 0 else (centre - spread) / scale
    high = 1.0 if correct == n else (centre + spread) / scale
    return low, high
