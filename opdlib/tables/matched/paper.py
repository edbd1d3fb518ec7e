"""The paper's contrast beside ours: how far offline distillation lies from OPD, and which part rate and length make."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from opdlib.registry.study import FULL
from opdlib.stats import mean_interval
from opdlib.tables import paper
from opdlib.tables.matched.arms import FASTER, LONG, present
from opdlib.tables.study import by_seed

DISTILL, OPD = "Qwen-Math Distill", "DS-Qwen OPD"
"""The two rows of the paper that make its contrast."""
STEPS = {"data and loss": ("offline", FULL), "rate and length": (LONG, "offline"), "all of it": (LONG, FULL)}
"""What changes -> from which arm (second) to which (first)."""
CROSSED = {
    "offline, 1e-5": ("offline", FULL),
    "offline, 1e-4": FASTER[::-1],
    "ten times the rate, OPD": (FASTER[0], FULL),
    "ten times the rate, offline": (FASTER[1], "offline"),
}
"""The same of offline distillation (the teacher's samples and cross-entropy on them) and of the rate, each at both
values of the other."""


def rows(quantities: Sequence[str]) -> pd.DataFrame:
    """One row a pair of the paper, a column a quantity that the paper has: pair, regime, then dotted keys."""
    kept = [key for key in quantities if key in set(paper.numbers()["quantity"])]
    return paper.wide(kept)[["pair", "regime", *kept]]


def factors(
    table: pd.DataFrame, quantities: Sequence[str], steps: Mapping[str, tuple[str, str]] = STEPS
) -> pd.DataFrame:
    """By what factor each step of a contrast multiplies a quantity, over seeds: geometric mean and 95% interval.

    `table` is that of `opdlib.tables.study.runs`. Columns: quantity, change (a key of `steps`, or `paper`), seeds,
    value, low, high (all > 0; NaN where a number is zero or undefined, low and high also of a single seed). In the rows
    `paper`, value is Distill over DS-Qwen OPD, low and high the span over its six OPD-style pairs, seeds 0.
    """
    arms = [*dict.fromkeys(arm for step in steps.values() for arm in step)]
    reported = rows(quantities).set_index("pair").dropna(axis="columns", subset=[DISTILL])
    style = reported[reported["regime"].isin(paper.OPD_STYLE)]
    found = []
    for key in present(table, quantities):
        wide = by_seed(table, key, arms)
        for change, (after, before) in steps.items():
            ratios = wide[after] / wide[before]
            logs = ratios[(ratios > 0) & np.isfinite(ratios)].map(math.log)
            found.append([key, change, len(logs), *map(math.exp, mean_interval(logs))])
        if key in reported:
            whole, span = reported[key][DISTILL] / reported[key][OPD], reported[key][DISTILL] / style[key]
            found.append([key, "paper", 0, whole, span.min(), span.max()])
    return pd.DataFrame(found, columns=["quantity", "change", "seeds", "value", "low", "high"])


def part_of_rate(table: pd.DataFrame, whole: str = "all of it") -> pd.Series:
    """The part of a whole contrast that rate and length make, on a logarithmic scale, by quantity.

    `table` is that of `factors`, `whole` one of its changes: `all of it` is our contrast, `paper` the paper's. 1: all
    of it; below 0: the other way; NaN where one of the two is not there or the whole is no change.
    """
    logs = {change: own.set_index("quantity")["value"].map(math.log) for change, own in table.groupby("change")}
    quantities = table["quantity"].drop_duplicates()
    rate, all_of_it = (logs.get(key, pd.Series(dtype=float)).reindex(quantities) for key in ("rate and length", whole))
    return rate / all_of_it.where(all_of_it.abs() > 1e-12)
