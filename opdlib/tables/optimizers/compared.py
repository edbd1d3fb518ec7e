"""Arms compared over seeds: each with `opd`, AdamW with SGD at all rates, momentum on and off, each at its best rate.

`runs` is a table of `study.runs`, labelled, `arms` that of `sweep`. Differences are taken seed by seed.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from opdlib.registry.study import FULL
from opdlib.stats import holm, p_value
from opdlib.tables import study
from opdlib.tables.optimizers.sweep import LABELS

GAIN = {"rmsprop": 1.0, "sgd": 1 / (1 - 0.9)}
"""Optimizer without momentum -> how much further the same gradient, repeated, carries with momentum 0.9 at one rate."""
WITH = {"rmsprop": "adamw", "sgd": "sgdm"}
"""Optimizer without momentum -> the same with it: their rates correspond one to one."""
PAIRS = {
    ("adamw", "sgd"): "both, against neither",
    ("adamw", "sgdm"): "scaling, where there is momentum",
    ("rmsprop", "sgd"): "scaling, where there is no momentum",
    ("adamw", "rmsprop"): "momentum, where there is scaling",
    ("sgdm", "sgd"): "momentum, where there is no scaling",
}
"""Optimizers that are set against each other, and what the first has and the second lacks."""
BEST = ["optimizer", "rates", "swept", "arm", "learning_rate", "seeds", "accuracy", "low", "high", "edge", "unseen"]
AGAINST = ["seeds", "difference", "low", "high", "range", "verdict"]


def against(runs: pd.DataFrame, arm: str, other: str) -> dict[str, Any]:
    """The accuracy of `arm` minus that of `other`, seed by seed: `AGAINST`, by the rule of the study."""
    return study.judged(study.paired(runs, arm, other), study.seed_range(runs.loc[runs["arm"] == FULL, "accuracy"]))


def paired(runs: pd.DataFrame) -> pd.DataFrame:
    """Every other arm minus `opd` in accuracy: the columns of `study.differences`, and p and holm.

    p: two-sided, of Student's paired test; NaN of fewer than two seeds, or if all differences are equal. holm: the same
    corrected by Holm for the number of tests in the table.
    """
    there = dict.fromkeys(runs["arm"])
    table = study.differences(runs, [arm for arm in there if arm != FULL and FULL in there], ["accuracy"])
    table["p"] = [p_value(study.paired(runs, arm, FULL)) for arm in table["arm"]]
    return table.assign(holm=holm(table["p"].astype(float)))


def momentum(runs: pd.DataFrame) -> pd.DataFrame:
    """The accuracy of an optimizer with momentum minus that without, at matching rates.

    AdamW and RMSProp match at one rate. SGD with momentum 0.9 goes ten times as far with a gradient that stays the
    same, so it matches SGD at ten times its rate. Columns: with, without (arms), kind (optimizer without momentum),
    seeds, difference, low, high. Pairs of which an arm has no runs are left out.
    """
    arms = list(runs[LABELS].drop_duplicates().itertuples(index=False, name=None))
    rows = [
        {"with": partner, "without": arm, "kind": kind} | study.summed(study.paired(runs, partner, arm), "difference")
        for (arm, kind, rate), (partner, other, its_rate) in itertools.product(arms, arms)
        if other == WITH.get(kind) and math.isclose(its_rate * GAIN[kind], rate, rel_tol=1e-6)
    ]
    return pd.DataFrame(rows, columns=["with", "without", "kind", *AGAINST[:4]])


def grid(runs: pd.DataFrame, first: str = "adamw", second: str = "sgd") -> pd.DataFrame:
    """Every rate of one optimizer minus every rate of another, in accuracy: first and second (arms), and `AGAINST`."""
    ones, twos = (dict.fromkeys(runs[runs["optimizer"] == optimizer]["arm"]) for optimizer in (first, second))
    rows = [{"first": a, "second": b} | against(runs, a, b) for a, b in itertools.product(ones, twos)]
    return pd.DataFrame(rows, columns=["first", "second", *AGAINST])


def beside_adamw(paths: pd.DataFrame, quantities: Sequence[str]) -> pd.DataFrame:
    """Each run of another optimizer at its end, minus AdamW when it was at the same relative norm, seed by seed.

    `paths` is that of `sweep`. The measured steps of all AdamW rates of a seed are taken together, and a number is
    linear in the logarithm of the norm between two of them. Columns: arm, optimizer, quantity, seeds, value, low, high;
    a run whose norm AdamW never had is not counted.
    """
    adamw = paths[paths["optimizer"] == "adamw"].assign(arm="adamw")
    ends = paths[paths["optimizer"] != "adamw"].groupby(["arm", "optimizer", "seed"], sort=False).last()
    rows = []
    for (arm, optimizer), own in ends.groupby(["arm", "optimizer"], sort=False):
        own = own.droplevel(["arm", "optimizer"])
        theirs = study.at_norm(adamw, own["rel_norm"], quantities).set_index("seed") if len(adamw) else own.iloc[:0]
        rows.append((own - theirs)[[*quantities]].assign(arm=str(arm), optimizer=str(optimizer)))
    table = pd.concat(rows) if rows else ends.reset_index()
    return study.over_seeds(table, quantities, by=["arm", "optimizer"])


def best(runs: pd.DataFrame, arms: pd.DataFrame) -> pd.DataFrame:
    """Each optimizer at the rate with the highest mean accuracy.

    Columns: optimizer, rates (that have runs), swept (that are planned), arm, learning_rate, seeds, accuracy, low,
    high, edge (`low` or `high` if the best rate is the smallest or largest with runs, else empty: beyond an edge there
    may be a better one), unseen (mean accuracy when the rate is chosen, for each seed, by the other seeds; NaN of fewer
    than two). Optimizers without runs have no row.
    """
    swept, rows = arms[arms["gradient"] != "zero"]["optimizer"].value_counts(), []
    for optimizer, own in runs.groupby("optimizer", sort=False):
        means = own.groupby("learning_rate")["accuracy"].mean()
        rates, rate = list(means.index), means.idxmax()
        chosen = own[own["learning_rate"] == rate]
        edge = {rates[0]: "low", rates[-1]: "high"}.get(rate, "") if len(rates) > 1 else ""
        found = [len(rates), swept[optimizer], chosen["arm"].iloc[0], rate, *study.summed(chosen["accuracy"]).values()]
        rows.append([optimizer, *found, edge, _unseen(own)])
    return pd.DataFrame(rows, columns=BEST)


def best_pairs(runs: pd.DataFrame, arms: pd.DataFrame) -> pd.DataFrame:
    """Optimizers against each other, each at its best rate, for the pairs of `PAIRS` that both have runs.

    Columns: first, second (optimizers), arm, other, what (the question), matched (only over rates that both have), and
    `AGAINST`. The verdict is that of `study.verdict` with the range over the seeds of `opd`, except at the edge of a
    sweep: where rates are not matched, it is `undecided` if the loser's best rate is at an edge, or either's when they
    are the same.
    """
    steps, rows = momentum(runs), []
    for (first, second), what in PAIRS.items():
        matched = WITH.get(second) == first
        same_rates = steps[steps["kind"] == second]
        common = runs["arm"].isin([*same_rates["with"], *same_rates["without"]]) | (not matched)
        chosen = best(runs[common & runs["optimizer"].isin([first, second])], arms).set_index("optimizer")
        if len(chosen) == 2:
            arm, other = chosen.loc[[first, second], "arm"]
            row = against(runs, arm, other)
            losers = {study.SAME: [first, second], study.OTHER: [second if row["difference"] > 0 else first]}
            if not matched and (chosen.loc[losers.get(row["verdict"], []), "edge"] != "").any():
                row["verdict"] = study.UNDECIDED
            rows.append([first, second, arm, other, what, matched, *row.values()])
    return pd.DataFrame(rows, columns=["first", "second", "arm", "other", "what", "matched", *AGAINST])


def _unseen(own: pd.DataFrame) -> float:
    """Mean over seeds of the accuracy at the rate that is best on all other seeds, of rates that have them all."""
    table = study.by_seed(own, "accuracy", dict.fromkeys(own["arm"])).dropna(axis="columns").to_numpy()
    if len(table) < 2 or table.shape[1] == 0:
        return math.nan
    return float(np.mean([table[seed, np.delete(table, seed, 0).mean(0).argmax()] for seed in range(len(table))]))
