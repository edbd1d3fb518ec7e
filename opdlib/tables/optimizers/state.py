"""The state of AdamW along a run: momentum cosine and variation of sqrt(v), their nulls, and the paper's numbers."""

import math
from collections.abc import Mapping

import pandas as pd

from opdlib.registry.study import FULL
from opdlib.tables import study
from opdlib.tables.optimizers.sweep import published

BETA1 = 0.9
"""AdamW's share of the old momentum (opdlib.train.objectives)."""
STATES = ("momentum_cosine", "second_moment_cv")
WHEN = ("first", "mean", "last", "min")


def states(curves: pd.DataFrame) -> pd.DataFrame:
    """`STATES` of AdamW over the probes of each run: first, mean, last and smallest. `curves` are labelled.

    Columns: arm, state, quantity (one of `WHEN`), seeds, value, low, high (mean over seeds and its interval).
    """
    long = curves[curves["optimizer"] == "adamw"].melt(["arm", "seed"], [*STATES], var_name="state").dropna()
    found = long.groupby(["arm", "state", "seed"], sort=False)["value"].agg([*WHEN]).reset_index()
    return study.over_seeds(found, WHEN, by=("arm", "state"))


def unrelated_cosine(step: float, beta1: float = BETA1) -> float:
    """Cosine of m_t and g_t at a step from 1 up, if the gradients are equally long and orthogonal to each other.

    The momentum holds the gradient of its own step with weight 1 - beta1, so the cosine does not fall below
    sqrt(1 - beta1^2) unless gradients turn against those before them.
    """
    return math.sqrt((1 - beta1**2) / (1 - beta1 ** (2 * step)))


def settled_cv(first: float) -> float:
    """What the variation of sqrt(v) falls to from its first value by averaging alone.

    If the gradient of each coordinate is normal with a spread of its own that never changes, sqrt(v_1) is the absolute
    value of one draw and sqrt(v_t) tends to the spread, so 1 + first^2 = pi/2 (1 + last^2). NaN where a first value is
    too small for that.
    """
    square = 2 / math.pi * (1 + first * first) - 1
    return math.sqrt(square) if square >= 0 else math.nan


def nulls(states: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """One row for each of `STATES`, in the paper and in `opd` of each scale (name -> its `states`): state, run (`paper`
    or the scale), first, last, null (what last would be of unrelated gradients, or by averaging alone)."""
    rows = []
    for state in STATES:
        runs = {"paper": published_state(state)}
        for scale, table in states.items():
            own = table[(table["arm"] == FULL) & (table["state"] == state)]
            runs[scale] = dict(zip(own["quantity"], own["value"], strict=True))
        for run, ends in runs.items():
            if ends:
                null = unrelated_cosine(math.inf) if state == "momentum_cosine" else settled_cv(ends["first"])
                rows.append([state, run, ends["first"], ends["last"], null])
    return pd.DataFrame(rows, columns=["state", "run", "first", "last", "null"])


def published_state(state: str) -> dict[str, float]:
    """The paper's AdamW numbers of one of `STATES`, by `WHEN`; NaN where it gives none."""
    row = published().iloc[0]
    return {when: float(row.get(f"{state}_{when}", math.nan)) for when in WHEN}
