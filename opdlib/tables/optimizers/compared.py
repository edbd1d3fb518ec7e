"""Arms compared over seeds: each with `opd`, AdamW with SGD at all rates, momentum on and off, equal norms.

`runs` is a table of `study.runs` with the columns of `optimizers.labelled`. Differences are taken seed by seed.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import pandas as pd

from opdlib.stats import holm, mean_interval, p_value
from opdlib.tables import study
from opdlib.tables.optimizers.arms import BASE

GAIN = {"rmsprop": 1.0, "sgd": 1 / (1 - 0.9)}
"""Optimizer without momentum -> how much further the same gradient, repeated, carries with momentum 0.9 at one rate."""
WITH = {"rmsprop": "adamw", "sgd": "sgdm"}
"""Optimizer without momentum -> the same with it."""


def paired(runs: pd.DataFrame, quantity: str = "accuracy", partner: str = BASE) -> pd.DataFrame:
    """Every other arm minus `partner`: the columns of `study.differences`, and p and holm.

    p: two-sided, of Student's paired test; NaN of fewer than two seeds, or if all differences are equal. holm: the same
    corrected by Holm for the number of tests in the table.
    """
    others = [arm for arm in dict.fromkeys(runs["arm"]) if arm != partner]
    if partner not in set(runs["arm"]) or not others:
        return pd.DataFrame({name: [] for name in ("arm", "quantity", "seeds", "difference", "low", "high", "range")})
    table = study.differences(runs, others, [quantity], partner)
    table["p"] = [p_value(differences(runs, arm, partner, quantity)) for arm in table["arm"]]
    return table.assign(holm=holm(table["p"]))


def differences(runs: pd.DataFrame, arm: str, other: str, quantity: str) -> pd.Series:
    """`arm` minus `other`, by seed, of the seeds that both have."""
    ours, theirs = (runs[runs["arm"] == name].set_index("seed")[quantity] for name in (arm, other))
    return (ours - theirs).dropna().astype(float)


def momentum(runs: pd.DataFrame, quantity: str = "accuracy") -> pd.DataFrame:
    """The same optimizer with momentum minus without, at matching rates.

    AdamW and RMSProp match at one rate. SGD with momentum 0.9 goes ten times as far with a gradient that stays the
    same, so it matches SGD at ten times its rate. Columns: with, without (arms), kind (optimizer without momentum),
    seeds, difference, low, high. Pairs of which an arm has no runs are left out.
    """
    arms = list(runs.drop_duplicates("arm")[["arm", "optimizer", "learning_rate"]].itertuples(index=False, name=None))
    rows = []
    for arm, optimizer, rate in arms:
        for partner, other, other_rate in arms:
            if other == WITH.get(optimizer) and math.isclose(other_rate * GAIN[optimizer], rate, rel_tol=1e-6):
                found = differences(runs, partner, arm, quantity)
                value, low, high = mean_interval(found)
                row = {"with": partner, "without": arm, "kind": optimizer, "seeds": len(found)}
                rows.append(row | {"difference": value, "low": low, "high": high})
    names = ["with", "without", "kind", "seeds", "difference", "low", "high"]
    return pd.DataFrame(rows, columns=names)


def seed_range(runs: pd.DataFrame) -> float:
    """The largest minus the smallest accuracy among the seeds of `opd`; NaN without runs."""
    own = runs[runs["arm"] == BASE]["accuracy"]
    return float(own.max() - own.min())


def grid(runs: pd.DataFrame, first: str = "adamw", second: str = "sgd") -> pd.DataFrame:
    """Every rate of one optimizer minus every rate of another, in accuracy, seed by seed.

    Columns: first, second (arms), seeds, difference, low, high, verdict (of `study.verdict`, with the range of `opd`).
    """
    names = ["first", "second", "seeds", "difference", "low", "high", "verdict"]
    arms = {o: list(dict.fromkeys(runs[runs["optimizer"] == o]["arm"])) for o in (first, second)}
    rows = []
    for one, two in itertools.product(arms[first], arms[second]):
        found = differences(runs, one, two, "accuracy")
        value, low, high = mean_interval(found)
        row = {"first": one, "second": two, "seeds": len(found), "difference": value, "low": low, "high": high}
        rows.append(row | {"verdict": study.verdict(low, high, seed_range(runs))})
    return pd.DataFrame(rows, columns=names)


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
    if not rows:
        return pd.DataFrame({name: [] for name in ("arm", "quantity", "seeds", "value", "low", "high")})
    return study.over_seeds(pd.DataFrame(rows), quantities)
