"""The tasks that a recipe may name, and what is known of one before its problems are made or fetched.

`opdlib.train.tasks` makes and fetches them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from opdlib.errors import ParameterError

MADE = ("arithmetic", "sums")
"""Tasks whose problems are enumerated."""

GYM = "reasoning-gym:"
"""A task that starts so is a generator of the package reasoning-gym."""


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
    """The data sets of the task `name`, NAME or NAME@REVISION,... of `DATA`; None for one whose problems are made.
    Raises ParameterError that lists the known names, or for too many or few revisions."""
    if name in MADE or re.fullmatch(rf"{GYM}[a-z0-9_]+", name):
        return None
    base, at, revisions = name.partition("@")
    if base not in DATA:
        raise ParameterError(f"task {name!r} is unknown; choose one of: {', '.join((*MADE, *DATA))}, {GYM}GENERATOR")
    try:
        return DATA[base].at(revisions.split(",")) if at else DATA[base]
    except ParameterError as error:
        raise ParameterError(f"task {name!r}: {error}") from None
