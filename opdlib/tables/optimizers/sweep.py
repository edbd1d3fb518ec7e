"""Tables of the optimizer ablation: the runs of the study that differ from `opd` in the optimizer or its rate.

An arm belongs here if it is `opd`, or if the study lists nothing but optimizer, learning rate and gradient as its
difference from `opd`. Shares are fractions in [0, 1]; intervals are Student's over seeds, at 95% (`tables.study`).
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd

from opdlib.registry.recipes import load_recipe
from opdlib.registry.study import FULL, find_scale
from opdlib.results.study import StudyResults, open_study
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
    known = open_study(scale, root)
    return _arms(known, known.written("runs", "curves")).copy()


@lru_cache(maxsize=8)
def _arms(known: StudyResults, _: tuple[int, ...]) -> pd.DataFrame:
    scale, root, every = known.scale, known.folder.parent, find_scale(known.scale).arms.values()
    chosen = [a for a in every if a.name == FULL or (a.partner == FULL and set(a.differs) <= SWEPT)]
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


def learning(curves: pd.DataFrame, quantity: str) -> pd.DataFrame:
    """A quantity of labelled curves against the step: its mean over seeds, and the lowest and the highest seed.

    Columns: those of `LABELS`, step, seeds, value, low, high, quantity. Empty if nothing was logged.
    """
    grouped = curves.dropna(subset=[quantity]).groupby([*LABELS, "step"], sort=False)[quantity]
    return grouped.agg(seeds="size", value="mean", low="min", high="max").reset_index().assign(quantity=quantity)


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


def path_means(paths: pd.DataFrame, quantity: str) -> pd.DataFrame:
    """One number of `paths` and the norm, mean over the seeds of each arm and step: `LABELS`, step, rel_norm, value,
    quantity."""
    known = paths.assign(value=paths[quantity])[[*LABELS, "step", "rel_norm", "value"]]
    return known.groupby([*LABELS, "step"], sort=False).mean().reset_index().assign(quantity=quantity)


def wide(table: pd.DataFrame, quantities: Sequence[str]) -> pd.DataFrame:
    """`study.over_seeds` of `quantities`; one that no run has is NaN and rests on no seed."""
    return study.over_seeds(table.reindex(columns=[*dict.fromkeys([*LABELS, *quantities])]), quantities, by=LABELS)
