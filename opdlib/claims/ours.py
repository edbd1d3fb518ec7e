"""Our numbers for the claims: those of a summary, and a few that need the tables."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable

import pandas as pd

from opdlib.quantities import flat
from opdlib.registry.claims import Claim
from opdlib.tables import Results, at, blocks, layers, sparsity

Value = float | str | None


def quantity(results: Results, name: str) -> Value:
    """The number (or word) called `name`: one of `DERIVED`, or a key of the summary. None if there is none."""
    value = DERIVED[name](results) if name in DERIVED else dict(flat(results.summary)).get(name)
    return value if value is None or isinstance(value, str) else None if math.isnan(value) else float(value)


def ours_of(claim: Claim, results: Results) -> Value:
    """Our number (or word) for a claim; None if it does not exist or is undefined."""
    parts = claim.parts
    left = quantity(results, str(parts["left"]))
    if parts["right"] is None:
        return left
    right = quantity(results, parts["right"])
    if not isinstance(left, float) or not isinstance(right, float) or (parts["sign"] == "/" and right == 0):
        return None
    return float((operator.sub if parts["sign"] == "-" else operator.truediv)(left, right))


def _largest(results: Results, column: str) -> Value:
    table = blocks(results)
    known = table.dropna(subset=[column]).sort_values(column)
    return None if known.empty else str(known["block"].iloc[-1])


def _projections(results: Results, module: str | None = None) -> pd.DataFrame:
    """Sparsity of the matrices of the language layers, by layer and module; of one module only, if given."""
    table = at(sparsity(results, "layer and module"), "absolute", [1e-5])
    inside = (table["part"] == "language") & table["layer"].notna() & table["block"].isin(["attention", "mlp"])
    return table[inside & (table["module"] == module)] if module else table[inside]


def _quarters(table: pd.DataFrame) -> tuple[float, float]:
    """Sparsity of the first and the last quarter of the layers, at least one layer each; NaN with fewer than two."""
    numbers = sorted(table["layer"].unique())
    count = max(len(numbers) // 4, 1)
    ends = [table[table["layer"].isin(chosen)] for chosen in (numbers[:count], numbers[-count:])]
    early, late = (_share(end) if len(numbers) > 1 else math.nan for end in ends)
    return early, late


def _share(table: pd.DataFrame) -> float:
    return float(table["unchanged"].sum() / table["parameters"].sum()) if len(table) else math.nan


def _early_minus_late(results: Results, module: str | None = None) -> float:
    early, late = _quarters(_projections(results, module))
    return early - late


def _embedding_minus_layers(results: Results) -> float:
    modules, table = at(sparsity(results, "module"), "absolute", [1e-5]), layers(results)
    stack = table[table["layer"].notna() & (table["part"] == "language")]
    if stack.empty:
        return math.nan
    inside = (stack["sparsity"] * stack["parameters"]).sum() / stack["parameters"].sum()
    return float(_share(modules[modules["block"] == "embedding"]) - inside)


DERIVED: dict[str, Callable[[Results], Value]] = {
    "largest_energy_block": lambda results: _largest(results, "energy_share"),
    "largest_norm_block": lambda results: _largest(results, "rel_norm"),
    "least_sparse_projection": lambda results: float(_projections(results)["share"].min()),
    "early_minus_late": _early_minus_late,
    "early_minus_late_k_proj": lambda results: _early_minus_late(results, "k_proj"),
    "late_o_proj_minus_layer": lambda results: (
        _quarters(_projections(results, "o_proj"))[1] - _quarters(_projections(results))[1]
    ),
    "embedding_minus_layers": _embedding_minus_layers,
}
"""Quantities that are not in a summary, shares at 1e-5 and weighted by coordinates. Early and late are the first and
the last quarter of the language layers."""
