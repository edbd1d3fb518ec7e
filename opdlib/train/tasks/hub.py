"""`hub:NAME`: the data of the paper's own runs, from the Hub.

| name | training | held out |
| --- | --- | --- |
| `hub:dapo-math-17k` | DAPO-Math-17k, without what AIME asks | AIME 2024 and AIME 2025: the paper's validation |
| `hub:aime-2024`, `hub:aime-2025` | nothing | 30 problems each |
| `hub:geo3k` | Geometry3K, training part | its test part; questions about an image, for image-text models |

Fetched once, into the cache of the package datasets. `hub:NAME@REVISION` takes a commit, branch or tag instead of what
the Hub has now; where NAME has several data sets, as `hub:dapo-math-17k` has DAPO, AIME 2024 and AIME 2025, it takes
one of each in this order, separated by commas. A run writes the commits that it got into its environment.json. Not
tested: on the machines where this was made the Hub cannot be reached, so only what is done with its answers is.
`opd evaluate SPEC --tasks hub:aime-2024` would test the rest.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import replace
from functools import cache, partial
from typing import Any

from opdlib.errors import ParameterError
from opdlib.registry.tasks import DAPO, Data, Source
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


def load(source: Source) -> tuple[list[Problem], str]:
    """The problems of a source, in the data set's order, and the commit that they are from. Raises ParameterError if it
    cannot be had or has other columns."""
    rows, commit = fetch(source)
    return read(source, rows), commit


def fetch(source: Source) -> tuple[Any, str]:
    """The rows of a source and the commit that they are from. Raises ParameterError if it cannot be had."""
    from datasets import load_dataset_builder

    try:
        builder = load_dataset_builder(source.dataset, source.config, revision=source.revision)
        builder.download_and_prepare()
        rows = builder.as_dataset(split=source.split)
    except (OSError, ValueError) as error:
        why = " ".join(str(error).split())[:200]
        at = f" at revision {source.revision}" if source.revision else ""
        raise ParameterError(
            f"data set {source.dataset}{at}: cannot be loaded ({why}); check the revision, connect to the Hub, or "
            "once elsewhere and copy the cache"
        ) from error
    # What datasets has from the Hub or from its cache of it, it calls by the commit.
    commit = builder.hash if re.fullmatch("[0-9a-f]{40}", str(builder.hash)) else "unknown"
    return rows, commit


def read(source: Source, rows: Any) -> list[Problem]:
    """The problems in the `rows` of a source. Raises ParameterError for other columns than expected."""
    parse = parse_dapo if source.dataset == DAPO.dataset else parse_problem
    try:
        return [parse(row) for row in rows]
    except KeyError as error:
        raise ParameterError(
            f"data set {source.dataset}: no column {error}; it has changed since opdlib was made, and needs a parser"
        ) from error


@cache
def _split(training: tuple[Source, ...], held_out: tuple[Source, ...]) -> Split:
    math_verifier()  # a missing package is told before anything is fetched
    loaded = {source: load(source) for source in (*held_out, *training)}
    asked, taught = ([p for source in part for p in loaded[source][0]] for part in (held_out, training))
    commits = {f"datasets/{source.dataset}": commit for source, (_, commit) in loaded.items()}
    return replace(split_without_leaks(taught, asked), commits=commits)


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


def task(name: str, data: Data) -> Task:
    """The task of `data`. A prompt is what a user says, and an answer runs to the end of the sequence: a newline ends
    no chain of thought.
    """
    return Task(
        name,
        data.max_new_tokens,
        split=partial(_split, data.training, data.held_out),
        scorer=is_equal,
        chat=True,
        batch=20,  # answers of 16,384 tokens, prompt included, take DS-Qwen 19 GB of cache in float32
        images=data.images,
    )
