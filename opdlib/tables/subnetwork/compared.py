"""Masks compared seed by seed: with full OPD, with each other, with full OPD when it had come as far, and with what the
paper printed."""

import math

import numpy as np
import pandas as pd

from opdlib.registry.study import FULL
from opdlib.stats import holm, p_value
from opdlib.tables import study
from opdlib.tables.subnetwork.masked import MAGNITUDE, OWN, RANDOM, TRAINS, published

COMPARED = (
    *((arm, FULL) for arm in TRAINS if arm != FULL),
    *((arm, RANDOM) for arm in TRAINS if arm not in (FULL, RANDOM)),
    (OWN, MAGNITUDE),
)
"""Arms that are compared seed by seed: the first minus the second."""
PAIRED = ["arm", "partner", "seeds", "difference", "low", "high", "p", "p_holm", "verdict"]
AT_DISTANCE = ["arm", "seeds", "distance", "accuracy", "full", "difference", "low", "high", "verdict"]
DIFFERENCES = ["setting", "run", "arm", "density", "difference", "low", "high", "noise", "span"]
ABOVE, BELOW = "above", "below"
SAMPLED = {"AIME24+AIME25 mean@16": 60 * 16}
"""The paper's metric -> how many answers are graded: two contests of 30 problems, 16 answers each."""


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
        row = study.judged(found, span) | {"arm": arm, "partner": partner, "p": p_value(found)}
        rows.append(row if partner == FULL else row | {"verdict": sided(row["low"], row["high"])})
    known = pd.DataFrame(rows, columns=[column for column in PAIRED if column != "p_holm"])
    return known.assign(p_holm=holm(known["p"].astype(float)))[PAIRED]


def sided(low: float, high: float) -> str:
    """Where an interval of a difference lies: above 0, below, or undecided."""
    return ABOVE if low > 0 else BELOW if high < 0 else study.UNDECIDED


def at_its_distance(points: pd.DataFrame) -> pd.DataFrame:
    """Each mask at its end beside full OPD of the same seed when that had come as far, between two evaluations linear.

    `points` is the table of `along`. Columns: arm, seeds, distance, accuracy, full (accuracy of full OPD there),
    difference, low, high, verdict (`sided`). A run that went farther than full OPD is not counted.
    """
    rows, full = [], dict(iter(points[points["arm"] == FULL].groupby("seed")))
    ends = points[points["arm"] != FULL].groupby(["arm", "seed"], sort=False).tail(1)
    for arm, own in ends.groupby("arm", sort=False):
        there = [_at(full.get(seed), distance) for seed, distance in zip(own["seed"], own["distance"], strict=True)]
        own = own.assign(full=there, difference=own["accuracy"] - there).dropna(subset=["full"])
        row = own[["distance", "accuracy", "full"]].mean().to_dict() | study.summed(own["difference"], "difference")
        rows.append({"arm": arm} | row | {"verdict": sided(row["low"], row["high"])})
    return pd.DataFrame(rows, columns=AT_DISTANCE)


def _at(full: pd.DataFrame | None, distance: float) -> float:
    """Accuracy of full OPD when it had come that far; NaN if it never did."""
    if full is None:
        return math.nan
    return float(np.interp(distance, full["distance"], full["accuracy"], right=math.nan))


def differences(table: pd.DataFrame) -> pd.DataFrame:
    """Masks minus full training, ours (from `runs`) above the paper's: setting (`here` or the paper's), run, arm,
    density, difference, low, high, noise, span (full OPD's range from seed to seed; NaN of the paper and of one seed).

    noise: standard error that the sampling of answers gives such a difference, at most; NaN for ours, which have an
    interval, and where the number of answers is not known.
    """
    full, densities = table[table["arm"] == FULL]["accuracy"], table.groupby("arm")["density"].mean()
    span = study.seed_range(full) if len(full) > 1 else math.nan
    ours = paired(table).query("partner == @FULL")
    ours = ours.assign(setting="here", run=ours["arm"].map(TRAINS), density=ours["arm"].map(densities), span=span)
    printed = published()
    whole = printed["setting"].map(printed[printed["arm"] == FULL].set_index("setting")["peak"])
    variance = printed["peak"] * (1 - printed["peak"]) + whole * (1 - whole)
    theirs = printed.assign(noise=np.sqrt(variance / printed["metric"].map(SAMPLED).astype(float)))
    return pd.concat([ours, theirs[theirs["arm"] != FULL]], ignore_index=True).reindex(columns=DIFFERENCES)
