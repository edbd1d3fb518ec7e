"""Verifiable tasks: seeded problems with one right answer, a strict scorer, a leak-proof split.

A task enumerates its whole problem space as *twins*: problems that ask the same thing (3 + 5 and
5 + 3). A hash of the twins decides, once and for every seed, whether they are trained on or held
out; so no held-out problem, in either order, is ever seen in training. A data set that comes with a
split of its own keeps it, without the training problems that its held-out part repeats.

`arithmetic` and `sums` are enumerated here, `reasoning-gym:GENERATOR` is a generator of the package reasoning-gym,
`hub:NAME` the paper's data from the Hub, `hub:NAME@REVISION` the same at a commit.

To add one: enumerate its twins, or give its two parts, in a module beside this one, and list it in `TASKS`.
"""

from __future__ import annotations

import re
from functools import partial

from opdlib.errors import ParameterError
from opdlib.train.tasks import gym, hub
from opdlib.train.tasks.operands import arithmetic, sums
from opdlib.train.tasks.scoring import is_correct, wilson
from opdlib.train.tasks.task import IMAGE, Problem, Split, Task, split_by_hash

__all__ = ["IMAGE", "TASKS", "Problem", "Split", "Task", "find_task", "is_correct", "wilson"]

TASKS = {
    task.name: task
    for task in (
        Task("arithmetic", max_new_tokens=8, split=partial(split_by_hash, arithmetic)),
        Task("sums", max_new_tokens=6, split=partial(split_by_hash, sums)),
        *map(hub.task, hub.DATA),
    )
}


def find_task(name: str) -> Task:
    """The task called `name`. Raises ParameterError that lists the known ones.

    Only the name is looked at: problems are made or fetched when they are first asked for.
    """
    if name in TASKS:
        return TASKS[name]
    if re.fullmatch(rf"{gym.PREFIX}[a-z0-9_]+", name):
        return gym.task(name)
    if name.partition("@")[0] in hub.DATA:
        return hub.task(name)
    raise ParameterError(f"task {name!r} is unknown; choose one of: {', '.join(TASKS)}, {gym.PREFIX}GENERATOR")
