"""The study, data/study.yaml: recipes repeated over seeds, each compared with a partner that differs in named lines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from opdlib.errors import RegistryError
from opdlib.files import data_root

RUNS = Path("runs/train")
"""Where the weights of a study run lie when it was run here."""


@dataclass(frozen=True)
class Arm:
    """One recipe and its seeds."""

    scale: str
    """The size of model: pico or smollm2."""
    name: str
    seeds: int
    """It runs with seeds 0 to seeds - 1."""
    partner: str | None = None
    """The arm of the same scale that it is compared with; None for the one that all are compared with."""
    differs: tuple[str, ...] = ()
    """The recipe keys in which it differs from its partner, name apart."""
    regime: str = "OPD"
    """OPD, OPSD, RLVR or offline distillation; `supervised` for training on gold answers."""

    @property
    def recipe(self) -> Path:
        """Its recipe."""
        return data_root() / "recipes" / f"{self.scale}-{self.name}.yaml"

    def key(self, seed: int) -> str:
        """The pair that the run with `seed` is: <scale>-<arm>-s<seed>."""
        return f"{self.scale}-{self.name}-s{seed}"

    @property
    def pairs(self) -> list[str]:
        """The pairs of all its seeds, in their order."""
        return [self.key(seed) for seed in range(self.seeds)]


@dataclass(frozen=True)
class Scale:
    """All arms over one source."""

    name: str
    source: str
    """Checkpoint spec, or `recipe:NAME`."""
    arms: Mapping[str, Arm]

    def source_spec(self, runs: Path = RUNS) -> str:
        """The checkpoint spec of the source, as it lies in `runs` once its recipe was run."""
        name = self.source.removeprefix("recipe:")
        return self.source if name == self.source else str(runs / f"{name}-s0" / "bf16")


@cache
def study() -> Mapping[str, Scale]:
    """All scales by name, in the order of the file. Raises RegistryError for a malformed entry."""
    file = data_root() / "study.yaml"
    content = yaml.safe_load(file.read_text(encoding="utf8"))
    return {name: _scale(name, entry) for name, entry in content.items()}


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
                return scale, arm, arm.pairs.index(key)
    return None


def _scale(name: str, entry: Any) -> Scale:
    if not isinstance(entry, dict) or set(entry) != {"source", "arms"}:
        raise RegistryError(f"study.yaml: {name}: wanted a mapping with source and arms, found {entry!r}")
    arms = {arm: _arm(name, arm, fields) for arm, fields in entry["arms"].items()}
    for arm in arms.values():
        if arm.partner is not None and arm.partner not in arms:
            raise RegistryError(f"study.yaml: {name}: {arm.name}: partner {arm.partner!r} is no arm of this scale")
    return Scale(name, entry["source"], arms)


def _arm(scale: str, name: str, fields: Any) -> Arm:
    try:
        return Arm(scale, name, **(fields | {"differs": tuple(fields.get("differs", ()))}))
    except (TypeError, AttributeError) as error:
        raise RegistryError(
            f"study.yaml: {scale}: {name}: {error}; an arm has seeds, partner, differs, regime"
        ) from None
