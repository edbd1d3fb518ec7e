"""How many held-out problems a checkpoint answers: greedy, strict, the same on every machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from opdlib.checkpoints import open_checkpoint
from opdlib.errors import ParameterError
from opdlib.stats import wilson
from opdlib.train.models import load_config, load_model, load_reader, scoring_device, shows_images, tokenizer_of
from opdlib.train.prompts import encode, end_tokens
from opdlib.train.tasks import find_task


@dataclass(frozen=True)
class Evaluation:
    """Strict accuracy on held-out problems, with its Wilson 95% interval."""

    task: str
    seed: int
    n: int
    correct: int
    accuracy: float
    interval: tuple[float, float]


def evaluate(spec: str | Path, task: str = "arithmetic", seed: int = 0, n: int | None = None) -> Evaluation:
    """Ask the checkpoint `spec` the first `n` held-out problems that `seed` draws; by default 500, or all of fewer.

    Weights are upcast to float32 and decoding is greedy, so the result depends on the checkpoint
    alone. Raises ParameterError for an unknown task, one of images that the model is not shown or an impossible `n`,
    CheckpointError for what cannot be opened.

    >>> import opdlib
    >>> found = opdlib.evaluate("reader", n=20)
    >>> f"{found.accuracy:.0%} of {found.n} problems, {found.interval[0]:.0%} to {found.interval[1]:.0%}"
    '0% of 20 problems, 0% to 16%'
    """
    chosen = find_task(task)
    if chosen.images and not shows_images(config := load_config(open_checkpoint(spec))):
        raise ParameterError(
            f"task {task} asks about images, which {spec}, a {config.model_type}, is not shown; choose an image-text "
            "model, or a task of text"
        )
    asked = min(500, len(chosen.split().held_out)) if n is None else n
    chosen.held_out(asked, seed)  # a wrong name or number is told before a model is loaded
    checkpoint = open_checkpoint(spec)
    model = load_model(checkpoint).to(scoring_device())
    return evaluate_model(model, load_reader(checkpoint, chosen.images), task, seed, asked)


@torch.inference_mode()
def evaluate_model(model: Any, reader: Any, task: str, seed: int, n: int) -> Evaluation:
    """`evaluate` for a float32 model and its left-padding tokenizer or processor that are already in memory."""
    chosen, tokenizer = find_task(task), tokenizer_of(reader)
    problems = chosen.held_out(n, seed)
    stops = end_tokens(chosen, tokenizer)
    model.eval()
    correct = 0
    for start in tqdm(range(0, n, chosen.batch), desc="evaluate", unit="batch", disable=None):
        batch = problems[start : start + chosen.batch]
        encoded = {name: tensor.to(model.device) for name, tensor in encode(batch, chosen, reader).items()}
        output = model.generate(
            **encoded,
            max_new_tokens=chosen.max_new_tokens,
            do_sample=False,
            eos_token_id=stops,
            pad_token_id=tokenizer.pad_token_id,
        )
        texts = tokenizer.batch_decode(output[:, encoded["input_ids"].shape[1] :], skip_special_tokens=True)
        correct += sum(chosen.is_correct(text, p.reference) for text, p in zip(texts, batch, strict=True))
    return Evaluation(task, seed, n, correct, correct / n, wilson(correct, n))
