"""A checkpoint that was not trained: Gaussian noise over a source, as large in bf16 as an update.

It knows neither the weights nor a task. What it shares with a trained checkpoint, training did not put there.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from opdlib.checkpoints.checkpoint import Checkpoint
from opdlib.checkpoints.patch import copy_companions, write_tensors
from opdlib.errors import ParameterError
from opdlib.files import new_folder
from opdlib.measurement.align import Match, align, check_finite
from opdlib.metrics.draws import generator

STEPS = 30
"""Halvings of the interval of scales, on a logarithmic axis."""


def noise(
    source: Checkpoint,
    like: Checkpoint,
    out: Path,
    seed: int = 0,
    progress: Callable[[Sequence[Match]], Iterable[Match]] = iter,
) -> float:
    """Write to the new folder `out` the source plus noise in bf16, and return its relative norm.

    Every tensor gets independent Gaussian noise of one scale, chosen so that after rounding the difference from the
    source has the norm that `like` has there, both rounded to bf16 (or one that rounding allows next to it); a tensor
    that is equal in `like` stays equal. Tensors are drawn from `seed` and their name. Configuration and tokenizer are
    those of the source. Raises AlignmentError, MeasureError for NaN and Inf, OutputError.
    """
    if seed < 0:
        raise ParameterError(f"seed {seed}; wanted a whole number from 0 up")
    moved = whole = 0.0
    written: dict[str, Tensor] = {}
    with new_folder(out) as folder:
        for match in progress(align(source, like, whole=True).matches):
            before, after = match.source.read(source).bfloat16(), match.trained.read(like).bfloat16()
            check_finite(source, match.source, before, "bf16")
            check_finite(like, match.trained, after, "bf16")
            change = after.double() - before.double()
            draw = torch.from_numpy(generator(seed, match.name).standard_normal(tuple(before.shape)))
            noisy = noised(before, float(change.norm()), draw)
            moved += float((noisy.double() - before.double()).square().sum())
            whole += float(before.double().square().sum())
            written[match.source.stored] = noisy
        write_tensors(folder / "model.safetensors", written)
        source.check_unchanged()
        like.check_unchanged()
        copy_companions(source.folder, folder)
    return math.sqrt(moved / whole) if whole else math.nan


def noised(before: Tensor, norm: float, draw: Tensor) -> Tensor:
    """The bf16 tensor nearest to `before` plus a multiple of `draw` (float64) that differs from `before` by `norm`.

    The multiple is found by halving, and the nearest that was met is taken: a rounded difference grows in steps.
    """
    if norm == 0:
        return before
    weights = before.double()
    low, high = (math.log(norm / math.sqrt(weights.numel())) + ends for ends in (-3.0, 3.0))
    nearest, miss = before, norm
    for _ in range(STEPS):
        middle = (low + high) / 2
        found = (weights + math.exp(middle) * draw).bfloat16()
        reached = float((found.double() - weights).norm())
        if abs(reached - norm) < miss:
            nearest, miss = found, abs(reached - norm)
        low, high = (middle, high) if reached < norm else (low, middle)
    return nearest
