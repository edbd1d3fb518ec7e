"""The tasks that a recipe may name, and what is known of one before its problems are made or fetched.

`opdlib.train.tasks` makes and fetches them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from pydantic import BaseModel, Field, field_validator

from opdlib.errors import ParameterError
from opdlib.registry.entries import STRICT

MADE = ("arithmetic", "sums")
"""Tasks whose problems are enumerated."""

GYM = "reasoning-gym:"
"""A task that starts so is a generator of the package reasoning-gym."""


JSONL = "jsonl:"
"""A task that starts so is a file of one's own, one problem a line."""

LARGEST_COUNT = 10_000_000
"""What is counted in a recipe, at most: more is a slip of the pen."""

_OWN = re.compile(rf"{JSONL}.+|hub:[\w.-]+/[\w.-]+(@[^,@]+)?")


def is_own(name: str) -> bool:
    """True for `jsonl:FILE` and `hub:ORG/NAME[@REVISION]`: rows that `Rows` makes problems of."""
    return _OWN.fullmatch(name) is not None


REGEX = "regex:"
"""A scorer that starts so is a pattern."""


class Rows(BaseModel):
    """How the rows of one's own data are problems: which columns, who scores, what is held out."""

    model_config = STRICT

    prompt: str = "prompt"
    """Column of a text that is continued; a newline ends the answer."""
    messages: str | None = None
    """Column of chat messages instead, each {role, content} and the last a user's: shown in the model's own template,
    and an answer runs to the end of the sequence."""
    reference: str = "reference"
    """Column of the right answer."""
    scorer: str = "exact"
    """exact: the answer is the reference. math-verify: it equals the reference as mathematics. regex:PATTERN: what the
    last match of PATTERN captures is the reference. Any other name: an entry point of an installed package in the group
    `opdlib.scorers`, a function of answer and reference that returns a bool."""
    max_new_tokens: int = Field(default=256, ge=1, le=LARGEST_COUNT)
    """What an answer may take when it is scored."""
    held_out: str | None = None
    """Another file, or another split of the data set; absent: a third of the problems, chosen by a hash of their
    text."""
    config: str = "default"
    """Of a data set on the Hub."""
    split: str = "train"
    """Of a data set on the Hub."""

    @field_validator("scorer")
    @classmethod
    def _compiles(cls, scorer: str) -> str:
        try:
            re.compile(scorer.removeprefix(REGEX))
        except re.error as error:
            raise ValueError(f"no regular expression ({error})") from None
        return scorer


@dataclass(frozen=True)
class Source:
    """One split of a data set on the Hub."""

    dataset: str
    config: str
    split: str
    revision: str | None = None
    """Commit, branch or tag; None for what the Hub has now, or without it the cache."""


@dataclass(frozen=True)
class Data:
    """What a task from the Hub is made of."""

    training: tuple[Source, ...]
    held_out: tuple[Source, ...]
    max_new_tokens: int = 15360
    images: bool = False

    def at(self, revisions: list[str]) -> Data:
        """The same at `revisions`, one of each data set in order. Raises ParameterError if there are more or fewer."""
        names = list(dict.fromkeys(source.dataset for source in self.training + self.held_out))
        if len(revisions) != len(names) or not all(revisions):
            raise ParameterError(
                f"{len(revisions)} revisions; wanted one of each of {', '.join(names)}, separated by commas"
            )
        pin = dict(zip(names, revisions, strict=True))
        training, held_out = (
            tuple(replace(source, revision=pin[source.dataset]) for source in part)
            for part in (self.training, self.held_out)
        )
        return replace(self, training=training, held_out=held_out)


DAPO = Source("open-r1/DAPO-Math-17k-Processed", "all", "train")
AIME_2024 = Source("HuggingFaceH4/aime_2024", "default", "train")
AIME_2025 = Source("math-ai/aime25", "default", "test")
GEO3K = Source("hiyouga/geometry3k", "default", "train")
GEO3K_TEST = Source("hiyouga/geometry3k", "default", "test")

DATA = {
    "hub:dapo-math-17k": Data((DAPO,), (AIME_2024, AIME_2025)),
    "hub:aime-2024": Data((), (AIME_2024,)),
    "hub:aime-2025": Data((), (AIME_2025,)),
    "hub:geo3k": Data((GEO3K,), (GEO3K_TEST,), max_new_tokens=2048, images=True),
}
"""The lengths are the paper's (Tables 5 and 6)."""


def find_data(name: str) -> Data | None:
    """The data sets of the task `name`, NAME or NAME@REVISION,... of `DATA`; None for one whose problems are made,
    and for one's own. Raises ParameterError that lists the known names, or for too many or few revisions."""
    if name in MADE or re.fullmatch(rf"{GYM}[a-z0-9_]+", name) or is_own(name):
        return None
    base, at, revisions = name.partition("@")
    if base not in DATA:
        known = ", ".join((*MADE, *DATA, f"{GYM}GENERATOR", f"{JSONL}FILE", "hub:ORG/NAME"))
        raise ParameterError(f"task {name!r} is unknown; choose one of: {known}")
    try:
        return DATA[base].at(revisions.split(",")) if at else DATA[base]
    except ParameterError as error:
        raise ParameterError(f"task {name!r}: {error}") from None
