"""The run folder: refused if it is another's, created whole, and aware of the machine it moved to; its log by step."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from opdlib.checkpoints.series import COMPLETE
from opdlib.errors import OutputError, RecipeError
from opdlib.files import explained, new_folder, write_file
from opdlib.foreign import foreign, read_object, read_text
from opdlib.registry.recipes import Recipe, load_recipe

AGAIN = "remove the run folder and train again"
"""What to do where a run folder is damaged."""
WHENCE = {"committed": "that travels with opdlib", "here": "that was trained here"}
"""Origin of a parent, as environment.json has it -> in words."""


def check_existing(folder: Path, recipe: Recipe, resume: bool) -> None:
    """Return if `folder` is free, or holds this very run and `resume` is said. Raises OutputError for a folder that is
    in the way, RecipeError for a run of another recipe."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not (folder / "recipe.yaml").is_file():
        raise OutputError(f"{folder}: exists and is no run folder; choose another --out")
    if not resume:
        complete = (folder / COMPLETE).exists()
        found = "a complete run" if complete else "an unfinished run, which --resume continues"
        raise OutputError(f"{folder}: holds {found}; choose another --out, or remove it first")
    recorded = load_recipe(folder / "recipe.yaml").model_dump()
    for key, value in recipe.model_dump().items():
        if recorded.get(key) != value:
            raise RecipeError(
                f"{folder}: was run with {key} {recorded.get(key)!r}, the recipe says {value!r}; "
                "restore the recipe, or remove the folder first"
            )


def prepare(folder: Path, recipe: Recipe, **origins: Mapping[str, str]) -> None:
    """Create the folder with recipe.yaml and environment.json, which says as well where it begins, `origins`:
    `hub`, the commits of what it gave; `parents`, whose weights were taken.

    Where it exists, an environment that has changed since is added under `resumed`. Raises
    OutputError if the folder cannot be created, RecipeError if a parent would be another.
    """
    from opdlib.train.environment import environment  # with torch, which checking a folder does not need

    now = environment() | {name: dict(found) for name, found in origins.items() if found}
    if not (folder / "recipe.yaml").is_file():
        with new_folder(folder) as new:
            resolved = yaml.safe_dump(recipe.model_dump(exclude_none=True), sort_keys=False)
            write_file(new / "recipe.yaml", resolved)
            write_json(new / "environment.json", now)
    elif not (folder / COMPLETE).exists():
        started = read_object(folder / "environment.json", OutputError, AGAIN)
        resumed = started.pop("resumed", [])
        if not isinstance(resumed, list):
            raise OutputError(f"{folder / 'environment.json'}: resumed is {resumed!r}, wanted a list; {AGAIN}")
        parents = started.get("parents", {})
        if not isinstance(parents, dict):
            raise OutputError(f"{folder / 'environment.json'}: parents is {parents!r:.60}, wanted an object; {AGAIN}")
        for role, origin in parents.items():
            if origin != origins.get("parents", {}).get(role):
                raise RecipeError(
                    f"{folder}: began with a {role} {WHENCE.get(origin, origin)}, and would go on with another; put "
                    f"that back, or {AGAIN}"
                )
        if now != [started, *resumed][-1]:
            write_json(folder / "environment.json", started | {"resumed": [*resumed, now]})


def write_json(path: Path, content: object) -> None:
    """Write whole or not at all. Raises OutputError, and ValueError for NaN and infinity."""
    write_file(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


class StepLog:
    """A file of one JSON line a step, which a killed run continues as if it had never died."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def cut(self, step: int) -> list[dict[str, Any]]:
        """Forget what was written after `step` (a torn last line, too) and return the rest."""
        rows = [row for row in self.rows() if row["step"] <= step]
        write_file(self.path, "".join(map(_line, rows)))
        return rows

    def rows(self) -> list[dict[str, Any]]:
        """All whole lines. Raises OutputError for one that is no step."""
        text = read_text(self.path, OutputError, AGAIN) if self.path.exists() else ""
        rows = []
        for number, line in enumerate(line for line in text.splitlines(keepends=True) if line.endswith("\n")):
            with foreign(f"{self.path}: line {number + 1}", OutputError, AGAIN):
                row = json.loads(line)
            if not isinstance(row, dict) or not isinstance(row.get("step"), int):
                raise OutputError(f"{self.path}: line {number + 1} has no step; {AGAIN}")
            rows.append(row)
        return rows

    def append(self, row: dict[str, Any]) -> None:
        """Write one row, which has a `step`, after those of earlier steps. Raises ValueError for NaN and infinity."""
        with explained(self.path), self.path.open("a", encoding="utf8") as stream:
            stream.write(_line(row))


def _line(row: dict[str, Any]) -> str:
    return json.dumps(row, allow_nan=False) + "\n"
