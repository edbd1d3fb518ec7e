"""Runs of the study that have no rows in its tables yet. No torch."""

from collections.abc import Sequence
from pathlib import Path

from opdlib.errors import RegistryError
from opdlib.registry.study import FOLLOWED, Scale
from opdlib.results.study import StudyResults


def missing(scale: Scale, out: Path, arms: Sequence[str] = (), seeds: Sequence[int] = ()) -> list[tuple[str, int]]:
    """Arm and seed of every run without a row in the tables of `out`, in the order of `Scale.planned`.

    `arms` and `seeds` choose (`chosen`).
    """
    there = StudyResults(scale.name, out / scale.name)
    return [(arm, seed) for arm, seed in chosen(scale, arms, seeds) if not there.has(arm, seed)]


def missing_along(
    scale: Scale, out: Path, arms: Sequence[str] = (), seeds: Sequence[int] = ()
) -> list[tuple[str, int]]:
    """The same of `along`; empty: the arms `opdlib.registry.study.FOLLOWED`, the first seed of each."""
    there = StudyResults(scale.name, out / scale.name).along
    done = {*zip(there["arm"], there["seed"], strict=True)}
    those = chosen(scale, arms or [arm for arm in FOLLOWED if arm in scale.arms], seeds)
    return [(arm, s) for arm, s in those if (seeds or s == scale.arms[arm].seeds[0]) and (arm, s) not in done]


def chosen(scale: Scale, arms: Sequence[str] = (), seeds: Sequence[int] = ()) -> list[tuple[str, int]]:
    """Arm and seed of the runs with these arms and seeds, in the order of `Scale.planned`; empty: with all. Raises
    RegistryError for an arm that the scale does not have, and for a seed that none of these arms has."""
    if unknown := set(arms) - set(scale.arms):
        raise RegistryError(f"scale {scale.name}: no arm {min(unknown)!r}; choose among: {', '.join(scale.arms)}")
    there = [(arm.name, seed) for arm, seed in scale.planned if not arms or arm.name in arms]
    if strange := set(seeds) - {seed for _, seed in there}:
        known = ", ".join(map(str, sorted({seed for _, seed in there})))
        raise RegistryError(f"scale {scale.name}: no run with seed {min(strange)}; choose among: {known}")
    return [(arm, seed) for arm, seed in there if not seeds or seed in seeds]
