"""Which held-out problems each run of a scale answers: every one that the task has, with those of the recipes first."""

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from opdlib.checkpoints.series import COMPLETE
from opdlib.errors import CheckpointError, RegistryError
from opdlib.foreign import read_value
from opdlib.registry.recipes import load_recipe
from opdlib.registry.study import RUNS, Scale
from opdlib.results.collect import add_rows
from opdlib.results.study import StudyResults
from opdlib.train.evaluate import answers
from opdlib.train.run import threads


def write_answers(
    scale: Scale, out: Path, runs: Path = RUNS, chosen: Collection[tuple[str, int]] | None = None
) -> list[str]:
    """Ask every complete run in `runs` (of `chosen`: arm and seed) that has no column in `answers` of `out`/<scale>;
    their keys.

    A model answers as it did when its training ended: in float32, on the recipe's threads, in the same batches. The
    table is written after each run. Raises CheckpointError if there is no complete run; RegistryError if one answers
    another number of its recipe's problems than when it ended (or did, by the table), and for another table's problems.
    """
    wanted = None if chosen is None else {scale.arms[arm].key(seed) for arm, seed in chosen}
    planned = [run for run in _planned(scale, runs) if wanted is None or run[0] in wanted]
    here = [run for run in planned if (run[2] / COMPLETE).is_file()]
    if not here:
        raise CheckpointError(f"scale {scale.name}: no complete run in {runs}; run: opd study {scale.name}")
    asked = []
    for key, name, folder in here:
        known = StudyResults(scale.name, out / scale.name).answers
        if name in known:
            _refuse_other(folder, int(known[name][known["evaluated"] == 1].sum()), "right in the table")
            continue
        columns = [other for _, other, _ in _planned(scale, runs) if other in known or other == name]
        rows = [dict.fromkeys(("number", "problem", "evaluated", *columns)) | row for row in _rows(name, folder)]
        add_rows(scale, out / scale.name, {"answers": rows}, lambda row: int(row["number"]))
        asked.append(key)
    return asked


def _planned(scale: Scale, runs: Path) -> Iterator[tuple[str, str, Path]]:
    """Key, column and folder of every run, by arm and seed."""
    for arm in scale.arms.values():
        for seed in arm.seeds:
            yield arm.key(seed), f"{arm.name}-s{seed}", arm.folder(seed, runs)


def _rows(name: str, folder: Path) -> Iterator[dict[str, Any]]:
    recipe = load_recipe(folder / "recipe.yaml")
    first = recipe.evaluation_size
    with threads(recipe.threads):
        said = answers(folder / "bf16", task=recipe.task, seed=recipe.evaluation_seed, n=first)
    _refuse_other(folder, sum(answer.correct for answer in said[:first]), "right")
    for number, answer in enumerate(said, 1):
        row = {"number": number, "problem": answer.prompt, "evaluated": int(number <= first)}
        yield row | {name: int(answer.correct)}


def _refuse_other(folder: Path, now: int, what: str) -> None:
    """Raise RegistryError unless `now` is how many of the recipe's problems the run answered when it ended."""
    then = read_value(folder / "evaluation.json", RegistryError, "train it again", "student", "correct")
    if now != then:
        raise RegistryError(
            f"{folder}: {now} of its recipe's problems are {what}, and {then} were right when it ended; score it on "
            "the kind of machine that trained it, or remove its column if it was made anew on purpose"
        )
