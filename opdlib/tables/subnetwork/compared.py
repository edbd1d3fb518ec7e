"""Masks compared seed by seed: with full OPD, with each other, and with full OPD when it had come as far."""

from __future__ import annotations

import numpy as np
import pandas as pd

from opdlib.registry.study import FULL
from opdlib.stats import holm, p_value
from opdlib.tables import study
from opdlib.tables.subnetwork.masked import MAGNITUDE, OWN, RANDOM, TRAINS

COMPARED = (
    *((arm, FULL) for arm in TRAINS if arm != FULL),
    *((arm, RANDOM) for arm in TRAINS if arm not in (FULL, RANDOM)),
    (OWN, MAGNITUDE),
)
"""Arms that are compared seed by seed: the first minus the second."""
ABOVE, BELOW = "above", "below"


def paired(table: pd.DataFrame) -> pd.DataFrame:
    """The accuracies of each pair of `COMPARED` that has runs, seed by seed.

    Columns: arm, partner, seeds (that both have), difference, low, high (95%), p (two-sided, of Student's paired test),
    p_holm (adjusted by Holm for all tests of the table), verdict. Against full OPD the verdict is that of the study's
    rule, see `opdlib.tables.study`; against another mask it is `above` or `below` if the interval excludes 0, else
    `undecided`.
    """
    present, rows = set(table["arm"]), []
    span = study.seed_range(table[table["arm"] == FULL]["accuracy"])
    for arm, partner in [pair for pair in COMPARED if set(pair) <= present]:
        found = study.paired(table, arm, partner)
        row = study.judged(found, span)
        own = {} if partner == FULL else {"verdict": sided(row["low"], row["high"])}
        rows.append({"arm": arm, "partner": partner, "p": p_value(found)} | row | own)
    known = pd.DataFrame(rows, columns=[column for column in PAIRED if column != "p_holm"])
    return known.assign(p_holm=holm(known["p"].astype(float)))[PAIRED]


PAIRED = ["arm", "partner", "seeds", "difference", "low", "high", "p", "p_holm", "verdict"]


def sided(low: float, high: float) -> str:
    """Where an interval of a difference lies: above 0, below, or undecided."""
    return ABOVE if low > 0 else BELOW if high < 0 else study.UNDECIDED


def at_its_distance(points: pd.DataFrame) -> pd.DataFrame:
    """Each mask at its end beside full OPD of the same seed when that had come as far, between two evaluations linear.

    `points` is the table of `along`. Columns: arm, seeds, distance, accuracy, full (accuracy of full OPD there),
    difference, low, high, verdict (`sided`). A run that went farther than full OPD is not counted.
    """
    rows = []
    for arm in [name for name in TRAINS if name != FULL and (points["arm"] == name).any()]:
        found = []
        for seed, own in points[points["arm"] == arm].groupby("seed"):
            full = points[(points["arm"] == FULL) & (points["seed"] == seed)]
            end = own.iloc[-1]
            if len(full) and end["distance"] <= full["distance"].max():
                there = float(np.interp(end["distance"], full["distance"], full["accuracy"]))
                found.append([end["distance"], end["accuracy"], there, end["accuracy"] - there])
        table = pd.DataFrame(found, columns=["distance", "accuracy", "full", "difference"], dtype=float)
        row = study.summed(table["difference"], "difference")
        rows.append({"arm": arm} | table.mean().to_dict() | row | {"verdict": sided(row["low"], row["high"])})
    return pd.DataFrame(rows, columns=AT_DISTANCE)


AT_DISTANCE = ["arm", "seeds", "distance", "accuracy", "full", "difference", "low", "high", "verdict"]
