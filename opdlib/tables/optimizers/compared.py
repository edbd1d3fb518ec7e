"""Arms compared over seeds: each with `opd`, AdamW with SGD at all rates, momentum on and off, equal norms.

`runs` is a table of `study.runs` with the columns of `optimizers.labelled`. Differences are taken seed by seed.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from opdlib.registry.study import FULL
from opdlib.stats import holm, p_value
from opdlib.tables import study

GAIN = {"rmsprop": 1.0, "sgd": 1 / (1 - 0.9)}
"""Optimizer without momentum -> how much further the same gradient, repeated, carries with momentum 0.9 at one rate."""
WITH = {"rmsprop": "adamw", "sgd": "sgdm"}
"""Optimizer without momentum -> the same with it."""


AGAINST = ["seeds", "difference", "low", "high", "verdict"]


def against(runs: pd.DataFrame, arm: str, other: str) -> dict[str, Any]:
    """The accuracy of `arm` minus that of `other`, seed by seed: `AGAINST`, by the rule of the study."""
    span = study.seed_range(runs[runs["arm"] == FULL]["accuracy"])
    found = study.judged(study.paired(runs, arm, other), span)
    return {name: found[name] for name in AGAINST}


def paired(runs: pd.DataFrame) -> pd.DataFrame:
    """Every other arm minus `opd` in accuracy: the columns of `study.differences`, and p and holm.

    p: two-sided, of Student's paired test; NaN of fewer than two seeds, or if all differences are equal. holm: the same
    corrected by Holm for the number of tests in the table.
    """
    there = dict.fromkeys(runs["arm"])
    others = [arm for arm in there if arm != FULL and FULL in there]
    table = study.differences(runs, others, ["accuracy"])
    table["p"] = [p_value(study.paired(runs, arm, FULL)) for arm in table["arm"]]
    return table.assign(holm=holm(table["p"].astype(float)))


def momentum(runs: pd.DataFrame) -> pd.DataFrame:
    """The accuracy of an optimizer with momentum minus that without, at matching rates.

    AdamW and RMSProp match at one rate. SGD with momentum 0.9 goes ten times as far with a gradient that stays the
    same, so it matches SGD at ten times its rate. Columns: with, without (arms), kind (optimizer without momentum),
    seeds, difference, low, high. Pairs of which an arm has no runs are left out.
    """
    arms = list(runs.drop_duplicates("arm")[["arm", "optimizer", "learning_rate"]].itertuples(index=False, name=None))
    rows = []
    for arm, optimizer, rate in arms:
        for partner, other, other_rate in arms:
            if other == WITH.get(optimizer) and math.isclose(other_rate * GAIN[optimizer], rate, rel_tol=1e-6):
                row = {"with": partner, "without": arm, "kind": optimizer}
                rows.append(row | study.summed(study.paired(runs, partner, arm), "difference"))
    return pd.DataFrame(rows, columns=["with", "without", "kind", *AGAINST[:-1]])


def grid(runs: pd.DataFrame, first: str = "adamw", second: str = "sgd") -> pd.DataFrame:
    """Every rate of one optimizer minus every rate of another, in accuracy: first and second (arms), and `AGAINST`."""
    ones, twos = (dict.fromkeys(runs[runs["optimizer"] == optimizer]["arm"]) for optimizer in (first, second))
    rows = [{"first": a, "second": b} | against(runs, a, b) for a, b in itertools.product(ones, twos)]
    return pd.DataFrame(rows, columns=["first", "second", *AGAINST])


def beside_adamw(paths: pd.DataFrame, quantities: Sequence[str]) -> pd.DataFrame:
    """Each run of another optimizer at its end, minus AdamW when it was at the same relative norm, seed by seed.

    `paths` is that of `optimizers.paths`, labelled. The measured steps of all AdamW rates of a seed are taken together,
    and a number is linear in the logarithm of the norm between two of them. Columns: arm, quantity, seeds, value, low,
    high; a run whose norm AdamW never had is not counted.
    """
    adamw = paths[paths["optimizer"] == "adamw"].assign(arm="adamw")
    ends = paths[paths["optimizer"] != "adamw"].sort_values("step").groupby(["arm", "seed"], sort=False).last()
    rows = []
    for arm in [a for a in dict.fromkeys(paths["arm"]) if a in ends.index]:
        own = ends.loc[arm]
        theirs = study.at_norm(adamw, own["rel_norm"], quantities).set_index("seed") if len(adamw) else own.iloc[:0]
        rows += [{"arm": arm, "seed": seed} | dict(row) for seed, row in (own - theirs)[[*quantities]].iterrows()]
    return study.over_seeds(pd.DataFrame(rows, columns=["arm", "seed", *quantities]), quantities)
