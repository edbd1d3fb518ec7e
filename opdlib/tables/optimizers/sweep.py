"""Tables of the optimizer ablation: the runs of the study that differ from `opd` in the optimizer or its rate.

An arm belongs here if it is `opd`, or if the study lists nothing but optimizer, learning rate and gradient as its
difference from `opd`. Shares are fractions in [0, 1]; intervals are Student's over seeds, at 95% (`tables.study`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from opdlib.registry.recipes import load_recipe
from opdlib.registry.study import FULL, find_scale
from opdlib.tables import paper, study

OPTIMIZERS: Mapping[Any, str] = {"adamw": "AdamW", "rmsprop": "RMSProp", "sgd": "SGD", "sgdm": "SGD, momentum"}
"""Names in recipes -> names on the page, in its order."""
LABELS = ["arm", "optimizer", "learning_rate"]
"""Columns that `labelled` adds to a table of arms."""
SWEPT = {"optimizer", "learning_rate", "gradient"}
SIDES = ("projection.joint.0.1", "projection_expected.joint.0.1", "coverage.low.0.1", "coverage_ceiling.low.0.1")
DELTA = ("rel_norm", "exact_zero", "svd_energy.16", "stable_rank", *SIDES)
"""What is shown of a delta, by its name in a summary."""


def arms(scale: str, root: Path | None = None) -> pd.DataFrame:
    """One row an arm, in the order of the optimizers and their rates; `adam-zero` comes last.

    Columns: arm, optimizer, learning_rate, clip (largest norm of a gradient), steps, batch_size, gradient (`true` or
    `zero`), planned and finished (numbers of seeds), missing (the command for the rest), clipped (share of the updates
    whose gradient was longer than `clip`, over all runs; NaN of none).
    """
    known = find_scale(scale).arms.values()
    chosen = [a for a in known if a.name == FULL or (a.partner == FULL and set(a.differs) <= SWEPT)]
    lines = ["optimizer", "learning_rate", "clip", "steps", "batch_size", "gradient"]
    rows = [{"arm": a.name} | load_recipe(a.recipe).model_dump(include={*lines}) for a in chosen]
    names = [a.name for a in chosen]
    table = pd.DataFrame(rows)[["arm", *lines]].merge(study.standing(scale, names, root), on="arm")
    norms = study.curves(scale, names, root)[["arm", "grad_norm"]].dropna().merge(table[["arm", "clip"]])
    longer = (norms["grad_norm"] > norms["clip"]).groupby(norms["arm"]).mean()
    table["clipped"] = table["arm"].map(longer).astype(float)
    place = table["optimizer"].map([*OPTIMIZERS].index) + 10 * (table["gradient"] == "zero")
    return table.assign(place=place).sort_values(["place", "learning_rate"], ignore_index=True).drop(columns="place")


def labelled(table: pd.DataFrame, arms: pd.DataFrame) -> pd.DataFrame:
    """The rows of a table whose arm is one of `arms`, zero left out: in their order, with optimizer and rate."""
    return arms[arms["gradient"] != "zero"][LABELS].merge(table, on="arm", how="inner")


def with_masters(runs: pd.DataFrame, scale: str, root: Path | None = None) -> pd.DataFrame:
    """Runs of `study.runs` with a column stored: the share of weights that are unchanged in the fp32 masters."""
    masters = study.runs(scale, list(runs["arm"].unique()), "stored", root)
    stored = masters.reindex(columns=["arm", "seed", "exact_zero"]).rename(columns={"exact_zero": "stored"})
    return runs.merge(stored, on=["arm", "seed"], how="left")


def learning(curves: pd.DataFrame, runs: pd.DataFrame, quantity: str, every: int = 10) -> pd.DataFrame:
    """A quantity of labelled curves against the step: its mean over seeds, and the lowest and the highest seed.

    Columns: those of `LABELS`, step, seeds, value, low, high. A loss is first averaged over `every` steps of each run,
    because every step has other problems; accuracy has the source's at step 0. Empty if nothing was logged.
    """
    keys = [*LABELS, "seed", "step"]
    known = curves[[*keys, quantity]].dropna(subset=[quantity])
    if quantity == "loss":
        known = known.assign(step=np.ceil(known["step"] / every) * every)
        known = known.groupby(keys, sort=False)[quantity].mean().reset_index()
    if quantity == "accuracy" and len(known):
        start = runs[runs["arm"].isin(known["arm"])][[*LABELS, "seed", "source_accuracy"]].assign(step=0)
        known = pd.concat([start.rename(columns={"source_accuracy": quantity}), known], ignore_index=True)
    grouped = known.groupby([*LABELS, "step"], sort=False)[quantity]
    return grouped.agg(seeds="size", value="mean", low="min", high="max").reset_index()


def published() -> pd.DataFrame:
    """The paper's ablation: optimizer, learning_rate, peak and final (fractions), and its state's first to min."""
    table = paper.read("figure3b_optimizers")
    return table.assign(peak=table["peak_pct"] / 100, final=table["final_pct"] / 100)


def paths(scale: str, arms: pd.DataFrame, root: Path | None = None) -> pd.DataFrame:
    """One row a run and step whose weights were measured, labelled: seed, step, accuracy then, the numbers of `DELTA`.

    Only runs that logged an accuracy at that step.
    """
    names, keys = [*arms["arm"]], ["arm", "seed", "step"]
    scored = study.curves(scale, names, root)[[*keys, "accuracy"]].dropna()
    joined = study.along(scale, names, root).merge(scored, on=keys)
    return labelled(joined.reindex(columns=[*keys, "accuracy", *DELTA]), arms)


def path_means(paths: pd.DataFrame) -> pd.DataFrame:
    """The numbers of `paths`, mean over the seeds of each arm and step, with the labels and without seed."""
    return paths.drop(columns="seed").groupby([*LABELS, "step"], sort=False).mean().reset_index()


def steps_taken(curves: pd.DataFrame) -> pd.DataFrame:
    """How far an update goes and how straight all of them are, from the probes: one row a run.

    Columns: arm, seed, step_length (mean norm of an update; between probes it is taken to be linear), distance (fp32,
    from the source, at the last probe), straightness (distance over the sum of the lengths: 1 on a straight line,
    1/sqrt(steps) in a random walk; NaN if nothing moved).
    """
    rows = []
    for (arm, seed), run in curves.dropna(subset=["update_norm"]).groupby(["arm", "seed"], sort=False):
        way = run["update_norm"].iloc[0] + np.trapezoid(run["update_norm"], run["step"])
        distance = run["distance"].iloc[-1]
        rows.append([arm, seed, way / run["step"].iloc[-1], distance, distance / way if way else math.nan])
    return pd.DataFrame(rows, columns=["arm", "seed", "step_length", "distance", "straightness"])


def wide(table: pd.DataFrame, quantities: Sequence[str]) -> pd.DataFrame:
    """`study.over_seeds` of `quantities`; one that no run has is NaN and rests on no seed."""
    return study.over_seeds(table.reindex(columns=[*dict.fromkeys([*LABELS, *quantities])]), quantities, by=LABELS)
