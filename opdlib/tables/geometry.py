"""Tables of the geometry of a pair: numbers of single matrices, and their medians and quartiles.

A number is known by its key (`opdlib.quantities`). Only matrices that changed have numbers.
"""

from collections.abc import Sequence

import pandas as pd

from opdlib.errors import ParameterError
from opdlib.quantities import key_of, label
from opdlib.registry.pairs import registry
from opdlib.results.layout import State, committed_folder, state_of
from opdlib.results.open import Results
from opdlib.tables.measured import GROUPS

ROW = ("metric", "side", "at", "atol")
"""The columns of geometry.csv that say which number a row is."""


def has_geometry(results: Results) -> bool:
    """Was the geometry measured? It was not if `--only sparsity` was asked for."""
    return "geometry" in results.provenance["identity"]["metrics"]


def others(results: Results) -> list[Results]:
    """Every other pair of the registry that was trained and has committed geometry; none where `results` is no pair of
    the registry."""
    pairs = [p for p in registry().values() if results.pair and p.key != results.pair.key and p.regime]
    found = [Results(committed_folder(pair)) for pair in pairs if state_of(pair) is State.COMPLETE]
    return [other for other in found if has_geometry(other)]


def matrices(results: Results) -> pd.DataFrame:
    """Every number of every matrix that changed.

    Columns: tensor, expert, part, layer, block, module, rows and columns (of the matrix), metric, side, at, atol,
    quantity (its key), value, expected (what chance alone would give; NaN where that is unknown). Raises RegistryError
    if the geometry was not measured.
    """
    return placed(results, results.matrices.drop(columns="route"))


def placed(results: Results, numbers: pd.DataFrame) -> pd.DataFrame:
    """Rows of geometry.csv or nulls.csv with the key of each number, and the place and the shape of its matrix."""
    numbers = numbers.assign(atol=numbers["atol"] if "atol" in numbers else float("nan"))
    keys = numbers[[*ROW]].drop_duplicates()
    keys["quantity"] = [key_of(*row) for row in keys.itertuples(index=False)]
    shape = results.tensors["shape"].str.extract(r"(\d+)x(\d+)$").astype("Int64")
    places = results.tensors[[*GROUPS["tensor"]]].assign(rows=shape[0], columns=shape[1])
    found: pd.DataFrame = numbers.merge(keys, on=[*ROW], how="left").merge(places, on="tensor", how="left")
    return found


def spread(results: Results, keys: Sequence[str] | None = None, by: str = "model") -> pd.DataFrame:
    """Every quantity, or those with these keys, over the matrices: median and quartiles.

    Columns: those of `by` (see `opdlib.tables.measured.GROUPS`), metric, side, at, atol, quantity, matrices (in which
    it is defined), low, value, high (quartiles and median: the medians are those of `opd summary`), expected (median
    of what chance would give), ratio_low, ratio, ratio_high (quartiles and median of value over expected, matrix by
    matrix). Single singular values are left to `spectrum`. Raises ParameterError for a key that nobody measured, unless
    nothing changed.
    """
    rows = matrices(results)
    rows = rows[rows["metric"] != "energy_at"]
    if keys is not None:
        known = set(rows["quantity"])
        for key in keys if known else ():
            if key not in known:
                there = ", ".join(sorted(map(label, known)))
                raise ParameterError(f"{label(key)!r} was not measured; there are {there}")
        rows = rows[rows["quantity"].isin(keys)]
    rows = rows.assign(ratio=rows["value"] / rows["expected"].where(rows["expected"] > 0))
    grouped = rows.groupby([*GROUPS[by], *ROW, "quantity"], observed=True, dropna=False, sort=False)
    quartiles = {
        f"{prefix}{end}": grouped[column].quantile(at)
        for column, prefix in (("value", ""), ("ratio", "ratio_"))
        for end, at in (("low", 0.25), ("high", 0.75))
    }
    medians = {column: grouped[column].median() for column in ("value", "expected", "ratio")}
    table = pd.DataFrame({"matrices": grouped["value"].count(), **medians, **quartiles}).reset_index()
    if GROUPS[by]:
        table = table.sort_values([*GROUPS[by]], kind="stable", ignore_index=True)
    return results.labelled(table)


def spectrum_keys(tops: Sequence[int], tolerances: Sequence[float]) -> list[str]:
    """The quantities that describe a spectrum, in the order of the tables."""
    ranks = [key_of("rank_share", at=tolerance) for tolerance in tolerances]
    return [*(f"svd_energy.{top}" for top in tops), "stable_rank", "effective_rank", *ranks, "hill_exponent"]


TURNING = (
    *(f"sines.{side}.{which}" for which in ("mean", "max") for side in ("left", "right")),
    *("spectral_drift", "spectral_drift_delta"),
)
"""How far the source's leading tenth turned, and how far its singular values moved."""


def overview(results: Results, keys: Sequence[str]) -> pd.DataFrame:
    """One row: the median of each of these quantities as a column of that key; NaN if no matrix has it."""
    values = spread(results, keys).set_index("quantity")["value"].reindex([*keys])
    return results.labelled(values.to_frame().T.reset_index(drop=True))


def spectrum(results: Results) -> pd.DataFrame:
    """The spectrum as a curve: the share of the energy in single singular values, by index from 1.

    Columns: rank (the largest that a matrix of this size can have), matrices (of this size), index, low, value, high
    (quartiles and median over them, shares in [0, 1]). The size that most matrices have comes first.
    """
    return results.labelled(by_index(matrices(results)))


def by_index(rows: pd.DataFrame) -> pd.DataFrame:
    """`spectrum` of rows of `placed`, without the columns that say whose it is."""
    rows = rows[rows["metric"] == "energy_at"].rename(columns={"at": "index"})
    rows["rank"] = rows[["rows", "columns"]].min(axis=1)
    grouped = rows.groupby(["rank", "index"])["value"]
    shares = {"low": grouped.quantile(0.25), "value": grouped.median(), "high": grouped.quantile(0.75)}
    table = pd.DataFrame({"matrices": grouped.count(), **shares}).reset_index()
    order = [False, False, True]
    return table.sort_values(["matrices", "rank", "index"], ascending=order, ignore_index=True)
