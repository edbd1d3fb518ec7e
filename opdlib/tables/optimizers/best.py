"""Each optimizer at its best rate, and the best of one against the best of another.

`runs` is a table of `study.runs` with the columns of `optimizers.labelled`, `arms` that of `optimizers.sweep`.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from opdlib.tables import study
from opdlib.tables.optimizers.compared import AGAINST, against, momentum
from opdlib.tables.optimizers.sweep import OPTIMIZERS

PAIRS = {
    ("adamw", "sgd"): "both, against neither",
    ("adamw", "sgdm"): "scaling, where there is momentum",
    ("rmsprop", "sgd"): "scaling, where there is no momentum",
    ("adamw", "rmsprop"): "momentum, where there is scaling",
    ("sgdm", "sgd"): "momentum, where there is no scaling",
}
"""Optimizers that are set against each other, and what the first has and the second lacks."""
MATCHED = {("adamw", "rmsprop"), ("sgdm", "sgd")}
"""Pairs whose rates correspond one to one (`compared.momentum`): only rates that both have are compared."""


def best(runs: pd.DataFrame, arms: pd.DataFrame) -> pd.DataFrame:
    """Each optimizer at the rate with the highest mean accuracy.

    Columns: optimizer, rates (that have runs), swept (that are planned), arm, learning_rate, seeds, accuracy, low,
    high, edge (`low` or `high` if the best rate is the smallest or largest with runs, else empty: beyond an edge there
    may be a better one), unseen (mean accuracy when the rate is chosen, for each seed, by the other seeds; NaN of fewer
    than two). Optimizers without runs have no row.
    """
    rows = []
    for optimizer in [o for o in OPTIMIZERS if o in set(runs["optimizer"])]:
        own = runs[runs["optimizer"] == optimizer]
        means = own.groupby("learning_rate")["accuracy"].mean().reset_index()
        rates = list(means["learning_rate"])
        rate = rates[int(np.argmax(means["accuracy"]))]
        chosen = own[own["learning_rate"] == rate]
        edge = "" if len(rates) == 1 else {rates[0]: "low", rates[-1]: "high"}.get(rate, "")
        rows.append(
            {
                "optimizer": optimizer,
                "rates": len(rates),
                "swept": int(((arms["optimizer"] == optimizer) & (arms["gradient"] != "zero")).sum()),
                "arm": chosen["arm"].iloc[0],
                "learning_rate": rate,
                **study.summed(chosen["accuracy"], "accuracy"),
                "edge": edge,
                "unseen": _unseen(own),
            }
        )
    return pd.DataFrame(rows, columns=None if rows else ["optimizer", "arm", "learning_rate", "accuracy"])


def best_pairs(runs: pd.DataFrame, arms: pd.DataFrame) -> pd.DataFrame:
    """Optimizers against each other, each at its best rate, for the pairs of `PAIRS` that both have runs.

    Columns: first, second (optimizers), arm, other, what (the question), matched (only over rates that both have),
    seeds, difference (accuracy of the first minus that of the second), low, high, verdict.

    The verdict is that of `study.verdict` with the range over the seeds of `opd`, except at the edge of a sweep: where
    rates are not matched, it is `undecided` if the loser's best rate is at an edge, or either's when they are the same.
    """
    steps = momentum(runs)
    rows = []
    for (first, second), what in PAIRS.items():
        matched = (first, second) in MATCHED
        same_rates = steps[steps["kind"] == second]
        common = runs["arm"].isin([*same_rates["with"], *same_rates["without"]]) | (not matched)
        own = runs[common & runs["optimizer"].isin([first, second])]
        chosen = best(own, arms).set_index("optimizer")
        if len(chosen) == 2:
            ours, theirs = chosen.loc[first], chosen.loc[second]
            row = against(runs, str(ours["arm"]), str(theirs["arm"]))
            losers = {study.SAME: [ours, theirs], study.OTHER: [theirs if row["difference"] > 0 else ours]}
            if not matched and any(loser["edge"] for loser in losers.get(row["verdict"], [])):
                row["verdict"] = study.UNDECIDED
            told = {"first": first, "second": second, "arm": ours["arm"], "other": theirs["arm"], "what": what}
            rows.append(told | {"matched": matched} | row)
    return pd.DataFrame(rows, columns=["first", "second", "arm", "other", "what", "matched", *AGAINST])


def _unseen(own: pd.DataFrame) -> float:
    """Mean over seeds of the accuracy at the rate that is best on all other seeds, of rates that have them all."""
    table = own.pivot_table(index="seed", columns="learning_rate", values="accuracy").dropna(axis="columns")
    if len(table) < 2 or table.shape[1] == 0:
        return math.nan
    return float(np.mean([table.loc[seed, table.drop(index=seed).mean().idxmax()] for seed in table.index]))
