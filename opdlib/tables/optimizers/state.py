"""The state of AdamW along a run: momentum cosine and variation of sqrt(v), their nulls, and the paper's numbers."""

from __future__ import annotations

import math

import pandas as pd

from opdlib.registry.study import FULL
from opdlib.tables import study
from opdlib.tables.optimizers.sweep import published
from opdlib.tables.text import seeds

BETA1 = 0.9
"""AdamW's share of the old momentum (opdlib.train.objectives)."""
STATES = ("momentum_cosine", "second_moment_cv")
WHEN = ("first", "mean", "last", "min")


def states(curves: pd.DataFrame) -> pd.DataFrame:
    """`momentum_cosine` and `second_moment_cv` over the probes of each run: first, mean, last and smallest.

    Columns: arm, quantity, when, seeds, value, low, high (mean over seeds and its interval). Arms whose optimizer has
    no such state have no rows.
    """
    rows = []
    for quantity in STATES:
        for (arm, seed), run in curves.dropna(subset=[quantity]).groupby(["arm", "seed"], sort=False):
            values = run.sort_values("step")[quantity]
            rows.append([arm, seed, quantity, values.iloc[0], values.mean(), values.iloc[-1], values.min()])
    table = pd.DataFrame(rows, columns=["arm", "seed", "state", *WHEN])
    return study.over_seeds(table, WHEN, by=("arm", "state")).rename(columns={"quantity": "when", "state": "quantity"})


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


def published_state(quantity: str) -> dict[str, float]:
    """The paper's AdamW numbers of one of `STATES`, by `WHEN`; NaN where it gives none."""
    row = published().iloc[0]
    return {when: float(row.get(f"{quantity}_{when}", math.nan)) for when in WHEN}


def cosine(states: pd.DataFrame) -> str:
    """Where the momentum cosine of `opd` ends, beside that of unrelated gradients and the paper's."""
    reported = published_state("momentum_cosine")
    floor = unrelated_cosine(math.inf)
    told = f"For gradients that have nothing to do with each other the cosine settles at {floor:.3f}. "
    own = states[(states["arm"] == FULL) & (states["quantity"] == "momentum_cosine") & (states["when"] == "last")]
    if len(own):
        row = own.iloc[0]
        told += f"Here it ends at {row['value']:.3f} (mean of {seeds(int(row['seeds']))}). "
    side = "below" if reported["last"] < floor else "above"
    return told + (
        f"The paper's ends at {reported['last']:g}, {side} that, and begins at {reported['first']:g}, where the "
        "definition gives 1 at the first update."
    )


def variation(states: pd.DataFrame) -> str:
    """How much of the fall of the variation of sqrt(v) averaging alone would give, in the paper and here."""
    reported = published_state("second_moment_cv")
    ends = [("in the paper", reported["first"], reported["last"])]
    own = states[(states["arm"] == FULL) & (states["quantity"] == "second_moment_cv")].set_index("when")["value"]
    if len(own):
        ends.append(("here", float(own["first"]), float(own["last"])))
    told = [
        f"from {first:.2f} to {last:.2f} {where}, where averaging alone would take it to {settled_cv(first):.2f}"
        for where, first, last in ends
    ]
    return f"The CV of sqrt(v) goes {', and '.join(told)}."
