"""Tables of quantities as text, every cell in the form of its own quantity. For display only: numbers are rounded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from opdlib.quantities import written
from opdlib.results.open import Results
from opdlib.tables.geometry import spread
from opdlib.tables.paper import OPD_STYLE
from opdlib.tables.readable import headed
from opdlib.tables.text import MISSING


def by_quantity(views: Sequence[Results], published: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """A row for each quantity: median and quartiles in each view, and the span of the paper's six OPD-style rows.

    `published`: `opdlib.tables.paper_geometry.numbers`.
    """
    found: dict[str, list[str]] = {}
    for results in views:
        own = spread(results, names).set_index("quantity").reindex([*names])
        low, middle, high = ([*map(written, names, own[column])] for column in ("low", "value", "high"))
        found[f"here, {results.view}"] = middle
        found[f"quartiles, {results.view}"] = [a if a == b else f"{a} to {b}" for a, b in zip(low, high, strict=True)]
    span = published[published["regime"].isin(OPD_STYLE)].groupby("quantity")["value"].agg(["min", "max"])
    for end, column in (("paper low", "min"), ("paper high", "max")):
        found[end] = [*map(written, names, span[column].reindex([*names]))]
    return headed(pd.DataFrame(found, index=pd.Index(names, name="quantity")))


def by_module(views: Sequence[Results], names: Sequence[str], column: str = "value") -> pd.DataFrame:
    """A row for each module: its matrices, and for each quantity the median in each view; or another column of
    `spread`."""
    tables = {v.view: spread(v, names, "module").set_index(["part", "module"]) for v in views}
    first = next(iter(tables.values()))
    modules = first[~first.index.duplicated()]
    found = {"matrices": modules["matrices"]}
    for name in names:
        for view, table in tables.items():
            own = table[table["quantity"] == name][column].reindex(modules.index)
            found[f"{name}, {view}"] = own.map(lambda x, kind=column if column == "ratio" else name: written(kind, x))
    shown = pd.DataFrame(found)
    shown.index = pd.Index([m if p == "language" else f"{p}: {m}" for p, m in shown.index], name="module", dtype=object)
    return headed(shown)


def by_row(table: pd.DataFrame, *columns: str) -> pd.DataFrame:
    """A row for each quantity of the column `quantity`, these columns written as what the row is."""
    names = table["quantity"]
    text = {column: [*map(written, names, table[column])] for column in columns}
    return headed(pd.DataFrame(text, index=pd.Index(names, name="quantity")))


def cells(table: pd.DataFrame, *columns: str) -> pd.DataFrame:
    """These columns, the first as row labels. A column of fractions is written as the quantity that it is called."""
    text = pd.DataFrame({column: [_cell(column, x) for x in table[column]] for column in columns})
    return headed(text.set_index(columns[0]))


def renamed(table: pd.DataFrame, names: Mapping[str, str]) -> pd.DataFrame:
    """The same text under other headings, that of the row labels included."""
    shown = table.rename(columns=names)
    shown.columns.name = names.get(str(table.columns.name), table.columns.name)
    return shown


def _cell(column: str, value: object) -> str:
    if isinstance(value, float):
        return written(column, value)
    return f"{value:,}" if isinstance(value, int) else str(value) or MISSING
