"""Masks compared seed by seed: with full OPD, with each other, and with full OPD when it had come as far."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from opdlib.stats import holm, mean_interval, p_value
from opdlib.tables import study
from opdlib.tables.subnetwork.arms import FULL, MAGNITUDE, OWN, RANDOM, TRAINS

COMPARED = (
    *((arm, FULL) for arm in TRAINS if arm != FULL),
    *((arm, RANDOM) for arm in TRAINS if arm not in (FULL, RANDOM)),
    (OWN, MAGNITUDE),
)
"""Arms that are compared seed by seed: the first minus the second."""
ABOVE, BELOW = "above", "below"


def paired(table: pd.DataFrame, quantity: str = "accuracy") -> pd.DataFrame:
    """Each pair of `COMPARED` that has runs, seed by seed.

    Columns: arm, partner, seeds (that both have), difference, low, high (95%), p (two-sided, of Student's paired test),
    p_holm (adjusted by Holm for all tests of the table), verdict. Against full OPD the verdict is that of the study's
    rule, see `opdlib.tables.study`; against another mask it is `above` or `below` if the interval excludes 0, else
    `undecided`.
    """
    present = set(table["arm"])
    rows = []
    for arm, partner in [pair for pair in COMPARED if set(pair) <= present]:
        row = study.differences(table, [arm], [quantity], partner).iloc[0]
        ours, theirs = (table[table["arm"] == name].set_index("seed")[quantity] for name in (arm, partner))
        known = {"arm": arm, "partner": partner, "p": p_value((ours - theirs).dropna())}
        verdict = row["verdict"] if partner == FULL else sided(row["low"], row["high"])
        rows.append(known | row[["seeds", "difference", "low", "high"]].to_dict() | {"verdict": verdict})
    found = pd.DataFrame(rows, columns=[column for column in PAIRED if column != "p_holm"])
    return found.assign(p_holm=holm(found["p"].astype(float)))[PAIRED]


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
                found.append((float(end["distance"]), float(end["accuracy"]), there))
        distance, ours, there_all = (np.array(x) for x in zip(*found, strict=True)) if found else (np.array([]),) * 3
        value, low, high = mean_interval(pd.Series(ours - there_all))
        means = [float(x.mean()) if len(x) else math.nan for x in (distance, ours, there_all)]
        rows.append([arm, len(found), *means, value, low, high, sided(low, high)])
    return pd.DataFrame(rows, columns=AT_DISTANCE)


AT_DISTANCE = ["arm", "seeds", "distance", "accuracy", "full", "difference", "low", "high", "verdict"]
