"""Tables of the optimizer ablation: the runs of the study that differ from `opd` in the optimizer or its rate.

An arm belongs here if it is `opd`, or if the study lists nothing but optimizer, learning rate and gradient as its
difference from `opd`. Shares are fractions in [0, 1]; intervals are Student's over seeds, at 95% (`tables.study`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from opdlib.files import data_root
from opdlib.registry.recipes import load_recipe
from opdlib.registry.study import find_scale
from opdlib.tables import study

BASE, ZERO = "opd", "adam-zero"
OPTIMIZERS = {"adamw": "AdamW", "rmsprop": "RMSProp", "sgd": "SGD", "sgdm": "SGD, momentum"}
"""Names in recipes -> names on the page, in its order."""
SWEPT = {"optimizer", "learning_rate", "gradient"}
DELTA = (
    "rel_norm",
    "exact_zero",
    "svd_energy.16",
    "stable_rank",
    "projection.joint.0.1",
    "projection_expected.joint.0.1",
    "coverage.low.0.1",
    "coverage_ceiling.low.0.1",
)
"""What is shown of a delta, by its name in a summary."""


def sweep(scale: str, results: Path | None = None) -> pd.DataFrame:
    """One row an arm, in the order of the optimizers and their rates; `adam-zero` comes last.

    Columns: arm, optimizer, learning_rate, gradient (`true` or `zero`), clip (largest norm of a gradient), steps,
    batch_size, planned and runs (numbers of seeds), clipped (share of the updates whose gradient was longer than
    `clip`, over all runs; NaN of none).
    """
    arms = find_scale(scale).arms
    chosen = [a for a in arms.values() if a.name == BASE or (a.partner == BASE and set(a.differs) <= SWEPT)]
    logged = study.curves(scale, [a.name for a in chosen], results)
    done = study.runs(scale, [a.name for a in chosen], results=results)["arm"].value_counts()
    rows = []
    for arm in chosen:
        recipe = load_recipe(arm.recipe).model_dump()
        row = {"arm": arm.name} | {k: recipe[k] for k in ("optimizer", "learning_rate", "clip", "steps", "batch_size")}
        own = logged[logged["arm"] == arm.name] if "grad_norm" in logged else logged.iloc[:0]
        norms = own["grad_norm"].dropna() if len(own) else pd.Series(dtype=float)
        row |= {"gradient": recipe["gradient"], "planned": len(arm.seeds)}
        row |= {"runs": int(done.get(arm.name, 0)), "clipped": (norms > row["clip"]).mean() if len(norms) else math.nan}
        rows.append(row)
    table = pd.DataFrame(rows)
    place = table["optimizer"].map(list(OPTIMIZERS).index) + 10 * (table["gradient"] == "zero")
    ordered = table.assign(place=place).sort_values(["place", "learning_rate"], ignore_index=True)
    return ordered.drop(columns="place")


def labelled(table: pd.DataFrame, arms: pd.DataFrame) -> pd.DataFrame:
    """A table with a column arm, with the columns optimizer and learning_rate of `sweep`, in its order, zero left out.

    Rows of arms that `sweep` does not know are left out too.
    """
    known = arms[arms["gradient"] != "zero"][["arm", "optimizer", "learning_rate"]]
    return known.merge(table, on="arm", how="inner")


def with_masters(runs: pd.DataFrame, scale: str, results: Path | None = None) -> pd.DataFrame:
    """Runs of `study.runs` with a column stored: the share of weights that are unchanged in the fp32 masters."""
    masters = study.runs(scale, list(runs["arm"].unique()), "stored", results)
    stored = masters.reindex(columns=["arm", "seed", "exact_zero"]).rename(columns={"exact_zero": "stored"})
    return runs.merge(stored, on=["arm", "seed"], how="left")


def learning(curves: pd.DataFrame, runs: pd.DataFrame, quantity: str, every: int = 10) -> pd.DataFrame:
    """A quantity of the curves against the step: its mean over seeds, and the lowest and the highest seed.

    Columns: arm, step, seeds, value, low, high. A loss is first averaged over `every` steps of each run, because every
    step has other problems; accuracy has the source's at step 0. Empty if nothing was logged.
    """
    if quantity not in curves or not curves[quantity].notna().any():
        return pd.DataFrame({name: [] for name in ("arm", "step", "seeds", "value", "low", "high")})
    known = curves.dropna(subset=[quantity])
    if quantity == "loss":
        known = known.assign(step=np.ceil(known["step"] / every) * every)
        known = known.groupby(["arm", "seed", "step"], sort=False)[quantity].mean().reset_index()
    if quantity == "accuracy":
        start = runs[["arm", "seed"]].assign(step=0, accuracy=runs["source_accuracy"])
        known = pd.concat([start[start["arm"].isin(known["arm"])], known], ignore_index=True)
    grouped = known.groupby(["arm", "step"], sort=False)[quantity]
    found = grouped.agg(seeds="size", value="mean", low="min", high="max").reset_index()
    return found.sort_values(["arm", "step"], ignore_index=True)


def published() -> pd.DataFrame:
    """The paper's ablation: optimizer, learning_rate, peak and final (fractions), and its state's first to min."""
    table = pd.read_csv(data_root() / "paper" / "figure3b_optimizers.csv")
    return table.assign(peak=table["peak_pct"] / 100, final=table["final_pct"] / 100)


def paths(scale: str, arms: pd.DataFrame, results: Path | None = None) -> pd.DataFrame:
    """One row a run and step whose weights were measured: arm, seed, step, accuracy then, and the numbers of `DELTA`.

    Only runs that logged an accuracy at that step. Empty if there are none.
    """
    names = list(arms[arms["gradient"] != "zero"]["arm"])
    measured, logged = study.along(scale, names, results), study.curves(scale, names, results)
    if measured.empty or "accuracy" not in logged:
        return pd.DataFrame({name: [] for name in ("arm", "seed", "step", "accuracy", *DELTA)})
    scored = logged.dropna(subset=["accuracy"])[["arm", "seed", "step", "accuracy"]]
    joined = measured.merge(scored, on=["arm", "seed", "step"], how="inner")
    return joined.reindex(columns=["arm", "seed", "step", "accuracy", *DELTA])


def path_means(paths: pd.DataFrame) -> pd.DataFrame:
    """The numbers of labelled `paths`, mean over the seeds of each arm and step, with the labels and without seed."""
    keys = ["arm", "optimizer", "learning_rate", "step"]
    return paths.drop(columns="seed").groupby(keys, sort=False).mean().reset_index()


def steps_taken(curves: pd.DataFrame) -> pd.DataFrame:
    """How far an update goes and how straight all of them are, from the probes: one row a run.

    Columns: arm, seed, step_length (mean norm of an update; between probes it is taken to be linear), distance (fp32,
    from the source, at the last probe), straightness (distance over the sum of the lengths: 1 on a straight line,
    1/sqrt(steps) in a random walk; NaN if nothing moved).
    """
    if "update_norm" not in curves:
        return pd.DataFrame({name: [] for name in ("arm", "seed", "step_length", "distance", "straightness")})
    rows = []
    for (arm, seed), run in curves.dropna(subset=["update_norm"]).groupby(["arm", "seed"], sort=False):
        ordered = run.sort_values("step")
        last = ordered.iloc[-1]
        way = ordered["update_norm"].iloc[0] + np.trapezoid(ordered["update_norm"], ordered["step"])
        row = {"arm": arm, "seed": seed, "step_length": way / last["step"], "distance": last["distance"]}
        rows.append(row | {"straightness": last["distance"] / way if way else math.nan})
    return pd.DataFrame(rows)


def wide(table: pd.DataFrame, quantities: Sequence[str]) -> pd.DataFrame:
    """`study.over_seeds` of `quantities`; one that no run has is NaN and rests on no seed."""
    labels = ["arm", "optimizer", "learning_rate"]
    if table.empty:
        return pd.DataFrame({name: [] for name in (*labels, "quantity", "seeds", "value", "low", "high")})
    columns = list(dict.fromkeys([*labels, *quantities]))
    return study.over_seeds(table.reindex(columns=columns), quantities, by=labels)
