"""The 2 x 2 of matched arms: who samples, and which loss. Everything else is equal.

Tables of runs are those of `opdlib.tables.study`.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from opdlib.quantities import find, quantity
from opdlib.registry.recipes import load_recipe
from opdlib.registry.study import FULL, find_scale, study
from opdlib.stats import LEVEL, holm, student
from opdlib.tables.study import OTHER, runs

CORNERS: Mapping[str, tuple[str, str]] = {
    "opd": ("student", "reverse KL"),
    "opd-ce": ("student", "cross-entropy"),
    "offline-rkl": ("teacher", "reverse KL"),
    "offline": ("teacher", "cross-entropy"),
}
"""Arm -> who samples, and the loss."""
LONG = "offline-long"
"""Offline distillation as the paper's contrast has it: long, and at a high rate."""
FASTER = ("adamw-1e-4", "offline-1e-4")
"""OPD and offline distillation at ten times their rate."""
ARITHMETIC = ("opd-native", "opd-bf16", "opd-any-x86")
"""OPD computed otherwise: nothing else of the recipe differs."""
REGIMES = ("opd-fkl", "opd-jsd", "opd-topk", "opd-k1", "opsd", "rlvr", "sft")
"""The other ways to train, each matched with OPD in all lines but those that make it what it is."""
DRAWN = (
    *("rel_norm", "exact_zero", "sparsity.1e-05", "svd_energy.16", "stable_rank", "projection.joint.0.1"),
    *("coverage.principal.0.1", "coverage.low.0.1"),
)
"""The numbers that are compared: the columns of the paper's Table 2, bit-equal weights, and the joint projection."""
BESIDE = {key: beside for key in DRAWN if find(beside := quantity(key).ceiling or quantity(key).chance)}
"""Number -> the key of what belongs beside it: the ceiling, or chance."""


def design(scale: str) -> pd.DataFrame:
    """One row a corner that the scale has: the lines of its recipe that all have in common, learning_rate, schedule,
    batch_size, steps and max_new_tokens. The index is the arm."""
    lines = ["learning_rate", "schedule", "batch_size", "steps", "max_new_tokens"]
    recipes = {name: load_recipe(find_scale(scale).arms[name].recipe) for name in arms_of(scale, CORNERS)}
    rows = [[getattr(recipe, line) for line in lines] for recipe in recipes.values()]
    return pd.DataFrame(rows, index=[*recipes], columns=lines)


def arms_of(scale: str, arms: Iterable[str]) -> list[str]:
    """Those of `arms` that the scale has."""
    return [arm for arm in arms if arm in find_scale(scale).arms]


def same_source(scale: str) -> list[str]:
    """The scales over the source of this one, itself included: the same recipes, computed otherwise."""
    return [name for name, other in study().items() if other.source_spec() == find_scale(scale).source_spec()]


def computed_otherwise(scale: str, root: Path | None = None) -> pd.DataFrame:
    """Runs, view bf16, of every arm that was computed in two ways: in two scales over one source, or by an arm of
    `ARITHMETIC` beside OPD. The column arm is `ARM, SCALE`, and the rows of an arm stand together."""
    tables = [runs(name, root=root).assign(scale=name) for name in same_source(scale)]
    known = pd.concat(tables, ignore_index=True)
    ways = known.groupby("arm")["scale"].nunique()
    several = [arm for arm in dict.fromkeys(known["arm"]) if ways[arm] > 1]
    otherwise = [arm for arm in ARITHMETIC if arm in ways]
    order = [*dict.fromkeys([*([FULL] if otherwise else []), *otherwise, *several])]
    own = known[known["arm"].isin(order)].sort_values("arm", key=lambda arm: arm.map(order.index), kind="stable")
    return own.assign(arm=own["arm"] + ", " + own["scale"]).reset_index(drop=True)


def present(table: pd.DataFrame, quantities: Sequence[str]) -> list[str]:
    """Those of `quantities` that the table has as columns: none where there are no runs."""
    return [key for key in quantities if key in table]


def after_holm(table: pd.DataFrame) -> pd.Series:
    """Which rows of a table of differences are `OTHER` and stay so when p is corrected by Holm for all of its tests."""
    rows = table[["seeds", "difference", "low", "high"]].astype(float)
    p = pd.Series([_p_of_interval(*row) for row in rows.itertuples(index=False)], table.index, dtype=float)
    return (table["verdict"] == OTHER) & (holm(p) < LEVEL)


def _p_of_interval(seeds: float, center: float, low: float, high: float) -> float:
    """The p value that belongs to a Student's interval over seeds; 0 of one without width beside 0."""
    if math.isnan(low):
        return math.nan
    if low == high:
        return float(center == 0)
    unit = student(0.0, 1.0, int(seeds) - 1)[2]
    return float(student(center, ((high - low) / 2 / unit) ** 2, int(seeds) - 1)[3])
