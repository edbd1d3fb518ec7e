"""`reasoning-gym:GENERATOR`, the generators of the package reasoning-gym whose answers take one line.

The package numbers its problems by seed plus index, so two neighbouring seeds give nearly the same ones, and many
generators repeat a question. So a task is not drawn by seeds: it is the first `SPACE` problems of seed 0, each question
once, split by the hash of its text as every other task. Only answers of one line can be asked for, and only
generators that make the same problems twice. The package is not installed with opdlib, because it pins others to exact
versions and one of them has to be compiled. Its scorers read answers with parsers that are not made for hostile text.
"""

from collections.abc import Iterator
from functools import cache, partial
from typing import Any

from tqdm import tqdm

from opdlib.errors import ParameterError
from opdlib.registry.tasks import GYM
from opdlib.train.tasks.scoring import first_line, optional
from opdlib.train.tasks.task import Problem, Split, Task, Twins, split_by_hash

SPACE = 6000
"""Problems a generator makes: seconds for most, minutes for those that search."""
COMPARED = 10
"""Problems that are made twice to see whether they are the same."""


def task(name: str) -> Task:
    """The task of a generator, which is looked up when problems are first asked for."""
    return Task(name, max_new_tokens=64, split=partial(_split, name), scorer=partial(_is_right, name))


def _scores(dataset: Any, entry: dict[str, Any], answer: str) -> bool:
    """Whether the package gives `answer` the full score."""
    try:
        return bool(dataset.score_answer(answer=answer, entry=entry) == 1)
    except Exception:  # noqa: BLE001  (a scorer that trips over an answer has not found it right)
        return False


@cache
def _generated(name: str) -> tuple[Any, dict[int, dict[str, Any]]]:
    """A generator and, by index, the entries that can be asked for. Raises MissingDependencyError without the package,
    ParameterError for a generator that cannot be used."""
    package = optional("reasoning_gym", "reasoning-gym", f"task {name}")
    generator = name.removeprefix(GYM)
    known = package.factory.DATASETS
    if generator not in known:
        raise ParameterError(f"task {name}: no such generator; choose one of: {', '.join(sorted(known))}")
    try:
        dataset, again = (package.create_dataset(generator, seed=0, size=SPACE) for _ in range(2))
    except AssertionError as error:
        raise ParameterError(f"task {name}: the generator has no default form ({error}); choose another") from error
    if any(dataset[i]["question"] != again[i]["question"] for i in range(COMPARED)):
        raise ParameterError(f"task {name}: the generator makes other problems every time; choose another")
    questions: dict[str, int] = {}
    entries: dict[int, dict[str, Any]] = {}
    for index in tqdm(range(SPACE), desc=generator, unit="problem", leave=False, disable=None):
        entry = dataset[index]
        answer = entry["answer"]
        # The same question in another spacing or case is the same question.
        first = questions.setdefault(" ".join(entry["question"].split()).casefold(), index)
        asked = first == index and isinstance(answer, str) and answer == first_line(answer)
        if asked and _scores(dataset, entry, answer):
            entries[index] = entry
    if not entries:
        raise ParameterError(f"task {name}: its answers take more than one line; choose another generator")
    return dataset, entries


@cache
def _split(name: str) -> Split:
    return split_by_hash(partial(_space, name))


def _space(name: str) -> Iterator[Twins]:
    for index, entry in _generated(name)[1].items():
        yield (Problem(f"{entry['question']}\nAnswer:", entry["answer"], key=str(index)),)


def _is_right(name: str, completion: str, reference: str) -> bool:
    dataset, entries = _generated(name)
    return _scores(dataset, entries[int(reference)], first_line(completion))
