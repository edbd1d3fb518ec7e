"""The tables of the page for the eye: numbers are rounded. The columns of each are for `opdlib.tables.study.shown`."""

from functools import partial

import pandas as pd

from opdlib.quantities import MISSING
from opdlib.tables import study
from opdlib.tables.subnetwork.masked import TRAINS
from opdlib.tables.written import interval, number, percent, points, probability, with_interval

TRAINED = "weights that are trained"
WHOLE = partial(percent, digits=0)
RANGE = (partial(interval, one=points), "low", "high")
MASKS: study.Columns = {
    TRAINED: "trains",
    "seeds": "seeds",
    "in the mask": (percent, "density"),
    "full OPD's energy inside": (percent, "own_energy"),
    "changed in bf16": (percent, "changed"),
    "accuracy": (with_interval, "accuracy", "low", "high"),
    "not rounded": (percent, "accuracy_unrounded"),
    "of full OPD's gain": (WHOLE, "kept"),
}
"""Of `masked.over_seeds`: what a mask holds, what the run changed, and what is kept of the gain."""
COMPARED: study.Columns = {
    "accuracy": (lambda arm, partner: f"{TRAINS[arm]} \N{MINUS SIGN} {TRAINS[partner]}", "arm", "partner"),
    "seeds": "seeds",
    "points": (points, "difference"),
    "95% interval": RANGE,
    "p, Holm": (probability, "p_holm"),
    "verdict": "verdict",
}
"""Of `compared.paired`: the difference in points with its interval, p, verdict."""
DISTANCES: study.Columns = {
    TRAINED: "trains",
    "distance": (partial(number, form=".3f"), "distance"),
    "seeds compared": (partial(number, form=".0f"), "seeds"),
    "full OPD there": (percent, "full"),
    "difference": (points, "difference"),
    "95% interval": RANGE,
    "verdict": "verdict",
}
OVERLAPS: study.Columns = {
    "OPD and": "name",
    "seed": (lambda seed: seed.removesuffix(" seed") if isinstance(seed, str) else MISSING, "seed"),
    "pairs": "pairs",
    "in OPD": (percent, "density_a"),
    "in the other": (percent, "density_b"),
    "shared": (percent, "o1"),
    "chance, global": (percent, "global_o1"),
    "chance, tensor": (percent, "tensor_o1"),
    "chance, magn.": (percent, "magnitude_o1"),
    "times global": (number, "ratio_global"),
    "times magn.": (number, "ratio_magnitude"),
    "excess": (WHOLE, "excess"),
}
"""Of `overlap.by_comparison` at one threshold, and of `overlap.published`."""
COSINES: study.Columns = {
    "OPD and": "name",
    "seed": OVERLAPS["seed"],
    "model": "scale",
    "pairs": "pairs",
    "cosine": (number, "cosine"),
    "lowest": (number, "low"),
    "highest": (number, "high"),
    "latent cosine": (number, "latent_cosine"),
    "equal signs": (percent, "equal_signs"),
}
"""Of `overlap.cosines`."""


def distances(means: pd.DataFrame, ends: pd.DataFrame) -> pd.DataFrame:
    """A row for each arm of `masked.over_seeds`: its distance and, from `ends` (`compared.at_its_distance`), what full
    OPD had when it had come as far, judged if seeds are enough."""
    own = means[["arm", "trains", "distance"]].merge(ends.drop(columns="distance"), how="left", on="arm")
    own["verdict"] = own["verdict"].where(own["seeds"] >= study.ENOUGH)
    return study.shown(own, DISTANCES)
