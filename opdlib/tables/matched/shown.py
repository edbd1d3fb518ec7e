"""The tables of the page on matched arms as text: every number with its interval, in the form of its quantity."""

import math
from collections.abc import Callable, Sequence
from functools import partial

import pandas as pd

from opdlib.quantities import MISSING, label, written
from opdlib.tables.matched.arms import BESIDE, after_holm, present
from opdlib.tables.matched.paper import part_of_rate
from opdlib.tables.study import ENOUGH, over_seeds, text_table
from opdlib.tables.written import MINUS, number, percent, with_interval

PLUS_MINUS = "\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}"
Text = dict[str, list[str]]
Write = Callable[[str, pd.Series], str]
"""Columns of text, and what makes a cell of a quantity and its row of a table."""


def spread(key: str, value: float, low: float, high: float, signed: bool = False) -> str:
    """A number and half of its interval: `7.95% ± 0.08%`; `signed` with a plus sign, too.

    Without one where there is none (of a single seed) and where it is zero (the number is the same in all runs). Half
    an interval has as many decimals as the percentage it goes with, unless nothing would be left of it.
    """
    text, half = written(key, value), (high - low) / 2
    if text != MISSING and half > 0:
        own = written(key, half)
        if text.endswith("%"):
            rounded = f"{100 * half:.{len(text.partition('.')[2]) - 1}f}%"
            own = rounded if float(rounded[:-1]) else own
        text = f"{text}{PLUS_MINUS}{own}"
    if signed:
        return f"+{text}" if value > 0 else text.replace("-", MINUS, 1) if value < 0 else text
    return text


def means(table: pd.DataFrame, quantities: Sequence[str], arms: Sequence[str]) -> pd.DataFrame:
    """A row for each quantity, followed by what belongs beside it (chance, ceiling); a column for each arm with runs,
    its seeds in the heading."""
    wanted = dict.fromkeys(k for key in quantities for k in (key, BESIDE.get(key, key)))
    own = table[table["arm"].isin([*arms])]
    own = own.sort_values("arm", key=lambda names: names.map([*arms].index), kind="stable")
    found = over_seeds(own, present(own, [*wanted]))
    return _by_quantity(found, "arm", lambda key, row: spread(key, row["value"], row["low"], row["high"]))


def by_arm(table: pd.DataFrame, quantities: Sequence[str]) -> pd.DataFrame:
    """The same with a row for each arm, in the order of the table, and a column for each quantity."""
    keys, rows = present(table, quantities), []
    for arm, own in over_seeds(table, keys).groupby("arm", sort=False):
        numbers = own.set_index("quantity")[["value", "low", "high"]]
        text = {label(key): spread(key, *numbers.loc[key]) for key in keys}
        rows.append({"arm": arm, "seeds": own["seeds"].max()} | text)
    return text_table(rows, "arm")


def compared(table: pd.DataFrame) -> pd.DataFrame:
    """A row for each quantity of `differences`, a column for each arm: the verdict, with an asterisk if it is left when
    Holm corrects for all tests of the table, and the difference with its interval."""
    marked = table.assign(verdict=table["verdict"] + after_holm(table).map({True: "*", False: ""}))
    return _by_quantity(marked, "arm", _judged)


def factors(table: pd.DataFrame) -> pd.DataFrame:
    """A row for each quantity, a column for each change: its factor with interval, the paper's with the span over its
    OPD-style pairs; and, where they are a change, the part of rate and length in the logarithm of our whole and of the
    paper's."""
    parts = {"rate and length in the whole": "all of it", "in the paper's": "paper"}
    parts = parts if "rate and length" in {*table["change"]} else {}
    beside = {heading: [percent(x, 0) for x in part_of_rate(table, whole)] for heading, whole in parts.items()}
    return _by_quantity(table, "change", _factor, beside)


def margins(table: pd.DataFrame) -> pd.DataFrame:
    """A row for each quantity of `margin.against_opd`, a column for each arm: the verdict, if it has enough seeds, and
    the factor with its interval; what differences are none; degrees of freedom, and whether runs were paired."""
    columns, keys = Text(), table["quantity"].unique()
    first = table.drop_duplicates("quantity").set_index("quantity").loc[keys]
    for arm, own in table.groupby("arm", sort=False):
        rows = own.set_index("quantity")
        said = rows["verdict"] + ": " if own["seeds"].max() >= ENOUGH else pd.Series("", rows.index)
        cells = [f"{said[key]}{_factor('', rows.loc[key].rename({'factor': 'value'}))}" for key in keys]
        columns[f"{arm} ({int(own['seeds'].max())})"] = [MISSING if text.endswith(MISSING) else text for text in cells]
    columns["margin"] = [MISSING if math.isnan(x) else f"{1 / x:.3g} to {x:.3g}" for x in first["margin"]]
    how = table["freedom"].map("{:.3g}, ".format) + table["paired"].map({True: "paired", False: "unpaired"})
    columns["degrees of freedom"] = ["; ".join(dict.fromkeys(how[table["quantity"] == key])) for key in keys]
    name = f"number (seeds), {int(table['p'].notna().sum())} tests"
    return text_table({name: [*map(label, keys)]} | columns if len(keys) else {}, name)


def _by_quantity(table: pd.DataFrame, by: str, write: Write, beside: Text | None = None) -> pd.DataFrame:
    """A row for each quantity, a column for each value of the column `by` that rests on a seed, followed by those of
    `beside`. The seeds stand in the heading, unless the columns are changes: the paper's has none."""
    keys, columns, seeds = table["quantity"].unique(), Text(), by != "change"
    for name, own in table.groupby(by, sort=False):
        rows, most = own.set_index("quantity"), int(own["seeds"].max())
        if most or not seeds:
            text = [write(key, rows.loc[key]) if key in rows.index else MISSING for key in keys]
            columns[f"{name} ({most})" if seeds else str(name)] = text
    tests = f", {int(table['low'].notna().sum())} tests" if "verdict" in table else ""
    labels = {f"number (seeds){tests}" if seeds else "number": [*map(label, keys)]}
    return text_table(labels | columns | (beside or {}) if any(table["seeds"] > 0) else {}, *labels)


def _judged(key: str, row: pd.Series) -> str:
    """The verdict, and the difference with its interval."""
    text = spread(key, row["difference"], row["low"], row["high"], signed=True)
    return MISSING if text == MISSING else f"{row['verdict']}: {text}"


def _factor(_: str, row: pd.Series) -> str:
    return with_interval(row["value"], row["low"], row["high"], partial(number, form=".3g"))
