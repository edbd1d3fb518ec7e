"""The 2 x 2 of matched arms: who samples, and which loss. Everything else is equal.

Tables of runs are those of `opdlib.tables.study`. An effect is a weighted sum of the four arms, taken seed by seed, so
that what the arms of one seed share (the problems, their order) drops out of it. Its verdict follows the rule there,
with OPD's own range from seed to seed as the measure.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from operator import add

import pandas as pd

from opdlib.quantities import find, quantity
from opdlib.registry.recipes import load_recipe
from opdlib.registry.study import FULL, find_scale
from opdlib.results.flat import is_headline
from opdlib.results.study import COUNTS
from opdlib.stats import LEVEL, holm, student
from opdlib.tables.study import OTHER, SAME, UNDECIDED, by_seed, differences, judged, seed_range

CORNERS: Mapping[str, tuple[str, str]] = {
    "opd": ("student", "reverse KL"),
    "opd-ce": ("student", "cross-entropy"),
    "offline-rkl": ("teacher", "reverse KL"),
    "offline": ("teacher", "cross-entropy"),
}
"""Arm -> who samples, and the loss."""
LONG = "offline-long"
"""Offline distillation as the paper's contrast has it: long, and at a high rate."""
REGIMES = ("opd-fkl", "opd-jsd", "opd-topk", "opd-k1", "opsd", "rlvr", "sft")
"""The other ways to train, each matched with OPD in all lines but those that make it what it is."""

EFFECTS: Mapping[str, Mapping[str, float]] = {
    "data, under reverse KL": {"offline-rkl": 1, "opd": -1},
    "data, under cross-entropy": {"offline": 1, "opd-ce": -1},
    "data": {"offline-rkl": 0.5, "offline": 0.5, "opd": -0.5, "opd-ce": -0.5},
    "loss, on student samples": {"opd-ce": 1, "opd": -1},
    "loss, on teacher samples": {"offline": 1, "offline-rkl": -1},
    "loss": {"opd-ce": 0.5, "offline": 0.5, "opd": -0.5, "offline-rkl": -0.5},
    "interaction": {"offline": 1, "opd-ce": -1, "offline-rkl": -1, "opd": 1},
}
"""Effect -> the weight of each arm. Data: teacher's samples minus student's. Loss: cross-entropy minus reverse KL."""
MAIN = ("data", "loss", "interaction")

HEADLINE = (
    *("rel_norm", "exact_zero", "sparsity.1e-05", "top_energy.0.01"),
    *("svd_energy.1", "svd_energy.8", "svd_energy.16", "stable_rank", "effective_rank", "rank_share.1e-05"),
    *("projection.joint.0.1", "projection.left.0.1", "projection.right.0.1", "rotation.0.1", "spectral_drift"),
    *("coverage.principal.0.1", "coverage.low.0.1", "blocks.mlp.rel_norm", "blocks.attention.rel_norm"),
)
"""The numbers of the main tables: those of the paper's tables, and what it defines beside them."""
BESIDE = {key: beside for key in HEADLINE if find(beside := quantity(key).ceiling or quantity(key).chance)}
"""Number -> the key of what belongs beside it: the ceiling, or chance."""
DRAWN = (
    *("rel_norm", "sparsity.1e-05", "svd_energy.16", "stable_rank", "projection.joint.0.1"),
    *("coverage.principal.0.1", "coverage.low.0.1"),
)
"""The numbers of the figures: the columns of the paper's Table 2, and the joint projection."""


def design(scale: str) -> pd.DataFrame:
    """One row a corner that the scale has: arm, samples, loss, line (in which its recipe differs from OPD's), seeds,
    and the lines that are equal: learning_rate, schedule, batch_size, steps, max_new_tokens."""
    shared = ("learning_rate", "schedule", "batch_size", "steps", "max_new_tokens")
    rows = []
    for arm in (find_scale(scale).arms[name] for name in arms_of(scale, CORNERS)):
        recipe = load_recipe(arm.recipe).model_dump()
        own = "; ".join(f"{line}: {recipe[line]}" for line in arm.differs or ("objective",))
        rows.append([arm.name, *CORNERS[arm.name], own, len(arm.seeds), *(recipe[line] for line in shared)])
    return pd.DataFrame(rows, columns=["arm", "samples", "loss", "line", "seeds", *shared])


def arms_of(scale: str, arms: Iterable[str]) -> list[str]:
    """Those of `arms` that the scale has."""
    return [arm for arm in arms if arm in find_scale(scale).arms]


def numbers(table: pd.DataFrame) -> list[str]:
    """The numbers of the summary in a table of runs, in their order, without counts."""
    return [key for key in map(str, table) if is_headline(key) and key.rpartition(".")[2] not in COUNTS]


def present(table: pd.DataFrame, quantities: Sequence[str]) -> list[str]:
    """Those of `quantities` that the table has as columns: none where there are no runs."""
    return [key for key in quantities if key in table]


def tested(table: pd.DataFrame) -> list[str]:
    """Those of `numbers` that say something of their own: left out is what is the same in every run (chance, which
    depends on the source alone), and what equals an earlier number in every run."""
    own = table[numbers(table)]
    return [*own.loc[:, own.max() > own.min()].T.drop_duplicates().index]


def against_opd(table: pd.DataFrame, arms: Sequence[str], quantities: Sequence[str]) -> pd.DataFrame:
    """`opdlib.tables.study.differences` from OPD, for the quantities that the table has."""
    return differences(table, arms, present(table, quantities))


def differing(table: pd.DataFrame) -> pd.DataFrame:
    """A table of differences without the numbers that are equal in all runs that it compares."""
    return table[~((table["difference"] == 0) & (table["low"] == table["high"]))].reset_index(drop=True)


def effects(table: pd.DataFrame, quantities: Sequence[str]) -> pd.DataFrame:
    """Effects of data and loss and their interaction, over the seeds that all arms of the effect have.

    Columns: effect, quantity, seeds, value, low, high (in units of the quantity; NaN of no or a single seed), share
    (value over OPD's mean), range (of OPD over seeds), verdict.
    """
    rows = []
    for name, weights in EFFECTS.items():
        for key in present(table, quantities):
            wide = by_seed(table, key, CORNERS)
            own = reduce(add, (weight * wide[arm] for arm, weight in weights.items())).dropna()
            found, usual = judged(own, seed_range(wide[FULL]), "value"), float(wide[FULL].mean())
            rows.append({"effect": name, "quantity": key, **found, "share": found["value"] / (usual or math.nan)})
    columns = ["effect", "quantity", "seeds", "value", "low", "high", "share", "range", "verdict"]
    return pd.DataFrame(rows, columns=columns)


def counted(table: pd.DataFrame) -> pd.DataFrame:
    """One row an arm of a table of differences: arm, seeds (the fewest of its quantities), tested (differences with an
    interval), the three verdicts, by_chance and after_holm.

    by_chance: how many intervals would exclude 0 if no number differed, LEVEL * tested; an upper bound for `OTHER`, as
    an interval within OPD's range is none even if it excludes 0. after_holm: how many of `OTHER` are left if p values
    are corrected by Holm for all tests of the table.
    """
    words = (SAME, OTHER, UNDECIDED)
    found = table.assign(tested=table["low"].notna(), after_holm=after_holm(table))
    found = found.assign(**{word: table["verdict"] == word for word in words})
    wanted = dict.fromkeys(("tested", *words, "after_holm"), "sum")
    sums = found.groupby("arm", sort=False).agg({"seeds": "min"} | wanted)
    sums.insert(5, "by_chance", LEVEL * sums["tested"])
    return sums.reset_index()


def after_holm(table: pd.DataFrame, value: str = "difference") -> pd.Series:
    """Which rows of a table of differences are `OTHER` and stay so when p is corrected by Holm for all of its tests."""
    rows = table[["seeds", value, "low", "high"]].astype(float)
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
