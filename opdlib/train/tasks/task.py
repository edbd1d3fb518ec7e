"""What a task is: problems, the two parts they are split into, and how an answer is scored."""

import hashlib
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from opdlib.errors import ParameterError
from opdlib.train.tasks.scoring import is_correct

IMAGE = "<image>"
"""Marks the place of an image in a prompt."""

HELD_OUT_SHARE = 3
"""One pair of twins in this many is held out."""


@dataclass(frozen=True)
class Problem:
    """One question in the form the model sees it, and its only right answer."""

    prompt: str
    answer: str
    key: str = ""
    """What the scorer is given instead of the answer, where an answer can be right in several ways."""
    form: str = "{}"
    """How the answer is to be given; `{}` is the answer."""
    before: tuple[tuple[str, str], ...] = ()
    """What was said before the prompt in a chat: role and content of each message."""
    images: tuple[Any, ...] = ()
    """What is to be seen, one for every `<image>` of the prompt; PIL images."""

    @property
    def completion(self) -> str:
        """The gold continuation of the prompt, ended by a newline."""
        return f" {self.form.replace('{}', self.answer)}\n"

    @property
    def privileged(self) -> str:
        """The prompt after the solved problem: what a teacher sees that knows the answer."""
        return self.prompt + self.completion + self.prompt

    @property
    def reference(self) -> str:
        """What the scorer compares a completion with."""
        return self.key or self.answer


Twins = tuple[Problem, ...]


@dataclass(frozen=True)
class Split:
    """All problems of a task, in an order that never changes."""

    training: Sequence[Problem]
    held_out: Sequence[Twins]
    commits: Mapping[str, str] = field(default_factory=dict)
    """Of data from the Hub: what was fetched, and the commit that it came in. Of a file: its name and SHA-256."""


@dataclass(frozen=True)
class Task:
    """A named problem space."""

    name: str
    max_new_tokens: int
    """What an answer may take when it is scored."""
    split: Callable[[], Split]
    """Makes or fetches the problems."""
    scorer: Callable[[str, str], bool] = is_correct
    """Of a completion and a problem's reference."""
    chat: bool = False
    """True: a prompt is what a user says, in the tokenizer's chat template if it has one, and a completion runs to the
    end of the sequence. False: a prompt is text to be continued, and a newline ends the completion."""
    batch: int = 50
    """Problems asked at once when a model is scored: fixed, because padding can move the last bits of a logit."""
    images: bool = False
    """True: the problems cannot be asked without their images."""

    def is_correct(self, completion: str, reference: str) -> bool:
        """What the task's scorer says of a completion and a problem's `reference`."""
        return self.scorer(completion, reference)

    def training(self, n: int, seed: int) -> list[Problem]:
        """`n` >= 1 training problems in an order drawn from `seed`.

        When all have been drawn they come again, in a new order. Raises ParameterError if the task has none.
        """
        pool = self.split().training
        if not pool:
            raise ParameterError(f"task {self.name} has no training problems; it is for evaluation only")
        rng = random.Random(seed)
        problems: list[Problem] = []
        while len(problems) < n:
            problems += rng.sample(pool, len(pool))
        return problems[:n]

    def held_out(self, n: int, seed: int) -> list[Problem]:
        """`n` held-out problems drawn from `seed` without repetition, one of each pair of twins.

        Raises ParameterError if `n` < 1 or the task holds out fewer.
        """
        return self._drawn(n, seed)[1]

    def all_held_out(self, n: int, seed: int) -> list[Problem]:
        """Every held-out problem, one of each pair of twins: first those of `held_out(n, seed)`, then the others."""
        places, first = self._drawn(n, seed)
        rng, known = random.Random(f"others {seed}"), set(places)
        return first + [rng.choice(t) for place, t in enumerate(self.split().held_out) if place not in known]

    def _drawn(self, n: int, seed: int) -> tuple[list[int], list[Problem]]:
        """Places in the pool of held-out twins, and the problems that are asked of them."""
        pool = self.split().held_out
        if not 1 <= n <= len(pool):
            raise ParameterError(f"task {self.name}: {n} held-out problems asked for; choose between 1 and {len(pool)}")
        rng = random.Random(seed)
        places = rng.sample(range(len(pool)), n)
        return places, [rng.choice(pool[place]) for place in places]


def split_by_hash(space: Callable[[], Iterable[Twins]]) -> Split:
    """The split of a problem space, decided by the text of each pair of twins alone."""
    training: list[Problem] = []
    held_out: list[Twins] = []
    for twins in space():
        if _held_out(twins):
            held_out.append(twins)
        else:
            training.extend(twins)
    return Split(training, held_out)


def _held_out(twins: Twins) -> bool:
    digest = hashlib.sha256(twins[0].prompt.encode()).digest()
    return int.from_bytes(digest[:8], "big") % HELD_OUT_SHARE == 0
