"""From a recipe to a run folder that describes itself, and that a killed run resumes to the same bits.

runs/train/<name>-s<seed>/
    recipe.yaml       the resolved recipe            environment.json  code, versions, machine
    metrics.jsonl     one line a step                checkpoints/      while it runs
    fp32/  bf16/      the trained checkpoint, master weights and rounded
    evaluation.json   accuracy of source, teacher and student on held-out problems
    complete.json     written last: digests and time
"""

from __future__ import annotations

import json
import os
import shutil
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import transformers
import yaml

from opdlib.checkpoints import Checkpoint, open_checkpoint
from opdlib.errors import OutputError, RecipeError
from opdlib.train.callbacks import Bar, Checkpoints, Metrics, last_checkpoint
from opdlib.train.environment import environment
from opdlib.train.evaluate import evaluate_model
from opdlib.train.models import load_model, load_tokenizer, save_model
from opdlib.train.objectives import build_trainer
from opdlib.train.recipe import TEACHER_RECIPE, OpdRecipe, SftRecipe, check_recipe, load_recipe
from opdlib.train.tasks import TASKS

COMPLETE = "complete.json"
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


def train(
    recipe_path: Path,
    out: Path | None = None,
    max_steps: int | None = None,
    seed: int | None = None,
    resume: bool = False,
) -> Path:
    """Train what a recipe describes and return the run folder, by default runs/train/<name>-s<seed>.

    `max_steps` (>= 1) and `seed` replace the recipe's; a teacher named as `recipe:NAME` is trained first, in full and with
    its own seed, into a folder beside, and reused from there. An existing folder is refused unless `resume`; then a run
    continues from its last checkpoint and a complete one is returned as it is. Raises RecipeError, OutputError, or
    CheckpointError for a model that cannot be opened.
    """
    recipe = _override(load_recipe(recipe_path), max_steps, seed)
    teachers = _teachers(recipe, recipe_path)
    TASKS[recipe.task].held_out(recipe.evaluation_size, recipe.evaluation_seed)
    folder = out or Path("runs") / "train" / f"{recipe.name}-s{recipe.seed}"
    _check_existing(folder, recipe, resume)
    for path in reversed(teachers):
        cached = _teacher_folder(folder, load_recipe(path))
        train(path, out=cached, resume=cached.exists())
    _prepare(folder, recipe)
    if not (folder / COMPLETE).exists():
        _run(folder, recipe, recipe_path)
    return folder


def _override(
    recipe: SftRecipe | OpdRecipe, max_steps: int | None, seed: int | None
) -> SftRecipe | OpdRecipe:
    given = {"steps": max_steps, "seed": seed}
    changed = recipe.model_dump() | {
        key: value for key, value in given.items() if value is not None
    }
    return check_recipe(changed, "command line")


def _teachers(recipe: SftRecipe | OpdRecipe, path: Path) -> list[Path]:
    """Recipes that must be trained first, nearest teacher first; all of them are checked here."""
    chain = [path]
    while isinstance(recipe, OpdRecipe) and recipe.teacher.startswith(TEACHER_RECIPE):
        path = path.with_name(recipe.teacher.removeprefix(TEACHER_RECIPE) + ".yaml")
        if path.resolve() in [seen.resolve() for seen in chain]:
            raise RecipeError(
                f"{chain[-1]}: teacher is {recipe.teacher!r}, which leads back to itself"
            )
        recipe = load_recipe(path)
        chain.append(path)
    return chain[1:]


def _teacher_folder(folder: Path, teacher: SftRecipe | OpdRecipe) -> Path:
    return folder.parent / f"{teacher.name}-s{teacher.seed}"


def _check_existing(folder: Path, recipe: SftRecipe | OpdRecipe, resume: bool) -> None:
    """Raise OutputError or RecipeError unless `folder` is free or holds this very run, to be resumed."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not (folder / "recipe.yaml").is_file():
        raise OutputError(f"{folder}: exists and is no run folder; choose another --out")
    if not resume:
        state = (
            "holds a complete run"
            if (folder / COMPLETE).exists()
            else "holds an unfinished run (--resume continues it)"
        )
        raise OutputError(f"{folder}: {state}; choose another --out, or remove it to start again")
    recorded = load_recipe(folder / "recipe.yaml").model_dump()
    for key, value in recipe.model_dump().items():
        if recorded.get(key) != value:
            raise RecipeError(
                f"{folder}: was run with {key} {recorded.get(key)!r}, the recipe now says {value!r}; "
                "restore the recipe, or remove the folder to start again"
            )


def _prepare(folder: Path, recipe: SftRecipe | OpdRecipe) -> None:
    """Create the folder with recipe and environment; on resume, record an environment that has changed."""
    if not (folder / "recipe.yaml").is_file():
        new = folder.with_name(f"{folder.name}.new")
        shutil.rmtree(new, ignore_errors=True)
        try:
            new.mkdir(parents=True)
        except OSError as error:
            raise OutputError(
                f"{new}: cannot be created ({error.strerror}); choose another --out"
            ) from error
        (new / "recipe.yaml").write_text(
            yaml.safe_dump(recipe.model_dump(), sort_keys=False), encoding="utf8"
        )
        _write_json(new / "environment.json", environment())
        os.replace(new, folder)
        return
    now = environment()
    recorded = json.loads((folder / "environment.json").read_text(encoding="utf8"))
    resumed = recorded.pop("resumed", [])
    if not (folder / COMPLETE).exists() and now != [recorded, *resumed][-1]:
        _write_json(folder / "environment.json", recorded | {"resumed": [*resumed, now]})


def _run(folder: Path, recipe: SftRecipe | OpdRecipe, recipe_path: Path) -> None:
    """Train, save, evaluate; every stage that is already there is skipped."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    student = open_checkpoint(recipe.student)
    teacher = _teacher(folder, recipe, recipe_path)
    if not all((folder / name).is_dir() for name in PRECISIONS):
        _optimize(folder, recipe, student, teacher)
    if not (folder / "evaluation.json").exists():
        _evaluate(folder, recipe, student, teacher)
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    seconds = sum(
        json.loads(line)["seconds"] for line in (folder / "metrics.jsonl").read_text().splitlines()
    )
    opened = {"source": student, "teacher": teacher} | {
        name: open_checkpoint(str(folder / name)) for name in PRECISIONS
    }
    digests = {name: checkpoint.digest() for name, checkpoint in opened.items() if checkpoint}
    _write_json(
        folder / COMPLETE,
        {"steps": recipe.steps, "training_seconds": round(seconds, 1), "digests": digests},
    )


def _teacher(folder: Path, recipe: SftRecipe | OpdRecipe, recipe_path: Path) -> Checkpoint | None:
    """The teacher's checkpoint; of a teacher that was trained here, what it would publish: bf16."""
    if not isinstance(recipe, OpdRecipe):
        return None
    if recipe.teacher.startswith(TEACHER_RECIPE):
        nearest = load_recipe(_teachers(recipe, recipe_path)[0])
        return open_checkpoint(str(_teacher_folder(folder, nearest) / "bf16"))
    return open_checkpoint(recipe.teacher)


def _optimize(
    folder: Path, recipe: SftRecipe | OpdRecipe, student: Checkpoint, teacher: Checkpoint | None
) -> None:
    """Run the trainer from its last whole checkpoint, if there is one, and write both forms of the result."""
    checkpoints = folder / "checkpoints"
    trainer = build_trainer(
        recipe,
        load_model(student),
        load_tokenizer(student),
        load_model(teacher) if teacher else None,
        checkpoints,
        [Metrics(folder / "metrics.jsonl"), Checkpoints(), Bar()],
    )
    last = last_checkpoint(checkpoints)
    with warnings.catch_warnings():
        # TRL 1.16 still asks the model by the name that transformers 5.23 deprecates.
        warnings.filterwarnings(
            "ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning
        )
        trainer.train(resume_from_checkpoint=str(last) if last else None)
    for name, dtype in PRECISIONS.items():
        new = folder / f"{name}.new"
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir()
        save_model(trainer.model, student, new, dtype)
        shutil.rmtree(folder / name, ignore_errors=True)
        os.replace(new, folder / name)


def _evaluate(
    folder: Path, recipe: SftRecipe | OpdRecipe, student: Checkpoint, teacher: Checkpoint | None
) -> None:
    """Score source, teacher and the rounded student on the same held-out problems."""
    asked = {
        "source": student,
        "teacher": teacher,
        "student": open_checkpoint(str(folder / "bf16")),
    }
    scores: dict[str, Any] = {}
    for role, checkpoint in asked.items():
        if checkpoint:
            model, tokenizer = load_model(checkpoint), load_tokenizer(checkpoint)
            scores[role] = asdict(
                evaluate_model(
                    model, tokenizer, recipe.task, recipe.evaluation_seed, recipe.evaluation_size
                )
            )
    _write_json(folder / "evaluation.json", scores)


def _write_json(path: Path, content: object) -> None:
    """Write whole or not at all."""
    new = path.with_name(f"{path.name}.new")
    new.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf8")
    os.replace(new, path)
