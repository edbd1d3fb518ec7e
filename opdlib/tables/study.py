"""Tables of the study: its runs, their curves, and arms compared over seeds.

A number of a run is called by its key in `opd summary --json`, levels joined by dots: `rel_norm`,
`projection.joint.0.1`. Shares are fractions in [0, 1]. What is undefined in a run (a spectrum of no change) is NaN.
`root` is a folder of tables like data/study, for tests. Arms are compared by `RULE`.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from opdlib.quantities import MISSING
from opdlib.registry.pairs import Pair
from opdlib.registry.recipes import load_recipe
from opdlib.registry.study import FULL, find_run, find_scale
from opdlib.results.study import StudyResults, open_study
from opdlib.stats import mean_interval
from opdlib.tables.written import headed

ENOUGH = 3
"""Seeds from which an arm is judged; fewer have numbers and no verdict."""
SAME, OTHER, UNDECIDED = "no detectable difference", "different", "inconclusive"
RULE = (
    "> Two arms are compared seed by seed, because they share everything that a seed draws: the problems and their "
    "order, the first samples. The interval is Student's, over seeds, at 95%; of a single seed there is none. This was "
    "laid down before the runs: *no detectable difference* from OPD in a number if the whole interval of the "
    "difference lies within OPD's own range from seed to seed, [-(max - min), max - min]; *different* if the interval "
    "excludes 0 and is not within that range; anything else is *inconclusive*."
)
"""The rule of sameness, as a quotation for pages."""
CALLED = {f"student.{name}": name for name in ("accuracy", "low", "high", "n")} | {"source.accuracy": "source_accuracy"}
"""Column of the study's runs -> its name in `runs`."""


def standing(scale: str, arms: Sequence[str], root: Path | None = None) -> pd.DataFrame:
    """One row an arm: arm, planned, finished (numbers of seeds), missing (the command for the rest; '' if none).

    An arm that the scale does not have is planned with 0 seeds and has no command.
    """
    known = find_scale(scale).arms
    table = pd.DataFrame({"arm": arms, "planned": [len(known[arm].seeds) if arm in known else 0 for arm in arms]})
    table["finished"] = table["arm"].map(runs(scale, arms, root=root)["arm"].value_counts()).fillna(0).astype(int)
    command = f"opd study {scale} --arms " + table["arm"]
    return table.assign(missing=command.where(table["finished"] < table["planned"], ""))


def runs(scale: str, arms: Sequence[str] = (), view: str = "bf16", root: Path | None = None) -> pd.DataFrame:
    """One row a run of the scale (of `arms`, if given), in the order of study.yaml.

    Columns: those of `runs` in `opdlib.results.study` in this view, but for the student's accuracy, low, high (Wilson's
    95% interval) and n (held-out problems), which go by these names, source_accuracy, and accuracy_unrounded: of the
    same problems by the float32 weights, as the run asked them after its last step; NaN where it did not, or computed
    in bf16, which rounds weights as it goes.
    """
    known = open_study(scale, root)
    return _named(_runs(known, view, known.written("runs", "curves")), arms)


@lru_cache(maxsize=16)
def _runs(known: StudyResults, view: str, _: tuple[int, ...]) -> pd.DataFrame:
    """All runs as they were at a time, in order: pages ask for them again and again, and putting hundreds of columns in
    order costs as much as reading them."""
    table = known.runs.rename(columns=CALLED)
    table = table.reindex(columns=[*dict.fromkeys([*table, *CALLED.values()])])
    table = table.assign(accuracy_unrounded=_unrounded(known, table))
    return of_arms(table[table["view"] == view], known.scale)


def _unrounded(known: StudyResults, runs: pd.DataFrame) -> pd.Series:
    """What the curves say of the last step of each of `runs` that computed in float32."""
    arms, curves = find_scale(known.scale).arms, known.curves
    whole = {name for name, arm in arms.items() if load_recipe(arm.recipe).precision == "fp32"}
    columns = ["arm", "seed", "step", "accuracy"]
    asked = curves.reindex(columns=columns).dropna().itertuples(index=False, name=None)
    found = {(arm, seed, step): accuracy for arm, seed, step, accuracy in asked if arm in whole}
    ends = runs.reindex(columns=["arm", "seed", "steps"]).itertuples(index=False, name=None)
    return pd.Series([found.get(end, math.nan) for end in ends], runs.index, dtype=float)


def repeats(pair: Pair | None, quantity: str, view: str = "bf16") -> pd.Series:
    """A number over all seeds of the arm that this pair is a run of; empty if it is no run of the study."""
    found = find_run(pair.key) if pair else None
    if found is None:
        return pd.Series(dtype=float)
    scale, arm, _ = found
    return runs(scale.name, [arm.name], view).set_index("seed").get(quantity, pd.Series(dtype=float)).dropna()


def along(scale: str, arms: Sequence[str] = (), root: Path | None = None) -> pd.DataFrame:
    """One row a run and step whose weights were measured, the last included, view bf16: arm, seed, step, numbers."""
    known = open_study(scale, root)
    return _named(_along(known, known.written("steps", "runs")), arms)


@lru_cache(maxsize=8)
def _along(known: StudyResults, _: tuple[int, ...]) -> pd.DataFrame:
    table = pd.concat([known.steps, known.runs.rename(columns={"steps": "step"})], ignore_index=True)
    return of_arms(table[table["view"] == "bf16"], known.scale)


def curves(scale: str, arms: Sequence[str] = (), root: Path | None = None) -> pd.DataFrame:
    """One row a run and step: arm, seed, step, and what was logged; NaN where nothing was."""
    known = open_study(scale, root)
    return _named(_curves(known, known.written("curves")), arms)


@lru_cache(maxsize=8)
def _curves(known: StudyResults, _: tuple[int, ...]) -> pd.DataFrame:
    return of_arms(known.curves, known.scale)


def _named(table: pd.DataFrame, arms: Sequence[str]) -> pd.DataFrame:
    """A copy of the rows of these arms; of all, if none is named."""
    return table[table["arm"].isin(arms)].reset_index(drop=True) if arms else table.copy()


def of_arms(table: pd.DataFrame, scale: str) -> pd.DataFrame:
    """The rows of the scale's arms, by arm in the order of study.yaml, seed and step. A whole number that may be
    missing is a float."""
    order = {name: place for place, name in enumerate(find_scale(scale).arms)}
    own = table[table["arm"].isin([*order])]
    own = own.astype({name: float for name, kind in own.dtypes.items() if kind == "Int64"})
    places = own[[key for key in ("arm", "seed", "step") if key in own]].assign(arm=own["arm"].map(order))
    return own.loc[places.sort_values([*places]).index].reset_index(drop=True)


def by_seed(table: pd.DataFrame, quantity: str, arms: Iterable[str]) -> pd.DataFrame:
    """One number of a table of runs: a row a seed, a column for each of `arms`; NaN where there is no such run."""
    own = table[["seed", "arm", quantity]]
    wide = own.pivot(index="seed", columns="arm", values=quantity)  # noqa: PD010  (refuses a run that is there twice)
    return wide.reindex(columns=[*arms]).astype(float).rename_axis(columns=None)


def paired(table: pd.DataFrame, arm: str, partner: str, quantity: str = "accuracy") -> pd.Series:
    """A number of `arm` minus that of `partner`, by seed, of the seeds that both have."""
    wide = by_seed(table, quantity, (arm, partner))
    return (wide[arm] - wide[partner]).dropna()


def seed_range(values: pd.Series) -> float:
    """The largest minus the smallest number among the seeds of an arm; NaN without runs."""
    return float(values.max() - values.min())


def summed(values: Sequence[float] | pd.Series, name: str = "value") -> dict[str, Any]:
    """How many there are, their mean and its 95% interval: seeds, `name`, low, high."""
    mean, low, high = mean_interval(values)
    return {"seeds": len(values), name: mean, "low": low, "high": high}


def judged(values: pd.Series, span: float) -> dict[str, Any]:
    """`summed` as `difference`, and by `RULE`: range (`span`, of OPD from seed to seed) and verdict."""
    found = summed(values, "difference")
    return found | {"range": span, "verdict": verdict(found["low"], found["high"], span)}


def over_seeds(table: pd.DataFrame, quantities: Sequence[str], by: Sequence[str] = ("arm",)) -> pd.DataFrame:
    """Mean and 95% interval over the rows of each group.

    Columns: those of `by`, quantity, seeds, value, low, high (NaN of a single seed). Undefined numbers are not counted
    among the seeds.
    """
    rows = [
        dict(zip(by, group, strict=True)) | {"quantity": quantity} | summed(part[quantity].dropna())
        for group, part in table.groupby([*by], sort=False)
        for quantity in quantities
    ]
    return pd.DataFrame(rows, columns=[*by, "quantity", "seeds", "value", "low", "high"])


def differences(table: pd.DataFrame, arms: Sequence[str], quantities: Sequence[str]) -> pd.DataFrame:
    """Each of `arms` minus OPD in each quantity that the table has, and whether they are the same by `RULE`.

    `table` is that of `runs`; differences are taken seed by seed. Columns: arm, quantity, seeds (that both have),
    difference, low, high, range (of OPD, max - min over all its seeds), verdict.
    """
    wide = {key: by_seed(table, key, dict.fromkeys([FULL, *arms])) for key in quantities if key in table}
    rows = [
        {"arm": arm, "quantity": key} | judged((own[arm] - own[FULL]).dropna(), seed_range(own[FULL]))
        for arm in arms
        for key, own in wide.items()
    ]
    return pd.DataFrame(rows, columns=["arm", "quantity", "seeds", "difference", "low", "high", "range", "verdict"])


def verdict(low: float, high: float, span: float) -> str:
    """`RULE` for the interval [low, high] of a difference and a seed-to-seed range `span` >= 0."""
    if math.isnan(low) or math.isnan(high):
        return UNDECIDED
    if -span <= low and high <= span:
        return SAME
    return OTHER if low > 0 or high < 0 else UNDECIDED


def text_table(content: Sequence[Mapping[str, Any]] | Mapping[str, Any], index: str) -> pd.DataFrame:
    """Text for the eye, of rows or of columns: `index` has the labels, a dash is what is not there; without rows, one
    that says so."""
    columns = {name: [*values] for name, values in content.items()} if isinstance(content, Mapping) else content
    table = pd.DataFrame(columns, dtype=object)
    if table.empty:
        return headed(pd.DataFrame({"": ["no runs yet"]}, index=pd.Index([MISSING], name=index)))
    return headed(table.where(table.notna(), MISSING).astype(str).astype(object).set_index(index))


def below(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Text tables of several scales, one below the other, with the scale in the column `model`; those without runs are
    left out, unless all are."""
    there = {scale: table for scale, table in tables.items() if "" not in table}
    if not there:
        return next(iter(tables.values()))
    named = [table.assign(model=scale) for scale, table in there.items()]
    known = pd.concat(named).fillna(MISSING)
    known = known[["model", *known.columns.drop("model")]]
    known.index.name, known.columns.name = None, named[0].columns.name or named[0].index.name
    return known


Columns = dict[str, str | tuple[Any, ...]]
"""Heading -> the column that stands under it as it is, or a form and the columns that it writes."""


def shown(table: pd.DataFrame, columns: Columns) -> pd.DataFrame:
    """A table for the eye; the first heading is that of the row labels."""
    text = {}
    for heading, of in columns.items():
        text[heading] = table[of] if isinstance(of, str) else map(of[0], *(table[column] for column in of[1:]))
    return text_table(text, next(iter(columns)))


def at_norm(table: pd.DataFrame, norms: pd.Series, quantities: Sequence[str]) -> pd.DataFrame:
    """The numbers that each run of `along` had when its relative norm was that of `norms` (by seed).

    Between two measured steps a number is taken to be linear in the logarithm of the relative norm. Columns: arm, seed,
    rel_norm, quantities; all NaN but the first two where the run never was at that norm between its first and last
    measured step.
    """
    rows = []
    for (arm, seed), part in table.groupby(["arm", "seed"], sort=False):
        wanted = norms.get(seed, math.nan)
        known = part[part["rel_norm"] > 0].sort_values("rel_norm")
        inside = len(known) > 0 and known["rel_norm"].iloc[0] <= wanted <= known["rel_norm"].iloc[-1]
        row = {"arm": arm, "seed": seed, "rel_norm": wanted if inside else math.nan}
        for quantity in quantities:
            at = np.interp(math.log(wanted), np.log(known["rel_norm"]), known[quantity]) if inside else math.nan
            row[quantity] = float(at)
        rows.append(row)
    return pd.DataFrame(rows)
