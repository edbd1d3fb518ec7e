"""Choosing rows, and setting our numbers beside the paper's."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from opdlib.errors import ParameterError
from opdlib.tables.paper import OPD_STYLE


def at(table: pd.DataFrame, rule: str, thresholds: Sequence[float]) -> pd.DataFrame:
    """The rows of a sparsity table for one rule at these thresholds. Raises ParameterError, with those there are."""
    return among(table[table["rule"] == rule], "threshold", thresholds)


def among(table: pd.DataFrame, column: str, values: Sequence[float]) -> pd.DataFrame:
    """The rows whose `column` is one of `values`. Raises ParameterError for a value that nobody measured."""
    there = table[column].to_numpy(dtype=float)
    equal = np.isclose(there[:, None], np.asarray(values, dtype=float)[None, :], rtol=1e-9, atol=0)
    for value, found in zip(values, equal.any(axis=0), strict=True):
        if not found:
            known = ", ".join(f"{v:g}" for v in sorted(set(there)))
            raise ParameterError(f"{column} {value:g} was not measured; there are {known}")
    chosen: pd.DataFrame = table[equal.any(axis=1)]
    return chosen.reset_index(drop=True)


def stacked(*tables: pd.DataFrame) -> pd.DataFrame:
    """Tables one below the other: the paper's and ours, or two views. A column that one lacks is NaN there."""
    return pd.concat(tables, ignore_index=True)


def headers(ours: Sequence[tuple[str, str]]) -> list[str]:
    """What columns of (pair, view) are called: `here, VIEW` for the views of one pair, else `PAIR, VIEW`.

    Raises ParameterError if two have one name.
    """
    several = len({pair for pair, _ in ours}) > 1
    found = [f"{pair if several else 'here'}, {view}" for pair, view in ours]
    if len(set(found)) < len(found):
        raise ParameterError(f"two columns are called {found[0]!r}; give each pair a name of its own")
    return found


def beside(
    ours: Sequence[pd.DataFrame], published: pd.DataFrame, keys: Sequence[str], value: str = "share"
) -> pd.DataFrame:
    """Values side by side: a row for each combination of `keys`, a column for each of ours, and the span of the paper.

    Ours are views of one pair, or pairs (`headers`). `ours` and `published` have columns pair, view, `value` and
    `keys`. The paper's columns, `paper_low` and `paper_high`, are the smallest and the largest value among its six
    OPD-style rows; NaN where it has no such number.
    """
    named = headers([(table["pair"].iloc[0], table["view"].iloc[0]) for table in ours])
    views = [table.set_index(list(keys))[value].rename(name) for table, name in zip(ours, named, strict=True)]
    rows = published[published["regime"].isin(OPD_STYLE)].groupby(list(keys), observed=True)[value]
    span = [rows.min().rename("paper_low"), rows.max().rename("paper_high")]
    wide: pd.DataFrame = pd.concat([*views, *(s.reindex(views[0].index) for s in span)], axis=1)
    return wide.reset_index()
