"""One run on several processes: `accelerate launch ... -m opdlib train RECIPE`, one process a GPU.

Every process trains; the first one alone writes, evaluates and measures. With one process all of this is nothing.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
from accelerate import PartialState

from opdlib.errors import RecipeError
from opdlib.registry.recipes import Recipe

PATIENCE = timedelta(hours=24)
"""How long a process waits for another: the first one alone evaluates, which on the paper's tasks takes longer than the
half hour that is usual. A process that has died need not be waited out, for the launcher then ends the others."""


def count() -> int:
    """How many processes share this run."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def first() -> bool:
    """Is this the process that writes?"""
    return int(os.environ.get("RANK", "0")) == 0


def meet() -> None:
    """Wait until every process is here."""
    if count() > 1:
        # The first meeting forms the group, before TRL's configuration could say how patient it is.
        PartialState(cpu=not torch.cuda.is_available(), timeout=PATIENCE).wait_for_everyone()


@contextmanager
def first_alone() -> Iterator[bool]:
    """`with first_alone() as here: if here: ...`: the first process works, the others wait for it."""
    yield first()
    meet()


def check_processes(recipe: Recipe) -> None:
    """Raises RecipeError for what several processes cannot do. Gradients are averaged after a mask would have seen
    them, adapters are not looked at there; sharded weights (FSDP) cannot be looked at in passing."""
    if count() == 1:
        return
    alone = {"mask": recipe.mask, "gradient": recipe.gradient == "zero", "lora": recipe.lora}
    for key in (key for key, said in alone.items() if said):
        raise RecipeError(f"recipe {recipe.name}: {key} works on one process, found {count()}; launch one")
    if os.environ.get("ACCELERATE_USE_FSDP") == "true":
        for key in ("probe_every", "evaluate_every", "keep_every"):
            if getattr(recipe, key) is not None:
                raise RecipeError(f"recipe {recipe.name}: {key} cannot see weights that FSDP has sharded; leave it out")
    if recipe.accumulate % count():  # which divides batch_size
        raise RecipeError(
            f"recipe {recipe.name}: accumulate is {recipe.accumulate}; wanted a multiple of the {count()} processes"
        )
