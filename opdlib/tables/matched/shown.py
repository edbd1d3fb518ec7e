"""The tables of the page on matched arms as text: every number with its interval, in the form of its quantity."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import pandas as pd

from opdlib.quantities import MISSING, label, short, written
from opdlib.stats import mean_interval
from opdlib.tables.matched import counts as counting
from opdlib.tables.matched.arms import BESIDE, present
from opdlib.tables.matched.paper import part_of_rate
from opdlib.tables.text import MINUS, number, percent, with_interval
from opdlib.tables.written import headed

PLUS_MINUS = "\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}"
NOTHING = pd.DataFrame({"": ["no runs to compare yet"]}, index=pd.Index([MISSING]))
"""What is shown instead of a table without a row or a column."""


def spread(key: str, value: float, low: float, high: float) -> str:
    """A number and half of its interval: `7.95% ± 0.08%`.

    Without one where there is none (of a single seed) and where it is zero (the number is the same in all runs).
    """
    text = written(key, value)
    alone = math.isnan(low) or math.isnan(value) or low == high
    return text if alone else f"{text}{PLUS_MINUS}{_half(key, text, (high - low) / 2)}"


def _half(key: str, text: str, half: float) -> str:
    """Half of an interval with as many decimals as the percentage it goes with, unless nothing would be left of it."""
    own = written(key, half)
    if not text.endswith("%"):
        return own
    rounded = f"{100 * half:.{len(text.partition('.')[2]) - 1}f}%"
    return rounded if float(rounded[:-1]) else own


def signed(key: str, value: float, low: float, high: float) -> str:
    """The same of a difference, with its sign."""
    text = spread(key, value, low, high)
    return f"+{text}" if value > 0 else text.replace("-", MINUS, 1) if value < 0 else text


def share_of(share: float) -> str:
    """A signed part of OPD's number: `+2.1% of OPD's`."""
    return f"{percent(share, signed=True)} of OPD's"


def means(table: pd.DataFrame, quantities: Sequence[str], arms: Sequence[str]) -> pd.DataFrame:
    """A row for each quantity, followed by what belongs beside it (chance, ceiling); a column for each arm, with its
    seeds in the heading. An arm without runs has a column of dashes."""
    wanted = dict.fromkeys(k for key in quantities for k in (key, BESIDE.get(key, key)))
    keys, seeds = present(table, [*wanted]), table["arm"].value_counts()
    own = {arm: table[table["arm"] == arm] for arm in arms}
    columns = {
        f"{arm} ({seeds.get(arm, 0)})": [spread(key, *mean_interval(runs[key].dropna())) for key in keys]
        for arm, runs in own.items()
    }
    return _table(columns if table["arm"].isin([*arms]).any() else {}, keys, "number (seeds)")


def compared(table: pd.DataFrame, error: Mapping[str, float] | None = None) -> pd.DataFrame:
    """A row for each quantity of `differences`, a column for each arm: the verdict, and the difference with its
    interval. `error`: `norm.middle_error`, a last column."""
    columns, keys = _columns(table, "arm", _verdict)
    if error is not None and columns:
        columns["interpolation"] = [written(key, error.get(key, math.nan)) for key in keys]
    return _table(columns, keys, "number (seeds)")


def effects(table: pd.DataFrame) -> pd.DataFrame:
    """A row for each quantity, a column for each effect: its size with interval, what it is of OPD's number, the
    verdict."""
    return _table(*_columns(table, "effect", _effect), "number (seeds)")


def factors(table: pd.DataFrame) -> pd.DataFrame:
    """A row for each quantity, a column for each change: its factor with interval, the paper's with the span over its
    OPD-style pairs; and the part of rate and length in the logarithm of our whole and of the paper's."""
    columns, keys = _columns(table, "change", lambda _, row: _factor(row), seeds=False)
    for heading, whole in (("rate and length in the whole", "all of it"), ("in the paper's", "paper")):
        columns[heading] = [percent(x, 0) for x in part_of_rate(table, whole)]
    return _table(columns if (table["seeds"] > 0).any() else {}, keys, "number")


def _columns(
    table: pd.DataFrame, by: str, write: Callable[[str, pd.Series], str], seeds: bool = True
) -> tuple[dict[str, list[str]], list[str]]:
    """Columns of text, one for each value of the column `by`, and the quantities that their rows are about.

    With `seeds` these stand in the heading, and a column that rests on none is left out.
    """
    quantities, columns = list(dict.fromkeys(table["quantity"])), {}
    for value, own in table.groupby(by, sort=False):
        rows, most = own.set_index("quantity"), int(own["seeds"].max())
        if most or not seeds:
            cells = [write(key, rows.loc[key]) if key in rows.index else MISSING for key in quantities]
            columns[f"{value} ({most})" if seeds else str(value)] = cells
    return columns, quantities


def accuracy(table: pd.DataFrame) -> pd.DataFrame:
    """`counts.accuracy` as text, one row an arm."""
    if table.empty:
        return NOTHING
    columns = {
        "seeds": table["seeds"],
        "correct": [spread("accuracy", *own) for own in table[["accuracy", "low", "high"]].itertuples(index=False)],
        "Wilson, outermost": [
            f"{written('accuracy', a)} to {written('accuracy', b)}"
            for a, b in table[["wilson_low", "wilson_high"]].itertuples(index=False)
        ],
        "source": [written("accuracy", x) for x in table["source"]],
        "learned": table["learned"],
        "tokens": [MISSING if math.isnan(x) else f"{x:,.0f}" for x in table["tokens"].astype(float)],
    }
    return headed(pd.DataFrame(columns).set_index(pd.Index(table["arm"], name="arm")))


def counts(table: pd.DataFrame) -> pd.DataFrame:
    """`counts.counted` as text, one row an arm."""
    if table.empty:
        return NOTHING
    shown = table.rename(columns={"by_chance": "by chance, at most", "strict": "another, strictly"}).set_index("arm")
    shown["by chance, at most"] = [f"{x:.1f}" for x in shown["by chance, at most"].astype(float)]
    return headed(shown)


def _table(columns: Mapping[str, object], keys: Sequence[str], corner: str) -> pd.DataFrame:
    """Columns of text with the labels of the quantities as row labels; `NOTHING` without a column or a row."""
    return (
        headed(pd.DataFrame(columns, index=pd.Index([*map(label, keys)], name=corner))) if columns and keys else NOTHING
    )


def _verdict(key: str, row: pd.Series) -> str:
    text = signed(key, row["difference"], row["low"], row["high"])
    return MISSING if text == MISSING else f"{row['verdict']}: {text}"


def _effect(key: str, row: pd.Series) -> str:
    text = signed(key, row["value"], row["low"], row["high"])
    share = "" if math.isnan(row["share"]) else f" ({share_of(row['share'])})"
    return MISSING if text == MISSING else f"{row['verdict']}: {text}{share}"


def _factor(row: pd.Series) -> str:
    return with_interval(row["value"], row["low"], row["high"], partial(number, form=".3g"))


def design(table: pd.DataFrame) -> pd.DataFrame:
    """`matched.design` as text, one row an arm."""
    shown = table.rename(columns=lambda column: str(column).replace("_", " ")).set_index("arm")
    shown["learning rate"] = [short(x) for x in table["learning_rate"]]
    return headed(shown)


def rows(table: pd.DataFrame) -> pd.DataFrame:
    """`paper.rows` as text, one row a pair of the paper."""
    columns = {label(key): [written(key, x) for x in table[key]] for key in table.columns[2:]}
    shown = pd.DataFrame({"regime": table["regime"], **columns}).set_index(pd.Index(table["pair"], name="pair"))
    return headed(shown)


def across(tables: dict[str, pd.DataFrame], arms: Sequence[str]) -> pd.DataFrame:
    """`counts.across` as text, one row a quantity."""
    table = counting.across(tables, arms)
    there = [arm for arm in arms if any((own["arm"] == arm).any() and own["seeds"].any() for own in tables.values())]
    return _table({arm: [*table[arm]] for arm in there}, [*table["quantity"]], "number")
