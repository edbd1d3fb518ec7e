"""What a training left in its run folder, for the study's tables: its facts, and its curve. Every file is checked."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field

from opdlib.checkpoints.series import COMPLETE
from opdlib.errors import RegistryError
from opdlib.foreign import foreign, read_object, read_text
from opdlib.registry.recipes import Recipe, load_recipe, recipe_digest
from opdlib.results.known import check_fit
from opdlib.results.study import CURVE

SIDES = ("student", "source", "teacher")
AGAIN = "train and measure the run again"
KNOWN = ConfigDict(strict=True, allow_inf_nan=False)
"""Of files that have more in them than is taken."""

Row = dict[str, Any]


class Done(BaseModel):
    """What complete.json of a run says."""

    model_config = KNOWN

    steps: int
    training_seconds: float
    digests: dict[str, str]


class Score(BaseModel):
    """How one model answered the held-out problems."""

    model_config = KNOWN

    task: str
    seed: int
    n: int
    correct: int
    accuracy: float
    interval: list[float] = Field(min_length=2, max_length=2)


class Scores(BaseModel):
    """What evaluation.json of a run says."""

    model_config = KNOWN

    student: Score
    source: Score | None = None
    teacher: Score | None = None


class Logged(BaseModel):
    """A line of metrics.jsonl or probes.jsonl; its other numbers are cells of a table as they are."""

    model_config = KNOWN

    step: int
    num_tokens: float = Field(default=0, ge=0)
    interval: list[float] = Field(default=[0, 0], min_length=2, max_length=2)


def facts_of(folder: Path) -> Row:
    """How the run in `folder` was trained, judged and computed."""
    done, made = _checked(Done, folder / COMPLETE), _json(folder / "environment.json")
    scores = _checked(Scores, folder / "evaluation.json")
    sides: Row = {}
    for side in (side for side in SIDES if side in scores):
        low, high = scores[side]["interval"]
        sides |= {f"{side}.accuracy": scores[side]["accuracy"], f"{side}.low": low, f"{side}.high": high}
        sides |= {f"{side}.{count}": scores[side][count] for count in ("correct", "n")}
    elsewhere = made.pop("resumed", [])
    if not isinstance(elsewhere, list) or not made:
        raise RegistryError(f"{folder / 'environment.json'}: is no environment of a run; {AGAIN}")
    tokens = [row["num_tokens"] for row in _lines(folder / "metrics.jsonl") if "num_tokens" in row]
    return {
        "recipe_sha256": recipe_digest(recipe_in(folder)),
        "steps": done["steps"],
        "tokens": int(tokens[-1]) if tokens else None,
        "training_seconds": done["training_seconds"],
        "resumed": len(elsewhere),
        "task": scores["student"]["task"],
        "evaluation_seed": scores["student"]["seed"],
        **sides,
        **{f"digest.{name}": digest for name, digest in done["digests"].items()},
        **{str(name): words(value) for name, value in pd.json_normalize(made).iloc[0].items() if value is not None},
    }


def curve_of(folder: Path) -> list[Row]:
    """A row for every step: what was logged, and what the probes and evaluations on the way saw."""
    rows = {row["step"]: row for row in _lines(folder / "metrics.jsonl")}
    for row in _lines(folder / "probes.jsonl"):
        low, high = row.pop("interval", (None, None))
        if row["step"] not in rows:
            raise RegistryError(f"{folder / 'probes.jsonl'}: no step {row['step']} in metrics.jsonl beside it; {AGAIN}")
        rows[row["step"]] |= {**row, "low": low, "high": high}
    return [{column: row.get(column) for column in CURVE} for row in rows.values()]


def words(value: Any) -> Any:
    """A list as one cell, its parts apart by spaces; anything else as it is."""
    return " ".join(map(str, value)) if isinstance(value, list) else value


def recipe_in(folder: Path) -> Recipe:
    """The resolved recipe of the run in `folder`. Raises RecipeError."""
    return load_recipe(folder / "recipe.yaml")


def _json(file: Path) -> Row:
    return read_object(file, RegistryError, AGAIN)


def _checked(model: type[BaseModel], file: Path) -> Row:
    """What a JSON file holds, as it stands there; it must fit the model."""
    content = _json(file)
    check_fit(model, content, file, RegistryError, AGAIN)
    return content


def _lines(file: Path) -> list[Row]:
    if not file.exists():
        return []
    text = read_text(file, RegistryError, AGAIN)
    with foreign(file, RegistryError, AGAIN):
        rows = [json.loads(line) for line in text.splitlines()]
    for row in rows:
        check_fit(Logged, row, file, RegistryError, AGAIN)
    return rows
