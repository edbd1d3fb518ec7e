"""Tokens a second of a run with all its probes, over those of TRL's trainer alone (target: at least 0.9).

    python benchmarks/training.py [RECIPE] [--rounds N]

Both train the same models for the recipe's steps with the same settings, in turn, in one process. The student and the
teacher are fresh models, so that nothing must be trained first; what a step costs does not depend on what they know.
"""

import argparse
import statistics
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import torch
import transformers
from datasets import Dataset
from transformers import PrinterCallback
from trl import DistillationTrainer

from opdlib.checkpoints import open_checkpoint
from opdlib.checkpoints.checkpoint import Checkpoint
from opdlib.cli.main import prepare
from opdlib.files import data_root
from opdlib.registry.recipes import DistillRecipe, load_recipe
from opdlib.train.callbacks import Checkpoints
from opdlib.train.fresh import ARCHITECTURES, write_fresh
from opdlib.train.models import load_model, load_reader
from opdlib.train.objectives import build_trainer
from opdlib.train.parents import Run
from opdlib.train.prompts import end_tokens
from opdlib.train.run import observers
from opdlib.train.tasks import find_task

TARGET = 0.9


def bare(recipe: DistillRecipe, source: Checkpoint, teacher: Checkpoint, folder: Path) -> Any:
    """TRL's trainer with the arguments that our recipe gives it, and nothing of ours around it."""
    model, tokenizer = load_model(source), load_reader(source)
    args = build_trainer(recipe, load_model(source), tokenizer, load_model(teacher), folder, []).args
    model.generation_config.eos_token_id = end_tokens(find_task(recipe.task), tokenizer)
    problems = find_task(recipe.task).training(recipe.steps * recipe.batch_size, recipe.seed)
    trainer = DistillationTrainer(
        model=model,
        teacher_model=load_model(teacher),
        args=args,
        train_dataset=Dataset.from_list([{"prompt": problem.prompt} for problem in problems]),
        processing_class=tokenizer,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def ours(recipe: DistillRecipe, source: Checkpoint, teacher: Checkpoint, folder: Path) -> Any:
    """The trainer of a run, with everything that looks on."""
    model, tokenizer = load_model(source), load_reader(source)
    run = Run(Path(), recipe, folder, {})
    watching = [*observers(run, source, model, tokenizer), Checkpoints()]
    return build_trainer(recipe, model, tokenizer, load_model(teacher), folder / "checkpoints", watching)


def rate(trainer: Any) -> float:
    """Tokens a second of a whole run."""
    start = time.perf_counter()
    trainer.train()
    return float(trainer.state.num_input_tokens_seen / (time.perf_counter() - start))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path, nargs="?", default=data_root() / "recipes" / "pico-opd.yaml")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    prepare()
    warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    recipe = load_recipe(options.recipe)
    assert isinstance(recipe, DistillRecipe)
    torch.set_num_threads(recipe.threads or torch.get_num_threads())
    rates: dict[str, list[float]] = {"bare": [], "ours": []}
    for _ in range(options.rounds):
        for name, make in (("bare", bare), ("ours", ours)):
            with tempfile.TemporaryDirectory() as folder:
                models = []
                for seed in (0, 1):
                    place = Path(folder) / str(seed)
                    place.mkdir()
                    write_fresh(ARCHITECTURES["pico"], seed, place)
                    models.append(open_checkpoint(str(place)))
                rates[name].append(rate(make(recipe, *models, Path(folder))))
    for name, found in rates.items():
        print(f"{name}: {statistics.median(found):.0f} tokens a second ({', '.join(f'{x:.0f}' for x in found)})")
    ratio = statistics.median(rates["ours"]) / statistics.median(rates["bare"])
    print(f"with all probes: {ratio:.3f} of the bare trainer (target: at least {TARGET})")


if __name__ == "__main__":
    main()
