"""`hub:NAME`: the data of the paper's own runs, from the Hub.

| name | training | held out |
| --- | --- | --- |
| `hub:dapo-math-17k` | DAPO-Math-17k, without what AIME asks | AIME 2024 and AIME 2025: the paper's validation |
| `hub:aime-2024`, `hub:aime-2025` | nothing | 30 problems each |
| `hub:geo3k` | Geometry3K, training part | its test part; questions about an image |

Fetched once, into the cache of the package datasets, in whatever revision the Hub has then. Not tested: on the machines
where this was made the Hub cannot be reached, so only the parsing of rows is. `opd evaluate SPEC --tasks hub:aime-2024`
would test the rest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

from opdlib.errors import ParameterError
from opdlib.train.tasks.scoring import is_equal, math_verifier
from opdlib.train.tasks.task import Problem, Split, Task

INSTRUCTION = "\n\nReason step by step, and put the final answer in \\boxed{}."
"""Follows the problems that come without an instruction; the paper does not give its own."""

Row = Mapping[str, Any]


def parse_dapo(row: Row) -> Problem:
    """The prompt as DAPO wrote it, which asks for a last line "Answer: ..."."""
    return Problem(row["source_prompt"][0]["content"], row["reward_model"]["ground_truth"], form="Answer: {}")


def parse_problem(row: Row) -> Problem:
    """A problem and its answer; images, if the row has them, belong to the places marked `<image>`."""
    prompt = row["problem"].strip() + INSTRUCTION
    return Problem(prompt, str(row["answer"]), form="\\boxed{{}}", images=tuple(row.get("images", ())))


@dataclass(frozen=True)
class Source:
    """One split of a data set on the Hub."""

    dataset: str
    config: str
    split: str
    parse: Callable[[Row], Problem] = parse_problem

    def load(self) -> list[Problem]:
        """Its problems, in the data set's order. Raises ParameterError if it cannot be had or has other columns."""
        from datasets import load_dataset

        try:
            rows = load_dataset(self.dataset, self.config, split=self.split)
        except (OSError, ValueError) as error:
            why = " ".join(str(error).split())[:200]
            raise ParameterError(
                f"data set {self.dataset}: cannot be loaded ({why}); connect to the Hub, or once elsewhere and copy "
                "the cache"
            ) from error
        return self.read(rows)

    def read(self, rows: Any) -> list[Problem]:
        """The problems of `rows`. Raises ParameterError for other columns than expected."""
        try:
            return [self.parse(row) for row in rows]
        except KeyError as error:
            raise ParameterError(
                f"data set {self.dataset}: no column {error}; it has changed since opdlib was made, and needs a parser"
            ) from error


DAPO = Source("open-r1/DAPO-Math-17k-Processed", "all", "train", parse_dapo)
AIME_2024 = Source("HuggingFaceH4/aime_2024", "default", "train")
AIME_2025 = Source("math-ai/aime25", "default", "test")
GEO3K = Source("hiyouga/geometry3k", "default", "train")
GEO3K_TEST = Source("hiyouga/geometry3k", "default", "test")


@cache
def _split(training: tuple[Source, ...], held_out: tuple[Source, ...]) -> Split:
    math_verifier()  # a missing package is told before anything is fetched
    asked = [problem for source in held_out for problem in source.load()]
    return split_without_leaks([problem for source in training for problem in source.load()], asked)


def split_without_leaks(training: list[Problem], held_out: list[Problem]) -> Split:
    """A given split, without the training problems that contain the text of a held-out one about the same images."""
    asked = [_asked(problem) for problem in held_out]

    def leaks(problem: Problem) -> bool:
        text, images = _asked(problem)
        return any(question in text and seen == images for question, seen in asked)

    return Split([problem for problem in training if not leaks(problem)], [(problem,) for problem in held_out])


def _asked(problem: Problem) -> tuple[str, tuple[str, ...]]:
    """What is asked, whatever the spacing, the case and the instruction; digests of the images."""
    text = " ".join(problem.prompt.removesuffix(INSTRUCTION).split()).casefold()
    return text, tuple(hashlib.sha256(image.tobytes()).hexdigest() for image in problem.images)


_math = partial(Task, scorer=is_equal, chat=True, batch=20)

HUB = (
    _math("hub:dapo-math-17k", max_new_tokens=15360, split=partial(_split, (DAPO,), (AIME_2024, AIME_2025))),
    _math("hub:aime-2024", max_new_tokens=15360, split=partial(_split, (), (AIME_2024,)), trains=False),
    _math("hub:aime-2025", max_new_tokens=15360, split=partial(_split, (), (AIME_2025,)), trains=False),
    _math("hub:geo3k", max_new_tokens=2048, split=partial(_split, (GEO3K,), (GEO3K_TEST,)), images=True),
)
"""The lengths are the paper's (Tables 5 and 6). Twenty answers of 16,384 tokens, prompt included, take DS-Qwen 19 GB of
cache in float32."""
