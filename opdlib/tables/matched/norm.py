"""Arms at equal relative norm: what they were when they had moved as far as one another.

`along` is the table of that name of `opdlib.tables.study`, norms are by seed. Between two measured steps a number is
interpolated, see `opdlib.tables.study.at_norm`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from opdlib.registry.study import FULL, study
from opdlib.tables import paper
from opdlib.tables.matched.arms import CORNERS, LONG, REGIMES, present
from opdlib.tables.study import at_norm, differences


def largest_common(along: pd.DataFrame, arms: Sequence[str]) -> pd.Series:
    """The largest relative norm that each of `arms` with a run of the seed reached, by seed; of two arms at least."""
    if "rel_norm" not in along:
        return pd.Series(dtype=float)
    own = along[along["arm"].isin([*arms])]
    largest = own.pivot_table(index="seed", columns="arm", values="rel_norm", aggfunc="max").reindex(columns=[*arms])
    return largest[largest.notna().sum(axis=1) > 1].min(axis=1)


def at_middle(along: pd.DataFrame, arm: str = FULL) -> pd.Series:
    """The relative norm of the runs of `arm`, by seed, at the last step before the end at which each of them that has
    more than one was measured; empty if there is none."""
    own = along[along["arm"] == arm]
    steps = [found for _, run in own.groupby("seed") if (found := set(run["step"]) - {run["step"].max()})]
    shared = set.intersection(*steps) if steps else set()
    return own[own["step"] == max(shared)].set_index("seed")["rel_norm"] if shared else pd.Series(dtype=float)


def compared(
    along: pd.DataFrame, arms: Sequence[str], quantities: Sequence[str], norms: pd.Series | None = None
) -> pd.DataFrame:
    """Each arm minus OPD where both had the relative norm `norms`: the columns of `opdlib.tables.study.differences`.

    Without `norms` each arm is compared where it and OPD had the largest norm that both reached. The relative norm
    itself, equal by construction, is left out. Seeds in which one of the two never was at the norm between its first
    and last measured step are not counted.
    """
    keys = [key for key in present(along, quantities) if key != "rel_norm"]
    tables = [differences(along.iloc[:0], [], keys)]
    for arm in arms:
        wanted = largest_common(along, [FULL, arm]) if norms is None else norms
        own = at_norm(along[along["arm"].isin([FULL, arm])], wanted, keys)
        tables.append(differences(own, [arm] if len(own) else [], keys))
    return pd.concat([table for table in tables if len(table)] or tables, ignore_index=True)


def middle_error(along: pd.DataFrame, quantities: Sequence[str], arm: str = FULL) -> pd.Series:
    """How far interpolation may be off: every middle step of a run of `arm` taken from its two neighbours, against what
    was measured there. Mean absolute difference by quantity, in its units; NaN without such steps.

    The neighbours lie about twice as far apart as those between which `at_norm` interpolates, and the error of a smooth
    curve grows with the square of that, so that the true error is about a quarter of this.
    """
    keys = present(along, quantities)
    found = []
    runs = along[(along["arm"] == arm) & (along["rel_norm"] > 0)] if keys else along.head(0)
    for _, run in runs.sort_values("step").groupby("seed"):
        for i in range(1, len(run) - 1):
            here = run.iloc[i]
            guess = at_norm(run.iloc[[i - 1, i + 1]], pd.Series({here["seed"]: here["rel_norm"]}), keys).iloc[0]
            found.append([abs(guess[key] - here[key]) for key in keys])
    return pd.DataFrame(found, columns=keys, dtype=float).mean()


def drawn(along: pd.DataFrame, quantity: str, arms: Sequence[str] = tuple(CORNERS)) -> pd.DataFrame:
    """One quantity of these arms along training: arm, seed, step, rel_norm, group (the arm), value, quantity."""
    columns = [*dict.fromkeys(["arm", "seed", "step", "rel_norm", quantity])]
    table = along[along["arm"].isin([*arms])].reindex(columns=columns)
    return table.assign(group=table["arm"], value=table[quantity], quantity=quantity)


def drawn_together(along: pd.DataFrame, quantity: str) -> pd.DataFrame:
    """The same of every arm with OPD's optimizer, by what it shares with OPD, and the paper's pairs as the group
    `paper`: arm is the pair."""
    arms = [arm for scale in study().values() for arm in scale.arms.values()]
    rates = [arm.name for arm in arms if arm.partner == FULL and arm.differs == ("learning_rate",)]
    group = dict.fromkeys(CORNERS, "other corners of the 2 x 2") | dict.fromkeys([FULL, *rates], "OPD, any rate")
    group |= dict.fromkeys(REGIMES, "other regimes") | {LONG: LONG}
    ours = drawn(along, quantity, tuple(group))
    pairs = _published(quantity).assign(group="paper", quantity=quantity)
    parts = ours.assign(group=ours["arm"].map(group)), pairs
    return pd.concat([part for part in parts if len(part)], ignore_index=True)


def rank_correlation(quantity: str) -> float:
    """Spearman's rank correlation of the relative norm and this quantity over the paper's ten pairs."""
    table = _published(quantity)
    return float(table["rel_norm"].rank().corr(table["value"].rank())) if len(table) > 2 else math.nan


def _published(quantity: str) -> pd.DataFrame:
    """The paper's pairs that have this quantity: arm (the pair), rel_norm, value."""
    columns = [*dict.fromkeys(["rel_norm", quantity])]
    wide = paper.numbers().pivot_table("value", "pair", "quantity").reindex(columns=columns).dropna()
    return pd.DataFrame({"arm": wide.index, "rel_norm": wide["rel_norm"], "value": wide[quantity]})
