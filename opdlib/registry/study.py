"""The study, data/study.yaml: recipes repeated over seeds, each compared with a partner that differs in named lines."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, Field, NonNegativeInt, model_validator

from opdlib.errors import RegistryError
from opdlib.files import data_root
from opdlib.registry.entries import STRICT, checked, mapping, read_entries
from opdlib.registry.recipes import PARENT, Recipe, load_recipe
from opdlib.registry.weights import find_weights

RUNS = Path("runs/train")
"""Where the weights of study runs lie that were run here: below it as their recipes do below data/recipes."""

FULL = "opd"
"""The arm that all others are compared with."""

FOLLOWED = ("opd", "rlvr", "offline")
"""The arms whose weights are measured every few steps as well, with their first seed, as far as a scale has them."""

Regime = Literal["OPD", "OPSD", "RLVR", "offline distillation", "supervised", ""]
"""How the trained checkpoint was made; `supervised` is training on gold answers."""


def run_folder(path: Path, recipe: Recipe) -> Path:
    """Where the run of `recipe`, read from `path`, lies if nobody says: below RUNS as the recipe does below
    data/recipes, another's in RUNS itself."""
    beside, shipped = path.resolve().parent, (data_root() / "recipes").resolve()
    place = beside.relative_to(shipped) if beside.is_relative_to(shipped) else Path()
    return RUNS / place / f"{recipe.name}-s{recipe.seed}"


class Arm(BaseModel):
    """One recipe and its seeds."""

    model_config = STRICT

    scale: str
    name: str
    recipes: str
    """How the path of its recipe below data/recipes begins; what follows is -<name>.yaml."""
    seeds: Annotated[
        tuple[NonNegativeInt, ...],
        BeforeValidator(lambda seeds: tuple(range(seeds)) if isinstance(seeds, int) else seeds),
        Field(min_length=1),
    ]
    """In the file a list, or a number n for 0 to n - 1."""
    partner: str | None = None
    """The arm of the same scale that it is compared with; None for the one that all are compared with."""
    differs: tuple[str, ...] = ()
    """The recipe keys in which it differs from its partner, name apart."""
    regime: Regime = "OPD"
    priority: int | None = None
    """Lower ones are run first; an arm without one after all that have one."""

    @property
    def recipe(self) -> Path:
        return data_root() / "recipes" / f"{self.recipes}-{self.name}.yaml"

    def key(self, seed: int) -> str:
        """The pair that the run with `seed` is: <scale>-<arm>-s<seed>."""
        return f"{self.scale}-{self.name}-s{seed}"

    def folder(self, seed: int, runs: Path = RUNS) -> Path:
        """The run folder of `seed`. Other runs over the same recipes are its neighbours: those that it stands on."""
        return runs / f"{self.recipes}-{self.name}-s{seed}"

    @property
    def pairs(self) -> list[str]:
        """The pairs of all its seeds, in their order."""
        return [self.key(seed) for seed in self.seeds]


class Scale(BaseModel):
    """All arms over one source."""

    model_config = STRICT

    name: str
    source: str
    """Checkpoint spec, or `recipe:NAME`."""
    recipes: str = ""
    """Whose recipes it takes: how their paths below data/recipes begin; its own name if nothing is said."""
    apart: str = ""
    """Why its runs are not set beside those of another scale; empty: nothing is in the way."""
    arms: Mapping[str, Arm]

    @model_validator(mode="after")
    def _partnered(self) -> Scale:
        for arm in self.arms.values():
            if arm.partner is not None and arm.partner not in self.arms:
                raise ValueError(f"{arm.name}: partner {arm.partner!r} is no arm of this scale")
        return self

    @property
    def planned(self) -> list[tuple[Arm, int]]:
        """Arm and seed of every run in the order in which they are made: by priority, then seed by seed, so that every
        arm has its first early."""
        runs = [(arm, seed) for arm in self.arms.values() for seed in arm.seeds]
        return sorted(runs, key=lambda run: (math.inf if run[0].priority is None else run[0].priority, run[1]))

    def source_spec(self, runs: Path = RUNS) -> str:
        """The checkpoint spec of the source; of a trained one as it lies in `runs`, or else travels with opdlib."""
        name = self.source.removeprefix(PARENT)
        if name == self.source:
            return self.source
        beside = Path(self.recipes or self.name).with_name(name)
        here = runs / beside.with_name(f"{name}-s0") / "bf16"
        known = None if here.is_dir() else find_weights(load_recipe(data_root() / "recipes" / f"{beside}.yaml"))
        return known.spec if known else str(here)


@cache
def study() -> Mapping[str, Scale]:
    """All scales by name, in the order of the file. Raises RegistryError for a malformed entry."""
    return {name: _scale(name, entry) for name, entry in read_entries("study.yaml").items()}


def find_scale(name: str) -> Scale:
    """The scale with this name. Raises RegistryError that lists the known ones."""
    if name not in study():
        raise RegistryError(f"no scale {name!r} in study.yaml; choose one of: {', '.join(study())}")
    return study()[name]


def find_run(key: str) -> tuple[Scale, Arm, int] | None:
    """Scale, arm and seed of the pair `key`, or None if it is no run of the study."""
    for scale in study().values():
        for arm in scale.arms.values():
            if key in arm.pairs:
                return scale, arm, arm.seeds[arm.pairs.index(key)]
    return None


def _scale(name: str, content: object) -> Scale:
    place = f"study.yaml: {name}"
    entry = mapping(content, place)
    prefix = entry.get("recipes") or name
    arms = {
        arm: checked(Arm, fields, f"{place}: {arm}", scale=name, name=arm, recipes=prefix)
        for arm, fields in mapping(entry.get("arms"), f"{place}: arms").items()
    }
    return checked(Scale, entry | {"arms": arms}, place, name=name)
