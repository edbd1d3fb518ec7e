"""What else could give a claim's number: rounding, chance, the size of a block, another arm; and what is left of it.

| control | what is set beside the number |
| --- | --- |
| `visibility`, `permutation`, `spectrum`, `chance` | what that null expects of the same run, from its summary; of the \
paper's rows, from `opdlib.tables.paper_nulls` |
| `parameters` | a block's share of the weights beside its share of the energy: of the model, of what lies in the \
layers (`inner`), or over the share of the next block (`lead`) |
| `noise` | the number of Gaussian noise over the same source, at the norm of OPD's update (pair `noise`) |
| `magnitude` | what independent choice among weights of one magnitude in a tensor expects two runs to share |
| `averaging`, `unrelated` | what AdamW's state would be by averaging alone, or of gradients that are unrelated |
| `arm` | another arm of the same scale, seed by seed |
| `equal norm` | another arm, or another optimizer at its best rate, where both were equally far from the source |

The first six give a ratio, null over observed, which explains the number within 1 +- 0.05. The others give a difference
seed by seed, of logarithms, or of logits where the number is a share; it is *explained* if it is smaller than 5% of the
paper's own contrast on that scale. Intervals are Student's over seeds, at 95%; of a single run with a null in its
summary, that over its matrices, which is descriptive.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd

from opdlib import stats
from opdlib.claims import verdict
from opdlib.claims.ours import Measured
from opdlib.claims.study import EMPTY, along, measured, rivals, shared
from opdlib.registry.claims import PAPER, Claim, Null, Range
from opdlib.registry.study import FULL
from opdlib.stats import MARGIN, mean_interval, scaled
from opdlib.tables import paper, paper_nulls, study
from opdlib.tables.matched.norm import largest_common
from opdlib.tables.optimizers import state, sweep

NULLS: tuple[str, ...] = get_args(Null)


@dataclass(frozen=True)
class Control:
    """The verdict on a control, and the number that decides: a ratio or a difference; NaN where there is none."""

    verdict: str = verdict.NONE
    value: float = math.nan


@dataclass(frozen=True)
class Beside:
    """What a number is set beside."""

    own: Sequence[Measured]
    """The runs whose number it is."""
    scale: str = ""
    """Where other arms are looked for; empty: nowhere."""
    noise: Measured | None = None
    """The pair `noise`, if it is over the same source."""
    root: Path | None = None
    """A folder of tables like data/study, for tests."""
    known: dict[str, list[Measured]] = field(default_factory=dict, repr=False)

    def runs(self, arm: str) -> list[Measured]:
        """The runs of another arm of the scale; each is read once."""
        if arm not in self.known:
            self.known[arm] = measured(self.scale, arm, self.root)
        return self.known[arm]


def control(claim: Claim, beside: Beside) -> Control:
    """What is left of a claim under its control."""
    if claim.control in NULLS:
        own = _paper(claim) if claim.subject == PAPER else None
        return _null(claim, beside.own) if own is None else Control(*verdict.of_ratios(claim, own))
    ratio = RATIOS.get(claim.control)
    if ratio is not None:
        ratios = ratio(claim, beside).dropna()
        if claim.control == "magnitude" and len(ratios):  # pairs of runs are no replicates: their range
            found = stats.verdict(float(ratios.min()), float(ratios.max()))
            return Control(verdict.control(claim, found), float(ratios.mean()))
        return Control(*verdict.of_ratios(claim, ratios)) if len(ratios) else Control()
    differences = DIFFERENCES.get(claim.control)
    if differences is None or not beside.scale:
        return Control()
    values = differences(claim, beside).replace([math.inf, -math.inf], math.nan).dropna()
    if not len(values):
        return Control()
    mean, low, high = mean_interval(values)
    return Control(verdict.control(claim, verdict.side(low, high, margin(claim))), mean)


def margin(claim: Claim) -> Range:
    """Differences that are none: up to `MARGIN` of the paper's own contrast; 0 alone where it has none."""
    if claim.contrast_own is None or claim.contrast_other is None:
        return Range(0.0, 0.0)
    own, other = (float(scaled(claim.control_key, value)) for value in (claim.contrast_own, claim.contrast_other))
    return Range(-MARGIN * abs(own - other), MARGIN * abs(own - other))


def _null(claim: Claim, own: Sequence[Measured]) -> Control:
    records = [run.explained(claim.control, claim.control_key) for run in own]
    known = [record for record in records if record]
    if len(known) == 1:
        return Control(verdict.control(claim, known[0]["verdict"]), known[0]["ratio"])
    return Control(*verdict.of_ratios(claim, pd.Series([record["ratio"] for record in known]))) if known else Control()


def _parameters(claim: Claim, beside: Beside) -> pd.Series:
    size = claim.control_key.replace("energy_share", "parameter_share")
    pairs = [(run.number(size), run.number(claim.control_key)) for run in beside.own]
    return pd.Series([null / (observed or math.nan) for null, observed in pairs], dtype=float)


def _noise(claim: Claim, beside: Beside) -> pd.Series:
    if beside.noise is None:
        return EMPTY
    observed = pd.Series([run.number(claim.control_key) for run in beside.own], dtype=float)
    return beside.noise.number(claim.control_key) / observed.where(observed > 0)


def _magnitude(claim: Claim, beside: Beside) -> pd.Series:
    if not beside.scale:
        return EMPTY
    return 1 / shared(beside.scale, claim.arm, "o1", "expected.magnitude.o1", beside.root)


def _state(claim: Claim, beside: Beside) -> pd.Series:
    if not beside.scale:
        return EMPTY
    found = along(beside.scale, claim.arm, claim.control_key, beside.root)
    if claim.control == "unrelated":
        return state.unrelated_cosine(math.inf) / found["last"].where(found["last"] > 0)
    return found["first"].map(state.settled_cv) / found["last"]


RATIOS: Mapping[str, Callable[[Claim, Beside], pd.Series]] = {
    "parameters": _parameters,
    "noise": _noise,
    "magnitude": _magnitude,
    "averaging": _state,
    "unrelated": _state,
}
"""Control -> its null over what was observed, by run or pair of runs."""


def _arm(claim: Claim, beside: Beside) -> pd.Series:
    arm, key = claim.arm or FULL, claim.control_key
    if key == "accuracy":
        return _apart(key, study.by_seed(study.runs(beside.scale, root=beside.root), key, (arm, claim.control_arm)))
    numbers = {
        name: pd.Series({run.seed: run.number(key) for run in beside.runs(name)}, dtype=float)
        for name in (arm, claim.control_arm)
    }
    return _apart(key, pd.DataFrame(numbers))


def _equal_norm(claim: Claim, beside: Beside) -> pd.Series:
    scale, key, other = beside.scale, claim.control_key, claim.control_arm
    if other in sweep.OPTIMIZERS:
        runs, own, other, why = rivals(scale, claim.arm, other, "minus best", beside.root)
        if why:
            return EMPTY
        if key == "accuracy":
            return _equal_distance(own, other, runs, study.curves(scale, [own, other], beside.root))
        table = sweep.paths(scale, sweep.arms(scale, beside.root), beside.root)
        known = dict.fromkeys(table[table["optimizer"] == "adamw"]["arm"], "own") | {other: "other"}  # all its rates
    else:
        table, known = study.along(scale, root=beside.root), {claim.arm: "own", other: "other"}
    table = table[table["arm"].isin([*known])]
    table = table.assign(arm=table["arm"].map(known))
    if set(table["arm"]) != {"own", "other"}:
        return EMPTY
    there = study.at_norm(table, largest_common(table, ["own", "other"]), [key])
    return _apart(key, study.by_seed(there, key, ("own", "other")))


def _equal_distance(own: str, other: str, runs: pd.DataFrame, curves: pd.DataFrame) -> pd.Series:
    """Accuracy of one arm when it was as far from the source as the other came, between two evaluations linear in the
    distance, apart from the other's at its end; NaN where the first never came so far."""
    points = curves.dropna(subset=["accuracy", "distance"])
    source = dict(zip(runs["seed"], runs["source_accuracy"], strict=True))
    ways = {arm: dict(iter(points[points["arm"] == arm].groupby("seed"))) for arm in (own, other)}
    rows = {}
    for seed in set(ways[own]) & set(ways[other]):
        end = ways[other][seed].iloc[-1]
        columns = ways[own][seed][["distance", "accuracy"]].to_numpy(dtype=float)
        distances, accuracies = np.vstack([[0.0, source[seed]], columns]).T
        rows[seed] = [float(np.interp(end["distance"], distances, accuracies, right=math.nan)), float(end["accuracy"])]
    return _apart("accuracy", pd.DataFrame.from_dict(rows, orient="index", columns=["own", "other"], dtype=float))


def _apart(key: str, wide: pd.DataFrame) -> pd.Series:
    """The first column minus the second, on the scale of the quantity."""
    own, other = (scaled(key, wide[name].to_numpy(dtype=float)) for name in wide)
    return pd.Series(own - other, wide.index)


DIFFERENCES: Mapping[str, Callable[[Claim, Beside], pd.Series]] = {"arm": _arm, "equal norm": _equal_norm}
"""Control -> the claim's arm minus another, by seed, on the scale of `opdlib.stats.scaled`."""


def _paper(claim: Claim) -> pd.Series:
    """Visibility of the paper's OPD-style rows: null over printed, by pair."""
    table = paper_nulls.coverage()
    ratios: pd.Series = table[table["regime"].isin(paper.OPD_STYLE)].set_index("pair")[RATIO_OF[claim.control_key]]
    return ratios


RATIO_OF = {f"coverage.{mask}.0.1": f"ratio_{mask}" for mask in ("low", "principal")}
"""Number of the paper's rows -> the column of `opdlib.tables.paper_nulls.coverage` with its ratio."""


def paper_rows(quantity: str) -> pd.Series:
    """The paper's OPD-style rows, by pair."""
    table = paper.numbers().query("quantity == @quantity and regime in @paper.OPD_STYLE")
    return table.set_index("pair")["value"]
