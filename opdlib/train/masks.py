"""Training inside a mask, as the paper does it (section 4.4, appendix A.9): zero the gradient outside, and put the
frozen coordinates back after every step, so that not even weight decay moves them.

The kinds of mask are controls of each other. All hold, tensor by tensor, as many coordinates as the owner's delta:

| kind | coordinates | keeps of the owner's delta |
| --- | --- | --- |
| `delta` | abs(trained - source) > threshold, in view bf16 | everything |
| `random` | uniformly drawn | the density of each tensor |
| `magnitude` | uniformly drawn within each binade of abs(source) | its density among weights of each magnitude |
| `smallest` | the smallest abs(source); ties at the cut are drawn | the density, at the weights that bf16 shows best |

The paper does not say whether its random mask keeps the density of each tensor or of the model alone; these keep each
tensor's.
"""

from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import TrainerCallback

from opdlib.checkpoints.checkpoint import Checkpoint
from opdlib.errors import RecipeError
from opdlib.metrics.draws import binades, drawn_alike, generator
from opdlib.registry.recipes import Mask
from opdlib.train.callbacks import unwrapped
from opdlib.train.models import module_names


def training_masks(mask: Mask, source: Checkpoint, owner: Checkpoint, seed: int) -> dict[str, Tensor]:
    """The mask of every tensor of `source` by name: bool, the tensor's shape, True where it is trained. `seed` and the
    tensor's name draw what is drawn. Raises RecipeError if the owner's mask is empty."""
    masks = {}
    for name in source.tensors:
        weights = source.read(name).to(torch.bfloat16)
        changed = (owner.read(name).to(torch.bfloat16).double() - weights.double()).abs() > mask.threshold
        masks[name] = drawn_mask(mask.kind, changed, weights, generator(seed, name))
    if not any(bool(inside.any()) for inside in masks.values()):
        raise RecipeError(
            f"mask of {owner.spec}: none of its weights differs from {source.spec} by more than threshold "
            f"{mask.threshold}; choose a smaller threshold"
        )
    return masks


def drawn_mask(kind: str, changed: Tensor, weights: Tensor, rng: np.random.Generator) -> Tensor:
    """A mask of `kind` with as many coordinates as `changed` (bool), over bf16 `weights` of the same shape."""
    if kind == "delta":
        return changed
    if kind != "smallest":
        bins = binades(weights)
        return drawn_alike(changed, bins if kind == "magnitude" else np.zeros_like(bins), rng)
    owned = changed.flatten().numpy()
    magnitude = weights.abs().flatten().view(torch.int16).numpy()  # the bits of abs(bf16) sort as its values do
    drawn = np.zeros(len(owned), dtype=bool)
    drawn[np.lexsort((rng.random(len(owned)), magnitude))[: owned.sum()]] = True
    return torch.from_numpy(drawn).reshape(changed.shape)


class InsideMask(TrainerCallback):  # type: ignore[misc]  # transformers is Any to mypy
    """Keeps every coordinate outside `masks` (by the source's name of the parameter) at the bits of `source`."""

    def __init__(self, masks: dict[str, Tensor], source: Checkpoint) -> None:
        self.masks, self.source = masks, source

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Hook gradients and optimizer; nothing is left to a trainer's order of events."""
        held = []
        model = kwargs["model"]
        stored = {inside: name for name, inside in module_names(model.config, self.source.tensors).items()}
        for inside, parameter in model.named_parameters():
            if inside not in stored:
                raise RecipeError(
                    f"{self.source.spec}: {inside} joins tensors that are stored apart, and a mask is of those "
                    "that are stored; train without a mask"
                )
            mask = self.masks[stored[inside]].to(parameter.device)
            frozen = self.source.read(stored[inside]).to(parameter.device, parameter.dtype)
            parameter.register_post_accumulate_grad_hook(partial(_mask_gradient, mask))
            held.append((parameter, mask, frozen))

        @torch.no_grad()
        def put_back(*_: Any) -> None:
            for parameter, mask, frozen in held:
                torch.where(mask, parameter, frozen, out=parameter)

        unwrapped(kwargs["optimizer"]).register_step_post_hook(put_back)


class ZeroGradient(TrainerCallback):  # type: ignore[misc]  # transformers is Any to mypy
    """Replaces every gradient by 0 before clipping and the optimizer see it."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        for parameter in kwargs["model"].parameters():
            parameter.register_post_accumulate_grad_hook(_zero_gradient)


def _mask_gradient(mask: Tensor, parameter: Tensor) -> None:
    assert parameter.grad is not None  # it has just been accumulated
    parameter.grad.mul_(mask)


def _zero_gradient(parameter: Tensor) -> None:
    assert parameter.grad is not None
    parameter.grad.zero_()
