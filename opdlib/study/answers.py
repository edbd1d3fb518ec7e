"""Which held-out problems each run of a scale answers: every one that the task has, with those of the recipes first."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from opdlib.errors import RegistryError
from opdlib.registry.recipes import load_recipe
from opdlib.registry.study import RUNS, Scale
from opdlib.results.collect import DONE, add_rows
from opdlib.results.study import StudyResults
from opdlib.train.evaluate import answers
from opdlib.train.run import threads


def write_answers(scale: Scale, out: Path, runs: Path = RUNS) -> list[str]:
    """Ask every complete run in `runs` that has no column in `answers` of `out`/<scale> yet; their keys.

    A model answers as it did when its training ended: in float32, on the recipe's threads, in the same batches. The
    table is written after each run. Raises RegistryError if a run answers another number of its recipe's problems than
    it did then, or other problems than the table has.
    """
    asked = []
    for key, name, folder in _complete(scale, runs):
        known = StudyResults(scale.name, out / scale.name).answers
        if name not in known:
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


def _complete(scale: Scale, runs: Path) -> list[tuple[str, str, Path]]:
    return [run for run in _planned(scale, runs) if (run[2] / DONE).is_file()]


def _rows(name: str, folder: Path) -> Iterator[dict[str, Any]]:
    recipe = load_recipe(folder / "recipe.yaml")
    first = recipe.evaluation_size
    with threads(recipe.threads):
        said = answers(folder / "bf16", task=recipe.task, seed=recipe.evaluation_seed, n=first)
    then = json.loads((folder / "evaluation.json").read_text(encoding="utf8"))["student"]["correct"]
    now = sum(answer.correct for answer in said[:first])
    if now != then:
        raise RegistryError(
            f"{folder}: {now} of the first {first} problems are right, and {then} were when the run ended; score it on "
            "the kind of machine that trained it"
        )
    for number, answer in enumerate(said, 1):
        row = {"number": number, "problem": answer.prompt, "evaluated": int(number <= first)}
        yield row | {name: int(answer.correct)}
