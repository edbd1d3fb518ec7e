"""From a recipe to a run folder that describes itself and resumes, when killed, to the same bits.

| in the run folder | what it is |
| --- | --- |
| `recipe.yaml` | the resolved recipe |
| `environment.json` | code, versions, machine, commits of what the Hub gave, whose weights were taken |
| `metrics.jsonl` | one JSON line a step |
| `probes.jsonl` | what the recipe's probes saw (`opdlib.train.probes`) |
| `init/` | the source, where the recipe begins with random weights |
| `checkpoints/` | while it runs: where a killed run resumes |
| `steps/N/` | the weights after step N in bf16, where the recipe keeps some |
| `adapter/` | of a recipe with `lora`: the factors, as PEFT reads them |
| `fp32/`, `bf16/` | the trained checkpoint: master weights, and the same rounded |
| `evaluation.json` | accuracy of source, teacher and student on held-out problems |
| `complete.json` | written last: steps, seconds of training, digests of all checkpoints |
"""

import shutil
import subprocess
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import TrainerCallback

from opdlib.checkpoints import open_checkpoint
from opdlib.checkpoints.checkpoint import Checkpoint
from opdlib.checkpoints.series import COMPLETE
from opdlib.errors import OutputError, RecipeError
from opdlib.files import locked, new_folder
from opdlib.foreign import foreign, read_object
from opdlib.registry.recipes import OpsdRecipe
from opdlib.train import arithmetic
from opdlib.train.adapter import save_adapter, whole_state
from opdlib.train.callbacks import Bar, Checkpoints, Keep, Look, Metrics, last_checkpoint, saved_or_explained
from opdlib.train.evaluate import evaluate_model
from opdlib.train.fresh import find_architecture, write_fresh
from opdlib.train.masks import InsideMask, ZeroGradient, training_masks
from opdlib.train.models import load_model, load_reader, save_state, scoring_device
from opdlib.train.objectives import build_trainer
from opdlib.train.parents import Run, prepared
from opdlib.train.probes import Probes
from opdlib.train.processes import check_processes, count, first, first_alone, meet
from opdlib.train.run_folder import AGAIN, StepLog, prepare, write_json
from opdlib.train.tasks import task_of

FORMS = {"fp32": torch.float32, "bf16": torch.bfloat16}


def train(
    recipe: str | Path,
    out: Path | None = None,
    max_steps: int | None = None,
    seed: int | None = None,
    resume: bool = False,
    from_scratch: bool = False,
    score: bool = True,
    keep: tuple[int, Look] | None = None,
) -> Path:
    """Train what a recipe describes, a file or the name of one that opdlib ships; the run folder, by default
    `opdlib.registry.study.run_folder`.

    `max_steps` (>= 1) and `seed` replace the recipe's. What is named as `recipe:NAME`, be it student, teacher or the
    owner of a mask, is the recipe NAME.yaml beside this one, or else the one that opdlib ships: its weights are taken
    where they travel with opdlib; else, or `from_scratch`, it is trained first, in full, into a folder beside, and
    reused from there (`opdlib.train.parents`). An existing folder is refused unless `resume`; then a run continues
    from its last checkpoint, and a complete one is returned as it is. Without `score` nothing is evaluated, and the
    run is not complete. `keep` replaces the recipe's `keep_every` and gives each step that is kept, in float32, to
    somebody who looks at it. Everything is checked before a model is loaded. Raises RecipeError, OutputError,
    MissingDependencyError, ParameterError for a task without problems, or CheckpointError for a model that cannot be
    opened.

    One process trains in a folder: another waits for what it stands on, and is refused with OutputError for its own
    run. What it stands on and computes with other kernels is trained by a process of its own.
    """
    given = {"steps": max_steps, "seed": seed, "keep_every": keep[0] if keep else None}
    run = prepared(recipe, out, given, resume, from_scratch)
    for each in run.ancestors():
        if not (each.folder / COMPLETE).exists() and count() == 1 and not arithmetic.computes_with(each.recipe.kernels):
            _apart(each)
    for each in (*run.ancestors(), run):
        if not (each.folder / COMPLETE).exists():
            arithmetic.choose(each.recipe.kernels)
        check_processes(each.recipe)
        each.check_models()
        each.check_problems()
        each.check_weights()
    meet()  # nothing is written before every process has looked
    with _alone(run, wait=False):
        for each in run.ancestors():
            with _alone(each, wait=True), threads(each.recipe.threads):
                _train(each)
        with threads(run.recipe.threads):
            _train(run, score, keep[1] if keep else None)
    return run.folder


def source_of(run: Run) -> Checkpoint:
    """The checkpoint that a prepared run starts from: its pair's source."""
    return open_checkpoint(run.spec("student") or str(run.folder / "init"))


@contextmanager
def threads(number: int | None) -> Iterator[None]:
    """torch computes with so many threads, until left; None: with as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _apart(run: Run) -> None:
    """Train and measure a run in a process of its own, which can choose its kernels before it loads torch. What that
    prints to stdout is left out. Raises RecipeError where it fails, after it has said why."""
    if code := subprocess.run(run.command(), stdout=subprocess.DEVNULL, check=False).returncode:
        raise RecipeError(f"{run.folder}: its training ended with status {code}, for the reason above")


@contextmanager
def _alone(run: Run, wait: bool) -> Iterator[None]:
    """No other process trains this run meanwhile, but for those that share it."""
    place = run.folder.with_name(f"{run.folder.name}.training")
    with locked(place, f"run {run.folder.name}", wait) if first() else nullcontext():
        meet()  # what another process has made by now is there for all that share this run
        yield


def _train(run: Run, score: bool = True, look: Look | None = None) -> None:
    """Train, save, evaluate; every stage that is already there is skipped."""
    folder, init = run.folder, run.folder / "init"
    complete = (folder / COMPLETE).exists()
    with first_alone() as here:
        if here and not complete:
            prepare(folder, run.recipe, hub=run.commits(), parents=run.origins())
        if here and run.spec("student") is None and not init.is_dir():
            with new_folder(init) as new, foreign(init, OutputError, "free space or choose another place"):
                write_fresh(find_architecture(run.recipe.student), run.recipe.seed, new)
    if complete:
        return
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    models = {"source": source_of(run)}
    if (teacher := run.spec("teacher")) is not None:
        models["teacher"] = open_checkpoint(teacher)
    if not all((folder / form).is_dir() for form in FORMS):
        _optimize(run, models, look)
    with first_alone() as here:
        if here and score:
            _finish(run, models)


def _finish(run: Run, models: dict[str, Checkpoint]) -> None:
    """Score the trained model and say that the run is complete."""
    folder = run.folder
    trained = {form: open_checkpoint(str(folder / form)) for form in FORMS}
    if not (folder / "evaluation.json").exists():
        scored = models | {"student": trained["bf16"]}
        write_json(folder / "evaluation.json", {role: _score(run, role, model) for role, model in scored.items()})
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    rows = StepLog(folder / "metrics.jsonl").rows()
    summary = {
        "steps": run.recipe.steps,
        "training_seconds": round(sum(row["seconds"] for row in rows), 1),
        "digests": {name: model.digest() for name, model in (models | trained).items()},
    }
    write_json(folder / COMPLETE, summary)


def _optimize(run: Run, models: dict[str, Checkpoint], look: Look | None) -> None:
    """Train from the last whole checkpoint, if there is one, and write both forms of the result."""
    folder, recipe, source = run.folder, run.recipe, models["source"]
    # In self-distillation the teacher is the source, which stays where it is.
    teacher = source if isinstance(recipe, OpsdRecipe) else models.get("teacher")
    checkpoints = folder / "checkpoints"
    model, reader = load_model(source), load_reader(source, task_of(recipe).images)
    if recipe.lora is not None:
        model.name_or_path = str(source.folder)  # PEFT asks the Hub for a base without a name
    watching = [*observers(run, source, model, reader, look), Bar()] if first() else []
    callbacks = [*_interventions(run, source), *watching, Checkpoints()]
    last = last_checkpoint(checkpoints)
    with warnings.catch_warnings():
        # TRL 1.16 and PEFT 0.21 still use the names that transformers 5.23 deprecates.
        old_name = "`(is_)?gradient_checkpointing(_enable|_disable)?` is deprecated"
        warnings.filterwarnings("ignore", old_name, FutureWarning)
        trainer = build_trainer(recipe, model, reader, load_model(teacher) if teacher else None, checkpoints, callbacks)
        resumed = foreign(last, OutputError, AGAIN) if last else nullcontext()
        with resumed, saved_or_explained(checkpoints, lambda: trainer.state.global_step):
            trainer.train(resume_from_checkpoint=str(last) if last else None)
    if recipe.lora is not None:
        state = whole_state(trainer.model)
        with new_folder(folder / "adapter", replace=True) as new:
            save_adapter(trainer.model, source.spec, new)
    else:  # of a model that is spread over processes every one of them holds a part
        state = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    with first_alone() as here:
        for form, dtype in FORMS.items() if here else ():
            with new_folder(folder / form, replace=True) as new:
                save_state(state, source, new, dtype)


def _interventions(run: Run, source: Checkpoint) -> list[TrainerCallback]:
    """What changes the training: a mask, the zero gradient."""
    recipe, owner = run.recipe, run.spec("mask")
    callbacks: list[TrainerCallback] = [ZeroGradient()] if recipe.gradient == "zero" else []
    if recipe.mask is not None and owner is not None:
        callbacks.append(InsideMask(training_masks(recipe.mask, source, open_checkpoint(owner), recipe.seed), source))
    return callbacks


def observers(run: Run, source: Checkpoint, model: Any, reader: Any, look: Look | None = None) -> list[TrainerCallback]:
    """What only looks on: metrics, probes, weights that are kept. `model` is still the source."""
    folder, recipe = run.folder, run.recipe
    callbacks: list[TrainerCallback] = [Metrics(folder / "metrics.jsonl")]
    if recipe.probe_every or recipe.evaluate_every:
        callbacks.append(Probes(recipe, model, reader, folder / "probes.jsonl"))
    if recipe.keep_every:
        callbacks.append(Keep(recipe.keep_every, folder / "steps", source, look))
    return callbacks


def _score(run: Run, role: str, model: Checkpoint) -> dict[str, Any]:
    """What a model answers of the run's held-out problems; a parent that was asked the same has said so already."""
    recipe = run.recipe
    asked = recipe.task, recipe.evaluation_seed, recipe.evaluation_size
    task = task_of(recipe)
    parent = run.parents.get({"source": "student", "teacher": "teacher"}.get(role, ""))
    if parent is not None and parent.weights is None and parent.recipe.rows == recipe.rows:
        found = read_object(parent.folder / "evaluation.json", OutputError, AGAIN).get("student")
        if isinstance(found, dict) and tuple(found.get(key) for key in ("task", "seed", "n")) == asked:
            return found
    reader = load_reader(model, task.images)
    return asdict(evaluate_model(load_model(model).to(scoring_device()), reader, task, *asked[1:]))
