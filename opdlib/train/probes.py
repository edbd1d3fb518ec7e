"""What a run says of itself on the way. Probes read; a run with them ends in the same bits as one without.

A row of `probes.jsonl`, after the update of its step:

| key | what it is |
| --- | --- |
| `momentum_cosine` | cosine of Adam's momentum m_t and the (clipped) gradient g_t, over all coordinates (paper, A.8) |
| `second_moment_cv` | standard deviation over mean of sqrt(v_t), over all coordinates (paper, A.8) |
| `gradient_norm`, `update_norm`, `distance` | norms of g_t, of the step just taken, of the fp32 way from the source |
| `changed` | share of coordinates that bf16 shows to differ from the source so far |
| `accuracy`, `interval`, `n` | strict, greedy, on the run's held-out problems, with Wilson's 95% interval |

A key is absent where the optimizer has no such state, null where it is 0/0 (no gradient, no second moment).
"""

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback

from opdlib.registry.recipes import Recipe
from opdlib.train.callbacks import unwrapped
from opdlib.train.evaluate import evaluate_model
from opdlib.train.run_folder import StepLog
from opdlib.train.tasks import task_of


class Probes(TrainerCallback):  # type: ignore[misc]  # transformers is Any to mypy
    """Writes `probes.jsonl` at the steps that the recipe asks for; `model` is the source still."""

    def __init__(self, recipe: Recipe, model: Any, reader: Any, path: Path) -> None:
        self.recipe, self.reader, self.log = recipe, reader, StepLog(path)
        # Now, before a checkpoint of the run is loaded over them; a source holds bf16 numbers.
        self.source = [p.detach().to(torch.bfloat16) for p in model.parameters()] if recipe.probe_every else []
        self.before: list[Tensor] = []
        self.row: dict[str, Any] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.log.cut(state.global_step)

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if _due(state.global_step + 1, self.recipe.probe_every):
            self.before = [p.detach().clone() for p in kwargs["model"].parameters()]

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Look while gradients and the optimizer's state of the same step are there."""
        if _due(state.global_step + 1, self.recipe.probe_every):
            parameters = list(kwargs["model"].parameters())
            self.row |= of_state(parameters, unwrapped(kwargs["optimizer"]))
            self.row |= of_weights(parameters, self.before, self.source)
            self.before = []

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        model, recipe = kwargs["model"], self.recipe
        if recipe.evaluate_every is not None and state.global_step % recipe.evaluate_every == 0:
            training, asked = model.training, (task_of(recipe), recipe.evaluation_seed, recipe.evaluation_size)
            found = asdict(evaluate_model(model, self.reader, *asked))
            model.train(training)
            self.row |= {key: found[key] for key in ("accuracy", "interval", "n")}
        if self.row:
            self.log.append({"step": state.global_step} | self.row)
            self.row = {}


def _due(step: int, every: int | None) -> bool:
    """The first step counts too: it is where momentum is the gradient."""
    return every is not None and (step % every == 0 or step == 1)


@torch.no_grad()
def of_state(parameters: list[Tensor], optimizer: torch.optim.Optimizer) -> dict[str, float | None]:
    """`gradient_norm`, and of Adam `momentum_cosine` and `second_moment_cv`, right after a step."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    norm = math.sqrt(sum(_dot(g, g) for g in gradients))
    found: dict[str, float | None] = {"gradient_norm": norm}
    states = [optimizer.state[p] for p in parameters if p.grad is not None]
    if not states or "exp_avg" not in states[0]:
        return found
    momenta = [state["exp_avg"] for state in states]
    length = math.sqrt(sum(_dot(m, m) for m in momenta))
    dot = sum(_dot(m, g) for m, g in zip(momenta, gradients, strict=True))
    found["momentum_cosine"] = dot / (length * norm) if length * norm else None
    count = sum(p.numel() for p in parameters)
    roots = [state["exp_avg_sq"].sqrt() for state in states]
    mean = sum(float(r.sum(dtype=torch.float64)) for r in roots) / count
    square = sum(_dot(r, r) for r in roots) / count
    found["second_moment_cv"] = math.sqrt(max(square - mean * mean, 0.0)) / mean if mean else None
    return found


@torch.no_grad()
def of_weights(parameters: list[Tensor], before: list[Tensor], source: list[Tensor]) -> dict[str, float]:
    """`update_norm`, `distance` and `changed` of parameters against those before the step and the bf16 source."""
    source = [old.to(now.device) for now, old in zip(parameters, source, strict=True)]
    changed = sum(int((now.bfloat16() != old).sum()) for now, old in zip(parameters, source, strict=True))
    return {
        "update_norm": _distance(parameters, before),
        "distance": _distance(parameters, source),
        "changed": changed / sum(p.numel() for p in parameters),
    }


def _distance(a: list[Tensor], b: list[Tensor]) -> float:
    differences = (x - y for x, y in zip(a, b, strict=True))
    return math.sqrt(sum(_dot(d, d) for d in differences))


def _dot(a: Tensor, b: Tensor) -> float:
    """The inner product, summed in float64."""
    return float((a * b).sum(dtype=torch.float64))
