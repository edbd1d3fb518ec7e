"""From a recipe to a run folder that describes itself and resumes, when killed, to the same bits.

| in `runs/train/<name>-s<seed>/` | what it is |
| --- | --- |
| `recipe.yaml` | the resolved recipe |
| `environment.json` | code, versions, machine |
| `metrics.jsonl` | one JSON line a step |
| `checkpoints/` | while it runs: where a killed run resumes |
| `fp32/`, `bf16/` | the trained checkpoint: master weights, and the same rounded |
| `evaluation.json` | accuracy of source, teacher and student on held-out problems |
| `complete.json` | written last: steps, seconds of training, digests of all checkpoints |
"""

from __future__ import annotations

import json
import shutil
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import transformers

from opdlib.checkpoints import Checkpoint, open_checkpoint
from opdlib.errors import RecipeError
from opdlib.train.callbacks import Bar, Checkpoints, Metrics, last_checkpoint
from opdlib.train.evaluate import evaluate_model
from opdlib.train.folder import COMPLETE, check_existing, prepare, write_json
from opdlib.train.models import load_model, load_tokenizer, save_model
from opdlib.train.objectives import build_trainer
from opdlib.train.recipe import OpdRecipe, Recipe, check_recipe, load_recipe
from opdlib.train.tasks import find_task

TEACHER_RECIPE = "recipe:"
FORMS = {"fp32": torch.float32, "bf16": torch.bfloat16}


def train(
    recipe_path: Path,
    out: Path | None = None,
    max_steps: int | None = None,
    seed: int | None = None,
    resume: bool = False,
) -> Path:
    """Train what a recipe describes; the run folder, by default runs/train/<name>-s<seed>.

    `max_steps` (>= 1) and `seed` replace the recipe's. A teacher named as `recipe:NAME` is the
    recipe NAME.yaml beside this one: it is trained first, in full and with its own seed, into a
    folder beside, and reused from there. An existing folder is refused unless `resume`; then a run
    continues from its last checkpoint, and a complete one is returned as it is. Everything is
    checked before a model is loaded. Raises RecipeError, OutputError, or CheckpointError for a
    model that cannot be opened.
    """
    recipe = _override(load_recipe(recipe_path), max_steps, seed)
    find_task(recipe.task).held_out(recipe.evaluation_size, recipe.evaluation_seed)
    lineage = _lineage(recipe_path, recipe)
    folder = out or Path("runs") / "train" / f"{recipe.name}-s{recipe.seed}"
    check_existing(folder, recipe, resume)
    teacher: Path | None = None
    for ancestor in lineage:
        cached = folder.parent / f"{ancestor.name}-s{ancestor.seed}"
        check_existing(cached, ancestor, resume=True)
        teacher = _run(cached, ancestor, teacher)
    return _run(folder, recipe, teacher)


def _override(recipe: Recipe, max_steps: int | None, seed: int | None) -> Recipe:
    given = {"steps": max_steps, "seed": seed}
    changes = {key: value for key, value in given.items() if value is not None}
    return check_recipe(recipe.model_dump() | changes, "command line")


def _lineage(path: Path, recipe: Recipe) -> list[Recipe]:
    """The recipes to train before this one, earliest first. Raises RecipeError for a circle."""
    paths, recipes = [path], [recipe]
    while isinstance(recipe, OpdRecipe) and recipe.teacher.startswith(TEACHER_RECIPE):
        path = path.with_name(f"{recipe.teacher.removeprefix(TEACHER_RECIPE)}.yaml")
        if path in paths:
            raise RecipeError(f"{paths[-1]}: teacher {recipe.teacher!r} leads back to itself")
        recipe = load_recipe(path)
        paths.append(path)
        recipes.append(recipe)
    return recipes[:0:-1]


def _run(folder: Path, recipe: Recipe, trained_teacher: Path | None) -> Path:
    """Train, save, evaluate; every stage that is already there is skipped."""
    prepare(folder, recipe)
    if (folder / COMPLETE).exists():
        return folder
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    models = {"source": open_checkpoint(recipe.student)}
    if isinstance(recipe, OpdRecipe):
        # A teacher is what it would publish: the rounded weights.
        spec = str(trained_teacher / "bf16") if trained_teacher else recipe.teacher
        models["teacher"] = open_checkpoint(spec)
    if not all((folder / form).is_dir() for form in FORMS):
        _optimize(folder, recipe, models)
    trained = {form: open_checkpoint(str(folder / form)) for form in FORMS}
    if not (folder / "evaluation.json").exists():
        write_json(folder / "evaluation.json", _score(recipe, models | {"student": trained["bf16"]}))
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    lines = (folder / "metrics.jsonl").read_text(encoding="utf8").splitlines()
    summary = {
        "steps": recipe.steps,
        "training_seconds": round(sum(json.loads(line)["seconds"] for line in lines), 1),
        "digests": {name: model.digest() for name, model in (models | trained).items()},
    }
    write_json(folder / COMPLETE, summary)
    return folder


def _optimize(folder: Path, recipe: Recipe, models: dict[str, Checkpoint]) -> None:
    """Train from the last whole checkpoint, if there is one, and write both forms of the result."""
    source, teacher = models["source"], models.get("teacher")
    checkpoints = folder / "checkpoints"
    trainer = build_trainer(
        recipe,
        load_model(source),
        load_tokenizer(source),
        load_model(teacher) if teacher else None,
        checkpoints,
        [Metrics(folder / "metrics.jsonl"), Checkpoints(), Bar()],
    )
    last = last_checkpoint(checkpoints)
    with warnings.catch_warnings():
        # TRL 1.16 still asks the model by the name that transformers 5.23 deprecates.
        old_name = "`is_gradient_checkpointing` is deprecated"
        warnings.filterwarnings("ignore", old_name, FutureWarning)
        trainer.train(resume_from_checkpoint=str(last) if last else None)
    for form, dtype in FORMS.items():
        new = folder / f"{form}.new"
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir()
        save_model(trainer.model, source, new, dtype)
        shutil.rmtree(folder / form, ignore_errors=True)
        new.replace(folder / form)


def _score(recipe: Recipe, models: dict[str, Checkpoint]) -> dict[str, Any]:
    """What every model answers of the same held-out problems."""
    asked = recipe.task, recipe.evaluation_seed, recipe.evaluation_size
    return {
        role: asdict(evaluate_model(load_model(model), load_tokenizer(model), *asked)) for role, model in models.items()
    }
