"""Weights that travel, data/weights.yaml: of runs that others start from or are taught by.

Training a parent again takes longer than most runs that stand on it, and where kernels are native it ends at other bits
on another kind of CPU.
"""

from collections.abc import Mapping
from functools import cache
from pathlib import Path

from pydantic import BaseModel

from opdlib.files import find
from opdlib.registry.entries import STRICT, checked, read_entries
from opdlib.registry.recipes import Recipe, recipe_digest


class Weights(BaseModel):
    """The trained checkpoint of one run, rounded to bf16."""

    model_config = STRICT

    run: str
    """<recipe>-s<seed>."""
    recipe: str
    """`recipe_digest` of what made it; another recipe of that name does not get these weights."""
    checkpoint: str
    """Checkpoint spec; a path begins at the folder that holds data/."""
    digest: str
    """`Checkpoint.digest` of the weights."""

    @property
    def file(self) -> Path:
        """Where the checkpoint lies, if it is here."""
        return find(Path(self.checkpoint.removeprefix("patch:")))

    @property
    def spec(self) -> str:
        """What `opdlib.checkpoints.open_checkpoint` takes, in any working directory."""
        return self.checkpoint if self.checkpoint.startswith("patch:") else str(self.file)


@cache
def weights() -> Mapping[str, Weights]:
    """All entries by run. Raises RegistryError for a malformed one."""
    entries = read_entries("weights.yaml")
    return {run: checked(Weights, entry, f"weights.yaml: {run}", run=run) for run, entry in entries.items()}


def find_weights(recipe: Recipe) -> Weights | None:
    """The weights of this very recipe, seed included; None where none travel with this installation."""
    found = weights().get(f"{recipe.name}-s{recipe.seed}")
    return found if found and found.recipe == recipe_digest(recipe) and found.file.exists() else None
