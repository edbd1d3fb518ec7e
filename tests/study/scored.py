"""Runs that were never trained, whole enough to be asked and taken apart; and answers that follow from weights."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from opdlib.checkpoints import open_checkpoint
from opdlib.registry.recipes import load_recipe
from opdlib.registry.study import find_scale
from opdlib.train.evaluate import Answer
from opdlib.train.tasks import find_task
from tests.conftest import moved, pico_weights, write_checkpoint

PICO = find_scale("pico")
RECIPE = load_recipe(PICO.arms["opd"].recipe)
ASKED = RECIPE.task, RECIPE.evaluation_seed, RECIPE.evaluation_size
"""What every run of pico is asked: task, seed and how many problems first."""


def write_runs(folder: Path, runs: Sequence[tuple[str, int]]) -> Path:
    """pico's source, and these runs: each a small update of its own."""
    source = pico_weights()
    before = open_checkpoint(write_checkpoint(folder / "pico-source-s0" / "bf16", source))
    for number, (arm, seed) in enumerate(runs):
        run, masters = PICO.arms[arm].folder(seed, folder), moved(source, seed=number + 1, dtype=torch.float32)
        trained = write_checkpoint(run / "fp32", masters)
        write_checkpoint(run / "bf16", {name: weights.bfloat16() for name, weights in masters.items()})
        shutil.copy(PICO.arms[arm].recipe, run / "recipe.yaml")
        digests = {"source": before.digest(), "fp32": open_checkpoint(trained).digest()}
        (run / "complete.json").write_text(json.dumps({"digests": digests}))
        right = sum(answer.correct for answer in answered(run / "bf16", *ASKED)[: ASKED[-1]])
        (run / "evaluation.json").write_text(json.dumps({"student": {"correct": right}}))
    return folder


def answered(spec: Any, task: str, seed: int, n: int) -> list[Answer]:
    """Every second problem is right of weights at rest; one more for each weight of a tensor that moved up."""
    up = open_checkpoint(spec).read("model.layers.0.mlp.up_proj.weight").float()
    right = int((up > pico_weights()["model.layers.0.mlp.up_proj.weight"].float()).sum())
    problems = find_task(task).all_held_out(n, seed)
    return [Answer(p.prompt, p.reference, "", i % 2 == 0 or i < right) for i, p in enumerate(problems)]
