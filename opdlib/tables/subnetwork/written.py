"""The tables of the page for the eye: numbers are rounded. The columns of each are for `opdlib.tables.study.shown`."""

from __future__ import annotations

from functools import partial

import pandas as pd

from opdlib.quantities import MISSING, short
from opdlib.tables import study
from opdlib.tables.subnetwork.masked import TRAINS
from opdlib.tables.text import interval, number, percent, points, probability

TRAINED = "weights that are trained"
WHOLE = partial(percent, digits=0)
RANGE = (partial(interval, one=points), "low", "high")
ACCURACIES: study.Columns = {
    TRAINED: "trains",
    "seeds": "seeds",
    "accuracy": (percent, "accuracy"),
    "95% interval": (interval, "low", "high"),
    "gain over the source": (points, "gain"),
    "of full OPD's gain": (WHOLE, "kept"),
}
"""Of `masked.over_seeds`: accuracy with its interval, and what is kept of the gain."""
CONTENTS: study.Columns = {
    TRAINED: "trains",
    "in the mask": (percent, "density"),
    "of the mask, in the own mask": (percent, "in_own"),
    "full OPD's energy inside": (percent, "own_energy"),
    "changed in bf16": (percent, "changed"),
    "relative norm": (partial(percent, digits=3), "rel_norm"),
}
"""Of `masked.over_seeds`: what a mask holds, and what the run changed."""
COMPARED: study.Columns = {
    "accuracy": (lambda arm, partner: f"{TRAINS[arm]} \N{MINUS SIGN} {TRAINS[partner]}", "arm", "partner"),
    "seeds": "seeds",
    "points": (points, "difference"),
    "95% interval": RANGE,
    "p": (probability, "p"),
    "p, Holm": (probability, "p_holm"),
    "verdict": "verdict",
}
"""Of `compared.paired`: the difference in points with its interval, p, verdict."""
DISTANCES: study.Columns = {
    TRAINED: "trains",
    "distance": (partial(number, form=".3f"), "distance"),
    "gain for each 0.1": (lambda gain: points(gain / 10), "per_distance"),
    "seeds compared": (partial(number, form=".0f"), "seeds"),
    "full OPD there": (percent, "full"),
    "difference": (points, "difference"),
    "95% interval": RANGE,
    "verdict": "verdict",
}
BESIDE: study.Columns = {
    "run": (lambda setting, run: f"{'' if setting == 'here' else 'paper, '}{setting}: {run}", "setting", "run"),
    "in the mask": (percent, "density"),
    "minus full training": (points, "difference"),
    "95% interval": RANGE,
    "standard error, at most": (lambda noise: number(100 * noise), "noise"),
}
"""Of `compared.differences`."""
OVERLAPS: study.Columns = {
    "OPD and": "name",
    "seed": (lambda seed: seed.removesuffix(" seed") if isinstance(seed, str) else MISSING, "seed"),
    "pairs": "pairs",
    "in OPD": (percent, "density_a"),
    "in the other": (percent, "density_b"),
    "o1": (percent, "o1"),
    "o2": (percent, "o2"),
    "Jaccard": (number, "jaccard"),
    "chance, global": (percent, "global_o1"),
    "chance, tensor": (percent, "tensor_o1"),
    "chance, magn.": (percent, "magnitude_o1"),
}
"""Of `overlap.by_comparison` at one threshold, and of `overlap.published`."""


def standing(table: pd.DataFrame) -> pd.DataFrame:
    """A row for each arm of `opdlib.tables.study.standing`: what it trains, how many of its seeds ran, what runs the
    others."""
    seeds = table["finished"].astype(str) + " of " + table["planned"].astype(str)
    state = (table["finished"] > 0).map({True: "partly run", False: "not run"})
    columns = {
        "arm": table["arm"],
        "trains": table["arm"].map(TRAINS),
        "seeds": seeds.where(table["planned"] > 0, "not in this scale"),
        "state": state.where(table["missing"] != "", ""),
        "command for the rest": table["missing"],
    }
    shown = study.text_table(columns, "arm")
    return shown.loc[:, (shown != "").any()]


def distances(means: pd.DataFrame, ends: pd.DataFrame) -> pd.DataFrame:
    """A row for each arm of `masked.over_seeds`: distance, gain for each unit of it, and, from `ends`
    (`compared.at_its_distance`), what full OPD had when it had come as far."""
    own = means[["arm", "trains", "distance", "per_distance"]]
    return study.shown(own.merge(ends.drop(columns="distance"), how="left", on="arm"), DISTANCES)


def ratios(table: pd.DataFrame) -> pd.DataFrame:
    """A row for each comparison, the paper's included: shared changes over those of chance, global and within
    magnitudes, at each threshold; the most that the former could be at the highest of them, and the excess there."""
    keys = ["name", "seed"]
    table = table.assign(most=1 / table[["density_a", "density_b"]].max(axis=1).where(lambda most: most > 0))
    shown = table[keys].drop_duplicates()
    columns: study.Columns = {name: OVERLAPS[name] for name in ("OPD and", "seed")}
    for atol, own in table.groupby("atol"):
        called = {f"ratio_{base}": f"{name}, {short(float(str(atol)))}" for base, name in SHORT.items()}
        shown = shown.merge(own[[*keys, *called]].rename(columns=called), how="left", on=keys)
        columns |= {name: (number, name) for name in called.values()}
    ends = table.sort_values("atol", kind="stable").drop_duplicates(keys, keep="last")
    columns |= {"most": (number, "most"), "excess": (WHOLE, "excess")}
    return study.shown(shown.merge(ends[[*keys, "most", "excess"]], on=keys), columns)


SHORT = {"global": "global", "magnitude": "magn."}
"""Baseline -> its name in the heading of a column."""
