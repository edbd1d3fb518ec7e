"""Training inside a mask: the runs, each mask over seeds, accuracy on the way, and what the paper printed.

Shares and accuracies are fractions in [0, 1]; `distance` is the norm of the way from the source in float32, at the end
of a run unless said otherwise. Undefined is NaN.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from opdlib.files import data_root
from opdlib.registry.study import study as known_scales
from opdlib.stats import mean_interval
from opdlib.tables import paper, study

FULL, OWN, RANDOM, MAGNITUDE = "opd", "mask-own", "mask-random", "mask-magnitude"
TRAINS = {
    FULL: "all weights",
    OWN: "own delta",
    "mask-rlvr": "RLVR's delta",
    RANDOM: "random",
    MAGNITUDE: "random, sizes matched",
    "mask-smallest": "smallest weights",
}
"""Arm -> what it trains."""
MASKS = (
    *("arm", "seed", "kind", "owner", "threshold", "parameters", "inside", "owner_inside", "own_inside", "in_own"),
    *("own_energy", "moved_inside", "moved_outside"),
)
"""Columns of study/<scale>-masks.csv; `opd study SCALE --overlaps` writes it."""


def standing(scale: str, results: Path | None = None) -> pd.DataFrame:
    """`opdlib.tables.study.standing` of the arms of this page, with a column trains."""
    return study.standing(scale, tuple(TRAINS), results).assign(trains=[*TRAINS.values()])


def scales(first: str, results: Path | None = None) -> list[str]:
    """`first`, and after it every other scale in which a mask was trained in."""
    inside = tuple(arm for arm in TRAINS if arm != FULL)
    return [name for name in study.scales(first) if name == first or len(study.runs(name, inside, results=results))]


def others(shown: Sequence[str]) -> list[str]:
    """The scales of this page that are not among `shown`."""
    return [name for name, scale in known_scales().items() if name not in shown and not scale.apart]


def masks(scale: str, results: Path | None = None) -> pd.DataFrame:
    """One row a run inside a mask: `MASKS`, counts of coordinates; no rows where nothing was counted yet."""
    return counted(f"{scale}-masks.csv", MASKS, results)


def runs(scale: str, results: Path | None = None) -> pd.DataFrame:
    """One row a finished run of full OPD or inside a mask.

    Columns: arm, seed, accuracy, source_accuracy, gain (their difference), density (of the mask: 1 for full OPD, NaN
    where it was not counted), in_own (share of the mask that lies in the own mask), own_energy (share of full OPD's
    squared delta that lies inside), changed (share of all weights that differ in bf16), rel_norm, distance (NaN without
    a curve), moved_outside (weights that moved outside of the mask).
    """
    table = study.runs(scale, tuple(TRAINS), results=results)
    if table.empty:
        return pd.DataFrame(columns=RUNS)
    ends = _ends(scale, results)
    known = masks(scale, results).set_index(["arm", "seed"])
    keys = pd.MultiIndex.from_frame(table[["arm", "seed"]])
    own = known[COUNTED].reindex(keys).reset_index(drop=True).astype(float)
    full = table["arm"] == FULL
    table = table.assign(
        gain=table["accuracy"] - table["source_accuracy"],
        density=(own["inside"] / own["parameters"]).mask(full, 1.0),
        in_own=own["in_own"] / own["inside"],
        own_energy=own["own_energy"].mask(full, 1.0),
        moved_outside=own["moved_outside"],
        changed=1 - table["exact_zero"],
        distance=ends.reindex(keys).to_numpy(),
    )
    return table[RUNS]


COUNTED = ["parameters", "inside", "in_own", "own_energy", "moved_outside"]
RUNS = [
    *("arm", "seed", "accuracy", "source_accuracy", "gain", "density", "in_own", "own_energy", "changed"),
    *("rel_norm", "distance", "moved_outside"),
]


def over_seeds(table: pd.DataFrame) -> pd.DataFrame:
    """One row an arm of `runs`: arm, trains, seeds, accuracy, low, high (95%, NaN of a single seed), then means: gain,
    kept (its gain over full OPD's, of the seeds that both have), density, in_own, own_energy, changed, rel_norm,
    distance, per_distance (gain over distance)."""
    full = table[table["arm"] == FULL].set_index("seed")["gain"]
    rows = []
    for arm, own in table.groupby("arm", sort=False):
        value, low, high = mean_interval(own["accuracy"])
        gains = own.set_index("seed")["gain"]
        both = gains.index.intersection(full.index)
        whole = float(full[both].mean()) if len(both) else math.nan
        row = {"arm": arm, "trains": TRAINS[str(arm)], "seeds": len(own), "accuracy": value, "low": low, "high": high}
        row["kept"] = float(gains[both].mean()) / whole if whole else math.nan
        row["per_distance"] = float((own["gain"] / own["distance"]).mean())
        rows.append(row | {name: float(own[name].mean()) for name in MEANS})
    columns = ["arm", "trains", "seeds", "accuracy", "low", "high", "kept", "per_distance", *MEANS]
    return pd.DataFrame(rows, columns=columns)


MEANS = ("gain", "density", "in_own", "own_energy", "changed", "rel_norm", "distance")


def along(scale: str, results: Path | None = None) -> pd.DataFrame:
    """Accuracy on the way: arm, seed, step, distance, accuracy; the source is step 0. Runs without a curve are left
    out."""
    curves = study.curves(scale, tuple(TRAINS), results)
    if curves.empty:
        return pd.DataFrame(columns=ALONG)
    points = curves.dropna(subset=["accuracy", "distance"])
    start = study.runs(scale, tuple(TRAINS), results=results).assign(step=0, distance=0.0)
    start = start.drop(columns="accuracy").rename(columns={"source_accuracy": "accuracy"})
    start = start.merge(points[["arm", "seed"]].drop_duplicates())
    both = pd.concat([start[ALONG], points[ALONG]], ignore_index=True).sort_values("step", kind="stable")
    return pd.concat([own for _, own in both.groupby(["arm", "seed"], sort=False)], ignore_index=True)


ALONG = ["arm", "seed", "step", "distance", "accuracy"]

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


def published() -> pd.DataFrame:
    """Figure 3a: setting, run, arm, density, peak, late (mean of the last five; NaN if not printed), difference (of the
    peak from full training's), kept_late (the same of the late mean), metric. One run each, no intervals."""
    table = paper.read("figure3a_masked_training")
    shares = table[["mask_density_pct", "peak_pct", "last5_mean_pct"]].astype(float) / 100
    table[["density", "peak", "late"]] = shares
    full = table[table["run"] == "full"].set_index("setting")
    table["arm"] = table["run"].map(PUBLISHED)
    table["difference"] = table["peak"] - table["setting"].map(full["peak"])
    table["late_difference"] = table["late"] - table["setting"].map(full["late"])
    return table[["setting", "run", "arm", "density", "peak", "late", "difference", "late_difference", "metric"]]


def _ends(scale: str, results: Path | None) -> pd.Series:
    """The distance of every run at its last step, by arm and seed."""
    curves = study.curves(scale, tuple(TRAINS), results)
    if curves.empty:
        return pd.Series(dtype=float, index=pd.MultiIndex.from_arrays([[], []]))
    return curves.dropna(subset=["distance"]).groupby(["arm", "seed"])["distance"].last()


def counted(name: str, columns: Sequence[str], results: Path | None) -> pd.DataFrame:
    """A table that `opd study SCALE --overlaps` wrote; without rows where there is none."""
    file = (results or data_root() / "results") / "study" / name
    return pd.read_csv(file) if file.is_file() else pd.DataFrame(columns=[*columns])


def outside(table: pd.DataFrame) -> float:
    """Weights that moved outside of their mask, over all rows of `runs` that were counted; NaN if none was."""
    return float(table["moved_outside"].sum(min_count=1))
