"""Training inside a mask: the runs, each mask over seeds, accuracy on the way, and what the paper printed.

Shares and accuracies are fractions in [0, 1]; `distance` is the norm of the way from the source in float32, at the end
of a run unless said otherwise. Undefined is NaN.
"""

import math
from pathlib import Path

import pandas as pd

from opdlib.registry.study import FULL
from opdlib.results.study import open_study
from opdlib.tables import paper, study

OWN, RANDOM, MAGNITUDE = "mask-own", "mask-random", "mask-magnitude"
TRAINS = {
    FULL: "all weights",
    OWN: "own delta",
    "mask-rlvr": "RLVR's delta",
    RANDOM: "random",
    MAGNITUDE: "random, sizes matched",
    "mask-smallest": "smallest weights",
}
"""Arm -> what it trains."""
RUN = ["arm", "seed"]
RUNS = [
    *(*RUN, "accuracy", "accuracy_unrounded", "source_accuracy", "gain", "density", "in_own", "own_energy", "changed"),
    *("rel_norm", "distance", "moved_outside"),
]
MEANS = ["accuracy_unrounded", "gain", "density", "in_own", "own_energy", "changed", "rel_norm", "distance"]
ALONG = [*RUN, "step", "distance", "accuracy"]
PUBLISHED = {
    "full-OPD mask": OWN,
    "DeepScaleR RLVR mask": "mask-rlvr",
    "GRPO mask": "mask-rlvr",
    "random mask": RANDOM,
    "random mask of OPD density": RANDOM,
    "random mask of GRPO density": RANDOM,
    "full": FULL,
}
"""The paper's name of a run -> the arm of ours that asks the same."""


def masks(scale: str, root: Path | None = None) -> pd.DataFrame:
    """One row a run inside a mask: `opdlib.results.study.MASKS`; no rows where nothing was counted yet."""
    return study.of_arms(open_study(scale, root).masks, scale)


def runs(scale: str, root: Path | None = None) -> pd.DataFrame:
    """One row a finished run of full OPD or inside a mask.

    Columns: arm, seed, accuracy (after rounding to bf16), accuracy_unrounded, source_accuracy, gain (the first minus
    the last), density (of the mask: 1 for full OPD, NaN where it was not counted), in_own (share of the mask that lies
    in the own mask), own_energy (share of full OPD's squared delta that lies inside), changed (share of all weights
    that differ in bf16), rel_norm, distance (NaN without a curve), moved_outside (weights that moved outside of the
    mask).
    """
    measured = study.runs(scale, [*TRAINS], root=root)
    measured = measured.reindex(
        columns=[*RUN, "accuracy", "accuracy_unrounded", "source_accuracy", "rel_norm", "exact_zero"]
    )
    ends = study.curves(scale, [*TRAINS], root).dropna(subset=["distance"]).groupby(RUN)["distance"].last()
    table = measured.merge(masks(scale, root), how="left", on=RUN).merge(ends.reset_index(), how="left", on=RUN)
    full = table["arm"] == FULL
    return table.assign(
        gain=table["accuracy"] - table["source_accuracy"],
        density=(table["inside"] / table["parameters"]).mask(full, 1.0),
        in_own=table["in_own"] / table["inside"],
        own_energy=table["own_energy"].mask(full, 1.0),
        changed=1 - table["exact_zero"],
    )[RUNS]


def over_seeds(table: pd.DataFrame) -> pd.DataFrame:
    """One row an arm of `runs`: arm, trains, seeds, accuracy, low, high (95%, NaN of a single seed), kept (its gain
    over full OPD's, of the seeds that both have), then means: accuracy_unrounded, gain, density, in_own, own_energy,
    changed, rel_norm, distance."""
    full = table[table["arm"] == FULL].set_index("seed")["gain"]
    table = table.assign(whole=table["seed"].map(full))
    rows = []
    for arm, own in table.groupby("arm", sort=False):
        both = own[own["whole"].notna()]
        kept = float(both["gain"].mean() / (both["whole"].mean() or math.nan))
        row = {"arm": arm, "trains": TRAINS[str(arm)], **study.summed(own["accuracy"], "accuracy"), "kept": kept}
        rows.append(row | own[MEANS].mean().to_dict())
    return pd.DataFrame(rows, columns=["arm", "trains", "seeds", "accuracy", "low", "high", "kept", *MEANS])


def along(scale: str, root: Path | None = None) -> pd.DataFrame:
    """Accuracy on the way: arm, seed, step, distance, accuracy; the source is step 0. Runs without a curve are left
    out."""
    points = study.curves(scale, [*TRAINS], root).dropna(subset=["accuracy", "distance"])[ALONG]
    start = study.runs(scale, [*TRAINS], root=root).reindex(columns=[*RUN, "source_accuracy"])
    start = start.rename(columns={"source_accuracy": "accuracy"}).assign(step=0, distance=0.0)
    start = start.merge(points[RUN].drop_duplicates())[ALONG]
    return study.of_arms(pd.concat([start, points], ignore_index=True), scale)


def published() -> pd.DataFrame:
    """Figure 3a: setting, run, arm, density, peak, late (mean of the last five; NaN if not printed), difference (of the
    peak from full training's), late_difference (the same of the late mean), metric. One run each, no intervals."""
    table = paper.read("figure3a_masked_training")
    shares = table[["mask_density_pct", "peak_pct", "last5_mean_pct"]].astype(float) / 100
    table[["density", "peak", "late"]] = shares
    full = table[table["run"] == "full"].set_index("setting")
    table["arm"] = table["run"].map(PUBLISHED)
    table["difference"] = table["peak"] - table["setting"].map(full["peak"])
    table["late_difference"] = table["late"] - table["setting"].map(full["late"])
    return table[["setting", "run", "arm", "density", "peak", "late", "difference", "late_difference", "metric"]]
