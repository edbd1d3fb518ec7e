"""The run folder: refused if it is another's, created whole, and aware of the machine it moved to."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import yaml

from opdlib.errors import OutputError, RecipeError
from opdlib.registry.recipes import Recipe, load_recipe
from opdlib.train.environment import environment

COMPLETE = "complete.json"
"""Written last into a run folder."""


def check_existing(folder: Path, recipe: Recipe, resume: bool) -> None:
    """Return if `folder` is free, or holds this very run and `resume` is said.

    Raises OutputError for a folder that is in the way, RecipeError for a run of another recipe.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not (folder / "recipe.yaml").is_file():
        raise OutputError(f"{folder}: exists and is no run folder; choose another --out")
    if not resume:
        unfinished = "an unfinished run, which --resume continues"
        found = "a complete run" if (folder / COMPLETE).exists() else unfinished
        raise OutputError(f"{folder}: holds {found}; choose another --out, or remove it first")
    recorded = load_recipe(folder / "recipe.yaml").model_dump()
    for key, value in recipe.model_dump().items():
        if recorded.get(key) != value:
            raise RecipeError(
                f"{folder}: was run with {key} {recorded.get(key)!r}, the recipe says {value!r}; "
                "restore the recipe, or remove the folder first"
            )


def prepare(folder: Path, recipe: Recipe, commits: Mapping[str, str]) -> None:
    """Create the folder with recipe.yaml and environment.json, in which `commits` says what the Hub gave.

    Where it exists, an environment that has changed since is added under `resumed`. Raises
    OutputError if the folder cannot be created.
    """
    now = environment() | ({"hub": dict(commits)} if commits else {})
    if not (folder / "recipe.yaml").is_file():
        new = folder.with_name(f"{folder.name}.new")
        shutil.rmtree(new, ignore_errors=True)
        try:
            new.mkdir(parents=True)
            resolved = yaml.safe_dump(recipe.model_dump(exclude_none=True), sort_keys=False)
            (new / "recipe.yaml").write_text(resolved, encoding="utf8")
            write_json(new / "environment.json", now)
            new.replace(folder)
        except OSError as error:
            raise OutputError(f"{folder}: cannot be created ({error.strerror}); choose another --out") from error
    elif not (folder / COMPLETE).exists():
        started = json.loads((folder / "environment.json").read_text(encoding="utf8"))
        resumed = started.pop("resumed", [])
        if now != [started, *resumed][-1]:
            write_json(folder / "environment.json", started | {"resumed": [*resumed, now]})


def write_json(path: Path, content: object) -> None:
    """Write whole or not at all."""
    new = path.with_name(f"{path.name}.new")
    new.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf8")
    new.replace(path)
