"""Numbers of the study for claims about its arms: by seed, or by pair of runs where two are laid over each other."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd

from opdlib.claims.ours import Measured
from opdlib.registry.claims import Claim
from opdlib.registry.pairs import find_pair
from opdlib.registry.study import FULL, find_scale
from opdlib.results.layout import State, committed_folder, state_of
from opdlib.results.study import StudyResults, open_study
from opdlib.stats import mean_interval
from opdlib.tables import Results, study
from opdlib.tables.optimizers import compared, sweep
from opdlib.tables.subnetwork import overlap

EMPTY = pd.Series(dtype=float)


@dataclass(frozen=True)
class Found:
    """Numbers for a claim."""

    values: pd.Series = field(default_factory=EMPTY.copy)
    """By seed, or by pair of runs."""
    reason: str = ""
    """Why there is none."""
    ranged: bool = False
    """The interval is the range of the values: pairs that share a run are not independent."""

    @property
    def seeds(self) -> int:
        """How many runs, or pairs of them, it rests on."""
        return len(self.values)

    @property
    def interval(self) -> tuple[float, float, float]:
        """Mean, low, high: Student's over seeds at 95%, or the range over pairs; NaN where there is none."""
        if self.ranged and self.seeds > 1:
            return float(self.values.mean()), float(self.values.min()), float(self.values.max())
        return mean_interval(self.values)


def measured(scale: str, arm: str, root: Path | None = None) -> list[Measured]:
    """Every run of an arm, with its tables where complete results come with opdlib; none if the scale lacks the arm."""
    if arm not in find_scale(scale).arms:
        return []
    known, found = open_study(scale, root), []
    for seed in find_scale(scale).arms[arm].seeds:
        if known.has(arm, seed):
            pair = find_pair(f"{scale}-{arm}-s{seed}")
            complete = root is None and state_of(pair) is State.COMPLETE
            tables = Results(committed_folder(pair)) if complete else None
            found.append(Measured(seed, tables.summary if tables else known.summary(arm, seed), tables))
    return found


def of_runs(claim: Claim, runs: Sequence[Measured]) -> Found:
    """The number of each run of one arm that has it."""
    values = {run.seed: run.combined(claim.operation, claim.quantity, claim.other) for run in runs}
    found = pd.Series(values, dtype=float).dropna()
    missing = f"{claim.quantity} is undefined or absent" if runs else "no runs"
    return Found(found, "" if len(found) else missing)


def of_scale(claim: Claim, scale: str, root: Path | None = None) -> Found:
    """The number of a claim about arms, at this scale."""
    if claim.quantity == "o1":
        ratios = shared(scale, claim.arm, claim.quantity, claim.other, root)
        return Found(ratios, "" if len(ratios) else f"no pairs of runs opd and {claim.arm} at {scale}", ranged=True)
    if "best" in claim.operation:
        runs, first, second, why = rivals(scale, claim.arm, claim.other, claim.operation, root)
        values = EMPTY if why else study.paired(runs, first, second, claim.quantity)
        return Found(values, "" if len(values) else why or f"no seed in common at {scale}")
    if claim.operation in ("minus arm", "over arm", "share of loss"):
        return _of_arms(claim, study.runs(scale, root=root), scale)
    states = along(scale, claim.arm, claim.quantity, root)
    values = states["last"] - states["first"] if claim.operation == "last minus first" else states[claim.operation]
    return Found(values, "" if len(values) else f"no curve of {claim.arm} at {scale}")


def _of_arms(claim: Claim, runs: pd.DataFrame, scale: str) -> Found:
    arms = {FULL: None, claim.arm: None, claim.other: None}
    wide = study.by_seed(runs, claim.quantity, arms) if claim.quantity in runs else pd.DataFrame(columns=[*arms])
    one, other, full = (wide[arm].astype(float) for arm in (claim.arm, claim.other, FULL))
    values = {"minus arm": one - other, "over arm": one / other, "share of loss": (full - one) / (full - other)}
    found = values[claim.operation].dropna()
    if len(found):
        return Found(found)
    missing = [arm for arm in (claim.arm, claim.other) if wide[arm].notna().sum() == 0]
    what = f"runs of {' and '.join(missing)}" if missing else "seed in common"
    return Found(reason=f"no {what} at {scale}")


def along(scale: str, arm: str, quantity: str, root: Path | None = None) -> pd.DataFrame:
    """A logged number over the probes of each run of an arm: first, mean, last; indexed by seed."""
    curves = study.curves(scale, [arm], root) if arm in find_scale(scale).arms else study.curves(scale, root=root)[:0]
    return curves.dropna(subset=[quantity]).groupby("seed")[quantity].agg(["first", "mean", "last"])


def shared(scale: str, arm: str, quantity: str, other: str, root: Path | None = None) -> pd.Series:
    """What full OPD and an arm of other seeds changed in common, a share over one that chance expects
    (`expected.KIND.SHARE`), by pair of runs, at the highest threshold."""
    table = overlap.at_highest(overlap.overlaps(scale, root))
    table = table[(table["arm_b"] == arm) & (table["seed_a"] != table["seed_b"])]
    ratio: pd.Series = table[quantity] / table[other.removeprefix("expected.").replace(".", "_")]
    return ratio.reset_index(drop=True)


def rivals(
    scale: str, one: str, other: str, operation: str = "best minus best", root: Path | None = None
) -> tuple[pd.DataFrame, str, str, str]:
    """The runs of the sweep, the arm whose number is taken and the one that is subtracted, and why there are none.

    The second is the arm of an optimizer at its best rate; the first is so too, or, of `minus best`, an arm. The best
    rate has the highest mean accuracy. Where both are at their best, neither may have a single rate, and the one that
    is behind may not be at an edge of its sweep: beyond, a better rate may lie.
    """
    known = open_study(scale, root)
    runs, chosen = _swept(known, known.written("runs", "curves"))
    wanted = [other] if operation == "minus best" else [one, other]
    missing = [optimizer for optimizer in wanted if optimizer not in chosen]
    if missing:
        return runs, "", "", f"no runs of {' and '.join(missing)} at {scale}"
    second = chosen[other]["arm"]
    if operation == "minus best":
        return runs, one, second, ""
    single = [optimizer for optimizer in wanted if chosen[optimizer]["rates"] < 2]
    behind = min(wanted, key=lambda optimizer: chosen[optimizer]["accuracy"])
    why = f"a single rate of {' and '.join(single)} at {scale}" if single else ""
    if not single and chosen[behind]["edge"]:
        why = f"the best rate of {behind} at {scale} is the outermost that was tried"
    return runs, chosen[one]["arm"], second, why


@lru_cache(maxsize=8)
def _swept(known: StudyResults, _: tuple[int, ...]) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The runs of the sweep as they were at a time, and every optimizer at its best rate: many claims ask for them."""
    arms = sweep.arms(known.scale, known.folder.parent)
    runs = sweep.labelled(study.runs(known.scale, root=known.folder.parent), arms)
    return runs, {row["optimizer"]: row for row in compared.best(runs, arms).to_dict("records")}
