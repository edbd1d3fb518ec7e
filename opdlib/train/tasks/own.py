"""`jsonl:FILE` and `hub:ORG/NAME[@REVISION]`: one's own problems, one in every row.

A recipe's `rows` says which columns hold what, and who scores (`opdlib.registry.tasks.Rows`). A third of the problems
is held out by a hash of their text, or another file or split is; of the training problems none asks what a held-out one
asks.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cache, partial
from hashlib import sha256
from importlib.metadata import entry_points
from io import StringIO
from pathlib import Path
from typing import Any

from opdlib.errors import ParameterError
from opdlib.files import find
from opdlib.foreign import foreign, read_text
from opdlib.registry.tasks import JSONL, REGEX, Rows, Source
from opdlib.train.tasks import hub
from opdlib.train.tasks.scoring import is_correct, is_equal, is_whole
from opdlib.train.tasks.task import Problem, Split, Task, Twins, split_by_hash

SCORERS = "opdlib.scorers"
"""The group of entry points in which a package offers scorers."""

Row = Mapping[str, Any]


def task(name: str, rows: Rows) -> Task:
    """The task of one's own data; problems are read when they are first asked for. Raises ParameterError for an unknown
    scorer."""
    chat = rows.messages is not None
    return Task(name, rows.max_new_tokens, partial(_split, name, rows), find_scorer(rows.scorer, chat), chat=chat)


def find_scorer(name: str, chat: bool) -> Callable[[str, str], bool]:
    """The function of completion and reference that `Rows.scorer` names. Raises ParameterError that lists the known."""
    if name.startswith(REGEX):
        return partial(_captures, re.compile(name.removeprefix(REGEX)))
    known = {"exact": is_whole if chat else is_correct, "math-verify": is_equal}
    if name in known:
        return known[name]
    offered = {point.name: point for point in entry_points(group=SCORERS)}
    if name not in offered:
        names = ", ".join((*known, f"{REGEX}PATTERN", *offered))
        raise ParameterError(
            f"scorer {name!r} is unknown; choose one of: {names}, or install a package with an entry point of that "
            f"name in the group {SCORERS}"
        )
    with foreign(f"scorer {name}", ParameterError, "repair the package that offers it"):
        return partial(_theirs, name, offered[name].load())


def _theirs(name: str, score: Callable[[str, str], bool], completion: str, reference: str) -> bool:
    with foreign(f"scorer {name}", ParameterError, f"it was asked of {completion[:60]!r} and {reference[:60]!r}"):
        return bool(score(completion, reference))


def _captures(pattern: re.Pattern[str], completion: str, reference: str) -> bool:
    """Whether what the last match captures, by its first group if it has one, is the reference."""
    *_, last = [None, *pattern.finditer(completion)]
    return last is not None and (last[1 if pattern.groups else 0] or "").strip() == reference.strip()


@cache
def _split(name: str, rows: Rows) -> Split:
    training, commits = _read(name, rows, rows.split)
    if rows.held_out is None:
        return replace(split_by_hash(partial(_twins, training)), commits=commits)
    if name.startswith(JSONL):
        held_out, more = _read(JSONL + rows.held_out, rows, rows.split)
    else:
        held_out, more = _read(name, rows, rows.held_out)
    asked = {_text(problem) for problem in held_out}
    taught = [problem for problem in training if _text(problem) not in asked]
    return Split(taught, [*_twins(held_out)], commits | more)


def _twins(problems: list[Problem]) -> Iterator[Twins]:
    """Problems that ask the same, whatever the spacing and the case, together."""
    alike: dict[str, list[Problem]] = {}
    for problem in problems:
        alike.setdefault(_text(problem), []).append(problem)
    yield from map(tuple, alike.values())


def _text(problem: Problem) -> str:
    said = "\n".join((*(content for _, content in problem.before), problem.prompt))
    return " ".join(said.split()).casefold()


def _read(name: str, rows: Rows, split: str) -> tuple[list[Problem], dict[str, str]]:
    """The problems of a file or a split, and by its name the digest or the commit that they are from."""
    if name.startswith(JSONL):
        found, commits = _lines(Path(name.removeprefix(JSONL)))
        place = name.removeprefix(JSONL) + " line"
    else:
        dataset, _, revision = name.removeprefix("hub:").partition("@")
        table, commit = hub.fetch(Source(dataset, rows.config, split, revision or None))
        found, commits, place = [*table], {f"datasets/{dataset}": commit}, f"data set {dataset} {split} row"
    if not found:
        raise ParameterError(f"task {name}: holds no problem; wanted one in every {place.rpartition(' ')[2]}")
    return [_problem(row, rows, f"{place} {number}") for number, row in enumerate(found, start=1)], commits


def _lines(path: Path) -> tuple[list[Any], dict[str, str]]:
    text = read_text(find(path.expanduser()), ParameterError, "wanted a file of JSON lines")
    found = []
    for number, line in enumerate(StringIO(text), start=1):  # a JSON text may hold the ends of lines that others know
        with foreign(f"{path} line {number}: no JSON", ParameterError, "wanted one object a line"):
            found.append(json.loads(line))
    return found, {f"{JSONL}{path}": sha256(text.encode()).hexdigest()}


def _problem(row: object, rows: Rows, place: str) -> Problem:
    """Raises ParameterError that names the place, the column, what was found and what was wanted."""
    if not isinstance(row, Mapping):
        raise ParameterError(f"{place}: holds a {type(row).__name__}, wanted an object of columns")
    form = "\\boxed{{}}" if rows.scorer == "math-verify" else "{}"
    reference = _column(row, "reference", rows.reference, (str, int, float), place)
    if rows.messages is None:
        return Problem(_column(row, "prompt", rows.prompt, (str,), place), str(reference), form=form)
    said = _column(row, "messages", rows.messages, (list, tuple), place)
    fine = all(
        isinstance(m, Mapping) and isinstance(m.get("role"), str) and isinstance(m.get("content"), str) for m in said
    )
    if not said or not fine or said[-1]["role"] != "user":
        raise ParameterError(
            f"{place}: column {rows.messages!r} is {str(said)[:80]}; wanted {{role, content}} of text in turns, the "
            "last a user's"
        )
    *before, last = ((message["role"], _utf8(message["content"], place)) for message in said)
    return Problem(last[1], str(reference), form=form, before=tuple(before))


def _column(row: Row, what: str, column: str, wanted: tuple[type, ...], place: str) -> Any:
    if column not in row:
        names = ", ".join(map(str, row))
        raise ParameterError(
            f"{place}: no column {column!r}; it has {names}; say which is the {what} in the recipe's rows"
        )
    if not isinstance(row[column], wanted) or isinstance(row[column], bool):
        raise ParameterError(f"{place}: column {column!r} is {row[column]!r:.80}; wanted {wanted[0].__name__}")
    return _utf8(row[column], place) if isinstance(row[column], str) else row[column]


def _utf8(text: str, place: str) -> str:
    with foreign(place, ParameterError, "wanted text"):
        text.encode()  # JSON can name halves of characters
    return text
