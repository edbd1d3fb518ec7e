"""Verifiable tasks: seeded problems with one right answer, a strict scorer, a leak-proof split.

A task enumerates its whole problem space as *twins*: problems that ask the same thing (3 + 5 and
5 + 3). A hash of the twins decides, once and for every seed, whether they are trained on or held
out; so no held-out problem, in either order, is ever seen in training. A data set that comes with a
split of its own keeps it, without the training problems that its held-out part repeats.

`arithmetic` and `sums` are enumerated here, `reasoning-gym:GENERATOR` is a generator of the package reasoning-gym,
`hub:NAME` the paper's data from the Hub, `hub:NAME@REVISION` the same at a commit; `jsonl:FILE` and `hub:ORG/NAME` are
one's own.

To add one: name it in `opdlib.registry.tasks`, where recipes are checked, and enumerate its twins here or give its two
parts in a module beside this one.
"""

import itertools
from collections.abc import Iterator
from functools import cache, partial

from opdlib.registry.recipes import Recipe
from opdlib.registry.tasks import Rows, find_data, is_own
from opdlib.train.tasks import gym, hub, own
from opdlib.train.tasks.scoring import is_correct
from opdlib.train.tasks.task import IMAGE, Problem, Split, Task, Twins, split_by_hash


def arithmetic() -> Iterator[Twins]:
    """Sums of 1 to 60 and products of 2 to 30: 4,441 problems, 2,265 pairs of twins. The ranges are such that
    SmolLM2-135M-Instruct answers some of them, and by far not all."""
    for sign, operands in (("+", range(1, 61)), ("*", range(2, 31))):
        for a, b in itertools.combinations_with_replacement(operands, 2):
            answer = str(a + b if sign == "+" else a * b)
            orders = dict.fromkeys(((a, b), (b, a)))
            yield tuple(Problem(f"Calculate: {x} {sign} {y}\nResult:", answer) for x, y in orders)


def sums() -> Iterator[Twins]:
    """Sums of two numbers of two digits: 8,100 problems, 4,095 pairs of twins, in as few characters as can be."""
    for a, b in itertools.combinations_with_replacement(range(10, 100), 2):
        yield tuple(Problem(f"{x}+{y}=", str(a + b)) for x, y in dict.fromkeys(((a, b), (b, a))))


TASKS = {
    "arithmetic": Task("arithmetic", max_new_tokens=8, split=cache(partial(split_by_hash, arithmetic))),
    "sums": Task("sums", max_new_tokens=6, split=cache(partial(split_by_hash, sums))),
}
"""The tasks whose problems are enumerated here, once: a run asks for them a dozen times."""


def find_task(name: str, rows: Rows | None = None) -> Task:
    """The task called `name`; `rows` says how the rows of one's own data are problems. Raises ParameterError that lists
    the known ones. Only the name is looked at: problems are made or fetched when they are first asked for."""
    if name in TASKS:
        return TASKS[name]
    if is_own(name):
        return own.task(name, rows or Rows())
    data = find_data(name)
    return hub.task(name, data) if data is not None else gym.task(name)


def task_of(recipe: Recipe) -> Task:
    """The task of a recipe, its rows included."""
    return find_task(recipe.task, recipe.rows)
