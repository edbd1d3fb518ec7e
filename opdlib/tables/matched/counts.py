"""How often arms are the same and how often another, and how often they would be another by chance alone.

`differences` is the table of that name of `opdlib.tables.study`, or of several arms and quantities like it.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from opdlib.stats import LEVEL, bonferroni, mean_interval, wilson
from opdlib.tables.study import OTHER, SAME, UNDECIDED


def counted(differences: pd.DataFrame) -> pd.DataFrame:
    """One row an arm: arm, seeds (the fewest of its quantities), tested (differences with an interval), the same,
    another, undecided, by_chance and strict.

    by_chance: how many intervals would exclude 0 if no number differed, LEVEL * tested; an upper bound for `another`,
    because an interval within OPD's range is the same even if it excludes 0. strict: how many `another` are left if the
    intervals are widened so that, over all tests of the table, one of them would exclude 0 by chance with a probability
    of at most LEVEL (Bonferroni).
    """
    columns = ["arm", "seeds", "tested", SAME, OTHER, UNDECIDED, "by_chance", "strict"]
    if differences.empty:
        return pd.DataFrame(columns=columns)
    table = differences.assign(tested=differences["low"].notna(), strict=_strict(differences))
    rows = []
    for arm, own in table.groupby("arm", sort=False):
        tested = int(own["tested"].sum())
        verdicts = {word: int((own["verdict"] == word).sum()) for word in (SAME, OTHER, UNDECIDED)}
        row = {"arm": arm, "seeds": int(own["seeds"].min()), "tested": tested, **verdicts}
        rows.append(row | {"by_chance": LEVEL * tested, "strict": int(own["strict"].sum())})
    return pd.DataFrame(rows, columns=columns)


def _strict(table: pd.DataFrame) -> pd.Series:
    """Whether a difference is another and its wider interval excludes 0, too."""
    half = (table["high"] - table["low"]) / 2
    wider = bonferroni(half, table["seeds"], int(table["low"].notna().sum()))
    strict: pd.Series = (table["verdict"] == OTHER) & (table["difference"].abs() > wider)
    return strict


def across(tables: dict[str, pd.DataFrame], arms: Sequence[str]) -> pd.DataFrame:
    """The verdicts of several comparisons side by side: columns quantity, then one an arm, whose cells are the verdicts
    in the order of `tables`, joined by ` / `; a dash where a comparison has none or no seed."""
    quantities = list(dict.fromkeys(key for table in tables.values() for key in table["quantity"]))
    columns: dict[str, list[str]] = {"quantity": quantities}
    for arm in arms:
        compared = [table[(table["arm"] == arm) & (table["seeds"] > 0)] for table in tables.values()]
        found = [table.set_index("quantity")["verdict"] for table in compared]
        columns[arm] = [" / ".join(str(own.get(key, "-")) for own in found) for key in quantities]
    return pd.DataFrame(columns)


def accuracy(table: pd.DataFrame) -> pd.DataFrame:
    """One row an arm of a table of runs: arm, seeds, accuracy (mean), low, high (95%, over seeds), wilson_low,
    wilson_high (the outermost ends of the runs' own intervals), source, tokens (mean), learned.

    learned: `yes` if the interval of every run lies above that of the source, `no` if none does, else `in some seeds`.
    The source's interval is Wilson's, from its accuracy and as many problems. Arms are in their order, the study's.
    """
    columns = ["arm", "seeds", "accuracy", "low", "high", "wilson_low", "wilson_high", "source", "tokens", "learned"]
    rows = []
    for arm, own in table.groupby("arm", sort=False):
        mean, low, high = mean_interval(own["accuracy"])
        source, n = float(own["source_accuracy"].iloc[0]), int(own["n"].iloc[0])
        above = own["low"] > wilson(round(source * n), n)[1]
        learned = "yes" if above.all() else "in some seeds" if above.any() else "no"
        values = [arm, len(own), mean, low, high, own["low"].min(), own["high"].max(), source, own["tokens"].mean()]
        rows.append([*values, learned])
    return pd.DataFrame(rows, columns=columns)
