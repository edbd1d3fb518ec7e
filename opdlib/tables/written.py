"""Tables as text, every number in the form of its kind. For display only: numbers are rounded, a dash is undefined.

The form that a number takes in every table is that of its kind, see `opdlib.quantities`; what does not depend on it
comes first.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import pandas as pd

from opdlib.quantities import MISSING, as_column, as_text, find, label, short, short_percent, written
from opdlib.results.open import Results
from opdlib.tables.geometry import spread
from opdlib.tables.measured import headers
from opdlib.tables.paper import OPD_STYLE

MINUS = "\N{MINUS SIGN}"
PERCENT = ("share", "sparsity", "exact_zero", "energy_share", "parameter_share", "coordinate_share", "expected")
FORMATS: Mapping[str, Callable[[float], str]] = {
    "rel_norm": lambda x: f"{100 * x:.4f}%",
    "threshold": short,
    "atol": short,
    "top": short_percent,
    "magnitude": short,
    "half_ulp": short,
} | dict.fromkeys(PERCENT, lambda x: f"{100 * x:.2f}%")
"""Column of `readable` -> its form. Other numbers: counts with separators, the rest with four digits."""

COLUMNS = {
    **dict.fromkeys(("ratio", "ratio_low", "ratio_high", "kept"), "ratio"),
    **dict.fromkeys(("from", "to", "learning_rate"), "small"),
}
"""Column of `cells` that is no quantity -> kind of its numbers, if they are no shares."""


def percent(share: float, digits: int = 1) -> str:
    """A share with so many digits after the point: 10.0%."""
    return f"{100 * share:.{digits}f}%".replace("-", MINUS) if math.isfinite(share) else MISSING


def points(difference: float, plain: bool = False) -> str:
    """A difference of shares in percentage points, with its sign: +2.1.

    `plain` is for columns of signed numbers: a hyphen instead of the minus sign, and zero as +0.0.
    """
    if math.isnan(difference):
        return MISSING
    rounded = round(100 * difference, 1) + 0.0  # what is added makes a negative zero positive
    if plain:
        return f"{rounded:+.1f}"
    return f"{rounded:+.1f}".replace("-", MINUS) if rounded else "0.0"


def number(value: float, form: str = ".2f") -> str:
    """A number in a form of Python's."""
    return MISSING if math.isnan(value) else format(value, form)


def probability(p: float) -> str:
    """A p value with two digits, down to 0.0001."""
    return MISSING if math.isnan(p) else f"{p:.2g}" if p >= 1e-4 else "<1e-4"


def interval(low: float, high: float, one: Callable[[float], str] = percent) -> str:
    """Two ends, each written by `one`: 10.0% to 12.0%."""
    return MISSING if math.isnan(low) or math.isnan(high) else f"{one(low)} to {one(high)}"


def with_interval(value: float, low: float, high: float, one: Callable[[float], str] = percent) -> str:
    """A value and its interval, each number written by `one`: 11.0% (10.0% to 12.0%). The value alone without one."""
    middle, ends = one(value), interval(low, high, one)
    return middle if MISSING in (middle, ends) else f"{middle} ({ends})"


def readable(table: pd.DataFrame, *columns: str, value: str = "share") -> pd.DataFrame:
    """These columns as text, the first as row labels, each column with the same digits throughout.

    `value` is the column whose format the columns of `opdlib.tables.beside` take.
    """
    kinds = {column: value if _is_value(column) else column for column in columns}
    text = pd.DataFrame({column: [_text(kinds[column], x) for x in table[column]] for column in columns})
    return headed(text.rename(columns=lambda name: str(name).replace("_", " ")).set_index(columns[0].replace("_", " ")))


def _is_value(column: str) -> bool:
    """Is this a column of `opdlib.tables.beside`?"""
    return column.startswith("paper_") or column.endswith((", bf16", ", stored"))


def headed(table: pd.DataFrame) -> pd.DataFrame:
    """The table with the name of its row labels in the corner of the header, instead of a second line of it."""
    shown = table.copy()
    shown.columns.name, shown.index.name = table.index.name, None
    return shown


def by_quantity(views: Sequence[Results], published: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """A row for each quantity: median and quartiles in each view, and the span of the paper's six OPD-style rows.

    `published`: `opdlib.tables.paper.numbers`.
    """
    found: dict[str, list[str]] = {}
    for results, name in zip(views, headers([(v.title, v.view) for v in views]), strict=True):
        own = spread(results, keys).set_index("quantity").reindex([*keys])
        low, middle, high = ([*map(written, keys, own[column])] for column in ("low", "value", "high"))
        found[name] = middle
        quartiles = f"quartiles, {name.removeprefix('here, ')}"
        found[quartiles] = [a if a == b else f"{a} to {b}" for a, b in zip(low, high, strict=True)]
    span = published[published["regime"].isin(OPD_STYLE)].groupby("quantity")["value"].agg(["min", "max"])
    for end, column in (("paper low", "min"), ("paper high", "max")):
        found[end] = [*map(written, keys, span[column].reindex([*keys]))]
    return headed(pd.DataFrame(found, index=pd.Index(map(label, keys), name="quantity")))


def by_module(views: Sequence[Results], keys: Sequence[str], column: str = "value") -> pd.DataFrame:
    """A row for each module: its matrices, and for each quantity the median in each view; or another column of
    `spread`."""
    named = headers([(v.title, v.view) for v in views])
    tables = {
        name.removeprefix("here, "): spread(v, keys, "module").set_index(["part", "module"])
        for name, v in zip(named, views, strict=True)
    }
    first = next(iter(tables.values()))
    modules = first[~first.index.duplicated()]
    found = {"matrices": modules["matrices"]}
    for key in keys:
        kind = COLUMNS.get(column) or _kind(key)
        for view, table in tables.items():
            own = table[table["quantity"] == key][column].reindex(modules.index)
            found[f"{label(key)}, {view}"] = pd.Series(as_column(kind, own), own.index)
    shown = pd.DataFrame(found)
    shown.index = pd.Index([m if p == "language" else f"{p}: {m}" for p, m in shown.index], name="module", dtype=object)
    return headed(shown)


def by_row(table: pd.DataFrame, *columns: str) -> pd.DataFrame:
    """A row for each quantity of the column `quantity`, these columns written as what the row is."""
    text = {column: [*map(written, table["quantity"], table[column])] for column in columns}
    return headed(pd.DataFrame(text, index=pd.Index(table["quantity"].map(label), name="quantity")))


def cells(table: pd.DataFrame, *columns: str, names: Mapping[str, str] | None = None) -> pd.DataFrame:
    """These columns, the first as row labels, under their names: `names`, the label of a quantity, or their own."""
    called = {c: found.label if (found := find(c)) else c.replace("_", " ") for c in columns} | {**(names or {})}
    text = {called[column]: _cells(column, [*table[column]]) for column in columns}
    return headed(pd.DataFrame(text).set_index(called[columns[0]]))


def _kind(column: str) -> str:
    found = find(column)
    return found.kind if found else COLUMNS.get(column, "share")


def _cells(column: str, values: Sequence[object]) -> list[str]:
    numbers = [value for value in values if isinstance(value, float)]
    if len(numbers) == len(values):
        return as_column(_kind(column), numbers)
    return [_cell(column, value) for value in values]


def _cell(column: str, value: object) -> str:
    if isinstance(value, float):
        return as_text(_kind(column), value)
    if column == "quantity":
        return label(str(value))
    return f"{value:,}" if isinstance(value, int) else str(value) or MISSING


def _text(column: str, value: object) -> str:
    if pd.isna(value) or value == "":  # type: ignore[call-overload]
        return MISSING
    if column in FORMATS and isinstance(value, int | float):
        return FORMATS[column](value)
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
