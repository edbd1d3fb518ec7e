"""How many held-out problems a checkpoint answers: greedy, strict, the same on every machine."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from opdlib.checkpoints import open_checkpoint
from opdlib.errors import ParameterError
from opdlib.registry.recipes import load_recipe
from opdlib.stats import wilson
from opdlib.train import models
from opdlib.train.prompts import encode, end_tokens
from opdlib.train.tasks import Problem, Task, find_task, task_of

EVALUATED = 500
"""Problems that a model is asked where nothing else is said, as in every recipe."""


@dataclass(frozen=True)
class Evaluation:
    """Strict accuracy on held-out problems, with its Wilson 95% interval."""

    task: str
    seed: int
    n: int
    correct: int
    accuracy: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class Answer:
    """What a model said to one held-out problem."""

    prompt: str
    reference: str
    """What the scorer compares with."""
    completion: str
    correct: bool


def evaluate(spec: str | Path, task: str = "arithmetic", seed: int = 0, n: int | None = None) -> Evaluation:
    """Ask the checkpoint `spec` the first `n` held-out problems that `seed` draws; by default 500, or all of fewer.

    Weights are upcast to float32 and decoding is greedy, so the result depends on the checkpoint
    alone. `task` is a name, or the path of a recipe, which says it with its rows. Raises ParameterError for an unknown
    task, one of images that the model is not shown or an impossible `n`, CheckpointError for what cannot be opened.

    >>> import opdlib
    >>> found = opdlib.evaluate("reader", n=20)
    >>> f"{found.accuracy:.0%} of {found.n} problems, {found.interval[0]:.0%} to {found.interval[1]:.0%}"
    '0% of 20 problems, 0% to 16%'
    """
    chosen = asked_task(task)
    asked = _asked(spec, chosen, n)
    chosen.held_out(asked, seed)  # a wrong number is told before a model is loaded
    return evaluate_model(*_opened(spec, chosen), chosen, seed, asked)


def answers(spec: str | Path, task: str = "arithmetic", seed: int = 0, n: int | None = None) -> list[Answer]:
    """Ask the checkpoint `spec` every held-out problem of a task, first the `n` that `evaluate` asks.

    The first answers are those that `evaluate` counts where `n` is a multiple of what the task asks at once, as it is
    in every recipe. Raises what `evaluate` raises.
    """
    chosen = asked_task(task)
    problems = chosen.all_held_out(_asked(spec, chosen, n), seed)
    return answer_model(*_opened(spec, chosen), chosen, problems)


def asked_task(task: str) -> Task:
    """The task of this name, or of the recipe at this path."""
    return task_of(load_recipe(Path(task))) if task.endswith(".yaml") else find_task(task)


def _asked(spec: str | Path, task: Task, n: int | None) -> int:
    if task.images and not models.shows_images(config := models.load_config(open_checkpoint(spec))):
        raise ParameterError(
            f"task {task.name} asks about images, which {spec}, a {config.model_type}, is not shown; choose an "
            "image-text model, or a task of text"
        )
    return min(EVALUATED, len(task.split().held_out)) if n is None else n


def _opened(spec: str | Path, task: Task) -> tuple[Any, Any]:
    checkpoint = open_checkpoint(spec)
    return models.load_model(checkpoint).to(models.scoring_device()), models.load_reader(checkpoint, task.images)


def evaluate_model(model: Any, reader: Any, task: Task, seed: int, n: int) -> Evaluation:
    """`evaluate` for a float32 model and its left-padding tokenizer or processor that are already in memory."""
    return counted(answer_model(model, reader, task, task.held_out(n, seed)), task.name, seed)


def counted(said: Sequence[Answer], task: str, seed: int) -> Evaluation:
    """How many of these answers (at least one) are right, with what the task and seed were."""
    correct, n = sum(answer.correct for answer in said), len(said)
    return Evaluation(task, seed, n, correct, correct / n, wilson(correct, n))


@torch.inference_mode()
def answer_model(model: Any, reader: Any, task: Task, problems: Sequence[Problem]) -> list[Answer]:
    """What a float32 model says to these problems of a task, asked in their order."""
    tokenizer = models.tokenizer_of(reader)
    stops = end_tokens(task, tokenizer)
    model.eval()
    said: list[Answer] = []
    for start in tqdm(range(0, len(problems), task.batch), desc="evaluate", unit="batch", disable=None):
        batch = problems[start : start + task.batch]
        encoded = {name: tensor.to(model.device) for name, tensor in encode(list(batch), task, reader).items()}
        with models.transformers_on(tokenizer.name_or_path, "generation_config.json"):
            output = model.generate(
                **encoded,
                max_new_tokens=task.max_new_tokens,
                do_sample=False,
                eos_token_id=stops,
                pad_token_id=tokenizer.pad_token_id,
                return_dict_in_generate=False,
                trust_remote_code=False,
            )
        texts = tokenizer.batch_decode(output[:, encoded["input_ids"].shape[1] :], skip_special_tokens=True)
        for problem, text in zip(batch, texts, strict=True):
            said.append(Answer(problem.prompt, problem.reference, text, task.is_correct(text, problem.reference)))
    return said
