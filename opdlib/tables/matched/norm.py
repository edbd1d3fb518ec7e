"""Numbers against the relative norm of the update.

`along` is the table of that name of `opdlib.tables.study`.
"""

from collections.abc import Sequence

import pandas as pd

from opdlib.registry.study import FULL, study
from opdlib.tables import paper
from opdlib.tables.matched.arms import CORNERS, FASTER, LONG, REGIMES, same_source
from opdlib.tables.study import along as along_of


def largest_common(along: pd.DataFrame, arms: Sequence[str]) -> pd.Series:
    """The largest relative norm that each of `arms` with a run of the seed reached, by seed; of two arms at least."""
    if "rel_norm" not in along:
        return pd.Series(dtype=float)
    own = along[along["arm"].isin([*arms])]
    largest = own.pivot_table(index="seed", columns="arm", values="rel_norm", aggfunc="max").reindex(columns=[*arms])
    return largest[largest.notna().sum(axis=1) > 1].min(axis=1)


def drawn(along: pd.DataFrame, quantity: str, arms: Sequence[str] = tuple(CORNERS)) -> pd.DataFrame:
    """One quantity of these arms along training: arm, seed, step, rel_norm, group (the arm), value, quantity."""
    columns = [*dict.fromkeys(["arm", "seed", "step", "rel_norm", quantity])]
    table = along[along["arm"].isin([*arms])].reindex(columns=columns)
    return table.assign(group=table["arm"], value=table[quantity], quantity=quantity)


def rates() -> list[str]:
    """OPD and every arm that differs from it in the learning rate alone, of any scale."""
    arms = [arm for scale in study().values() for arm in scale.arms.values()]
    return [FULL, *dict.fromkeys(a.name for a in arms if a.partner == FULL and a.differs == ("learning_rate",))]


def over_source(scale: str) -> pd.DataFrame:
    """`opdlib.tables.study.along` of every scale over the source of this one; a seed is named after its scale."""
    tables = {name: along_of(name) for name in same_source(scale)}
    named = [table.assign(seed=f"{name} " + table["seed"].astype(str)) for name, table in tables.items()]
    return pd.concat(named, ignore_index=True)


def drawn_together(along: pd.DataFrame, quantity: str) -> pd.DataFrame:
    """The same of every arm with OPD's optimizer, and the paper's pairs as the group `paper`: arm is the pair. OPD at
    any rate is one group, other regimes are one, every other arm is its own."""
    group = {arm: arm for arm in (*CORNERS, FASTER[1], LONG)} | dict.fromkeys(rates(), "OPD, any rate")
    group |= dict.fromkeys(REGIMES, "other regimes")
    ours = drawn(along, quantity, tuple(group))
    columns = [*dict.fromkeys(["rel_norm", quantity])]
    wide = paper.numbers().pivot_table("value", "pair", "quantity").reindex(columns=columns).dropna()
    pairs = pd.DataFrame({"arm": wide.index, "rel_norm": wide["rel_norm"], "value": wide[quantity]})
    pairs = pairs.assign(group="paper", quantity=quantity)
    parts = ours.assign(group=ours["arm"].map(group)), pairs
    return pd.concat([part for part in parts if len(part)], ignore_index=True)
