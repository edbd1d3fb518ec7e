"""The tables of the page on masked training as text. For display only: numbers are rounded."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from opdlib.quantities import MISSING
from opdlib.registry.study import FULL
from opdlib.tables import study
from opdlib.tables.subnetwork.masked import TRAINS
from opdlib.tables.text import interval, number, percent, points, probability

TRAINED = "weights that are trained"
SAMPLED = {"AIME24+AIME25 mean@16": 60 * 16}
"""The paper's metric -> how many answers are graded: two contests of 30 problems, 16 answers each."""


def standing(table: pd.DataFrame) -> pd.DataFrame:
    """A row for each arm of `subnetwork.standing`: what it trains, how many of its seeds ran, what runs the others."""
    rows = [
        {
            "arm": row["arm"],
            "trains": row["trains"],
            "seeds": f"{row['finished']} of {row['planned']}" if row["planned"] else "not in this scale",
            "state": "not run" if row["missing"] and not row["finished"] else "partly run" if row["missing"] else "",
            "command for the rest": row["missing"],
        }
        for row in table.to_dict("records")
    ]
    shown = study.text_table(rows, "arm")
    return shown.loc[:, (shown != "").any()]


def accuracies(table: pd.DataFrame) -> pd.DataFrame:
    """A row for each arm of `subnetwork.over_seeds`: accuracy with its interval, and what it keeps of the gain."""
    rows = [
        {
            TRAINED: row["trains"],
            "seeds": f"{row['seeds']}",
            "accuracy": percent(row["accuracy"]),
            "95% interval": interval(row["low"], row["high"]),
            "gain over the source": points(row["gain"]),
            "of full OPD's gain": percent(row["kept"], 0),
        }
        for row in table.to_dict("records")
    ]
    return study.text_table(rows, TRAINED)


def contents(table: pd.DataFrame) -> pd.DataFrame:
    """A row for each arm of `subnetwork.over_seeds`: what its mask holds, and what the run changed."""
    rows = [
        {
            TRAINED: row["trains"],
            "in the mask": percent(row["density"]),
            "of the mask, in the own mask": percent(row["in_own"]),
            "full OPD's energy inside": percent(row["own_energy"]),
            "changed in bf16": percent(row["changed"]),
            "relative norm": percent(row["rel_norm"], 3),
        }
        for row in table.to_dict("records")
    ]
    return study.text_table(rows, TRAINED)


def compared(table: pd.DataFrame) -> pd.DataFrame:
    """A row for each pair of `compared.paired`: the difference in points with its interval, p, verdict."""
    rows = [
        {
            "accuracy": f"{TRAINS[row['arm']]} \N{MINUS SIGN} {TRAINS[row['partner']]}",
            "seeds": f"{row['seeds']}",
            "points": points(row["difference"]),
            "95% interval": interval(row["low"], row["high"], points),
            "p": probability(row["p"]),
            "p, Holm": probability(row["p_holm"]),
            "verdict": row["verdict"],
        }
        for row in table.to_dict("records")
    ]
    return study.text_table(rows, "accuracy")


def distances(table: pd.DataFrame, ends: pd.DataFrame) -> pd.DataFrame:
    """A row for each arm of `subnetwork.over_seeds`: distance, gain for each unit of it, and, from `ends`
    (`compared.at_its_distance`), what full OPD had when it had come as far."""
    known, rows = ends.set_index("arm").to_dict("index"), []
    for row in table.to_dict("records"):
        end = known.get(row["arm"], dict.fromkeys(("full", "difference", "low", "high"), math.nan))
        rows.append(
            {
                TRAINED: row["trains"],
                "distance": number(row["distance"], ".3f"),
                "gain for each 0.1": points(row["per_distance"] / 10),
                "seeds compared": str(end.get("seeds", MISSING)),
                "full OPD there": percent(end["full"]),
                "difference": points(end["difference"]),
                "95% interval": interval(end["low"], end["high"], points),
                "verdict": end.get("verdict", MISSING),
            }
        )
    return study.text_table(rows, TRAINED)


def differences(paired: pd.DataFrame, means: pd.DataFrame, runs: pd.DataFrame, published: pd.DataFrame) -> pd.DataFrame:
    """Masks minus full training, ours above the paper's: setting (`here` or the paper's), run, arm, density,
    difference, low, high, noise, span (full OPD's range from seed to seed; NaN of the paper and of a single seed).

    noise: standard error that the sampling of answers gives such a difference, at most; NaN for ours, which have an
    interval, and where the number of answers is not known.
    """
    own = paired[paired["partner"] == FULL]
    full = runs[runs["arm"] == FULL]["accuracy"]
    span = float(full.max() - full.min()) if len(full) > 1 else math.nan
    density = means.set_index("arm")["density"]
    ours = own.assign(setting="here", run=own["arm"].map(TRAINS), density=own["arm"].map(density), span=span)
    theirs = published[published["arm"] != FULL]
    whole = theirs["setting"].map(published[published["arm"] == FULL].set_index("setting")["peak"])
    variance = theirs["peak"] * (1 - theirs["peak"]) + whole * (1 - whole)
    answers = theirs["metric"].map(SAMPLED).astype(float)
    theirs = theirs.assign(noise=np.sqrt(variance / answers))
    return pd.concat([ours, theirs], ignore_index=True).reindex(columns=DIFFERENCES)


DIFFERENCES = ["setting", "run", "arm", "density", "difference", "low", "high", "noise", "span"]


def beside(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of `differences` as text."""
    rows = [
        {
            "run": f"{'' if row['setting'] == 'here' else 'paper, '}{row['setting']}: {row['run']}",
            "in the mask": percent(row["density"]),
            "minus full training": points(row["difference"]),
            "95% interval": interval(row["low"], row["high"], points),
            "standard error, at most": number(100 * row["noise"]),
        }
        for row in table.to_dict("records")
    ]
    return study.text_table(rows, "run")
