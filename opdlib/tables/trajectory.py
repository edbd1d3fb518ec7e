"""Runs whose weights were measured every few steps: sizes against the step, and similarity to the last subspace.

`root` is a folder of tables like data/study, for tests.
"""

from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd

from opdlib.quantities import written
from opdlib.registry.study import FOLLOWED, find_scale
from opdlib.results.study import open_study
from opdlib.tables.study import of_arms, text_table
from opdlib.tables.written import percent

SIZE = {"relative norm": "rel_norm", "unchanged": "exact_zero", "stable rank": "stable_rank"}
SIZE |= {"top 16": "svd_energy.16", "joint projection": "projection.joint.0.1"}
"""Heading -> what is followed from the first measured step to the last."""
LOCKING = {"similarity": "locking", "same norms": "locking_norms", "same spectra": "locking_spectra"}
"""Heading -> similarity to the last subspace, and that of each control (`opdlib.metrics.trajectory`)."""


def steps(scale: str, root: Path | None = None) -> pd.DataFrame:
    """One row a run, view and measured step: arm, regime, seed, view, step, and `opdlib.results.study.ALONG`."""
    table = of_arms(open_study(scale, root).along, scale)
    regimes = {name: arm.regime for name, arm in find_scale(scale).arms.items()}
    table.insert(1, "regime", table["arm"].map(regimes))
    return table


def followed(table: pd.DataFrame, name: str, view: str, regime: str = "") -> pd.DataFrame:
    """The columns of `steps` for a training of one's own: `table` is what `opdlib.results.several.follow` gives."""
    return table.drop(columns="name").assign(arm=name, regime=regime, seed=0, view=view)


def missing(scale: str, root: Path | None = None) -> list[str]:
    """Arms that were to be measured step by step, and have no rows."""
    there = set(steps(scale, root)["arm"])
    return [arm for arm in FOLLOWED if arm in find_scale(scale).arms and arm not in there]


def halfway(table: pd.DataFrame) -> pd.DataFrame:
    """Of each run and view the last step that is at most half of its last."""
    half = table[table["step"] <= _last(table) / 2]
    return half[half["step"] == _last(half)].reset_index(drop=True)


def ends(table: pd.DataFrame) -> pd.DataFrame:
    """For the eye: the numbers of `SIZE` at the first and at the last measured step, and the mean cosine of strides."""
    rows: list[dict[str, Any]] = []
    for (arm, seed, view), run in table.groupby(["arm", "seed", "view"], sort=False):
        first, last = run.iloc[0], run.iloc[-1]
        row = {"run": f"{arm}, seed {seed}", "view": view, "updates": f"{first['step']} to {last['step']}"}
        row |= {name: f"{written(key, first[key])} to {written(key, last[key])}" for name, key in SIZE.items()}
        rows.append(row | {"cosine": written("step_cosine", run["step_cosine"].mean())})
    return text_table(rows, "run")


def locked(table: pd.DataFrame) -> pd.DataFrame:
    """For the eye: similarity to the last subspace halfway, on each side, beside both controls."""
    rows: list[dict[str, Any]] = []
    for row, side in product(halfway(table).to_dict("records"), ("left", "right")):
        found = {name: written(f"{key}.{side}", row[f"{key}.{side}"]) for name, key in LOCKING.items()}
        run = f"{row['arm']}, seed {row['seed']}"
        rows.append({"run": run, "view": row["view"], "update": row["step"], "side": side, **found})
    return text_table(rows, "run")


def _last(table: pd.DataFrame) -> pd.Series:
    return table.groupby(["arm", "seed", "view"])["step"].transform("max")


def span(half: pd.DataFrame, column: str) -> str:
    """For the eye: the similarity of the runs of `halfway`, from lowest to highest, or one number where they agree."""
    low, high = (percent(end, 0) for end in (half[column].min(), half[column].max()))
    return low if low == high else f"{low} to {high}"
