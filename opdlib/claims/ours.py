"""Our numbers for the claims: those of a summary, and a few that need the tables."""

from __future__ import annotations

import operator
from collections.abc import Callable

import pandas as pd

from opdlib.quantities import flat
from opdlib.registry.claims import Claim
from opdlib.tables import Results, at, blocks, layers, sparsity

Value = float | str | None


def quantity(results: Results, name: str) -> Value:
    """The number (or word) called `name`: one of `DERIVED`, or a dotted key of the summary. None if there is none."""
    if name in DERIVED:
        return DERIVED[name](results)
    value = dict(flat(results.summary)).get(name)
    return None if value is None else float(value)


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


def _projections(results: Results, atol: float = 1e-5) -> pd.DataFrame:
    """Sparsity of the matrices of the language layers, by layer and module."""
    table = at(sparsity(results, "layer and module"), "absolute", [atol])
    inside = (table["part"] == "language") & table["layer"].notna() & table["block"].isin(["attention", "mlp"])
    return table[inside]


def _least_sparse(results: Results) -> Value:
    shares = _projections(results)["share"]
    return float(shares.min()) if len(shares) else None


def _early_minus_late(results: Results, module: str | None = None) -> Value:
    table = _projections(results)
    early, late = _quarters(table[table["module"] == module] if module else table)
    return None if early is None or late is None else early - late


def _late_o_proj_minus_layer(results: Results) -> Value:
    table = _projections(results)
    (_, own), (_, layer) = _quarters(table[table["module"] == "o_proj"]), _quarters(table)
    return None if own is None or layer is None else own - layer


def _quarters(table: pd.DataFrame) -> tuple[float | None, float | None]:
    """Sparsity of the first and the last quarter of the layers, at least one layer each; None with fewer than two."""
    numbers = sorted(table["layer"].unique())
    count = max(len(numbers) // 4, 1)
    if len(numbers) < 2:
        return None, None
    ends = [table[table["layer"].isin(chosen)] for chosen in (numbers[:count], numbers[-count:])]
    early, late = (float(end["unchanged"].sum() / end["parameters"].sum()) for end in ends)
    return early, late


def _embedding_minus_layers(results: Results) -> Value:
    modules = at(sparsity(results, "module"), "absolute", [1e-5])
    own = modules[modules["block"] == "embedding"]
    table = layers(results)
    stack = table[table["layer"].notna() & (table["part"] == "language")]
    if own.empty or stack.empty:
        return None
    inside = (stack["sparsity"] * stack["parameters"]).sum() / stack["parameters"].sum()
    return float(own["unchanged"].sum() / own["parameters"].sum() - inside)


DERIVED: dict[str, Callable[[Results], Value]] = {
    "largest_energy_block": lambda results: _largest(results, "energy_share"),
    "largest_norm_block": lambda results: _largest(results, "rel_norm"),
    "least_sparse_projection": _least_sparse,
    "early_minus_late": _early_minus_late,
    "early_minus_late_k_proj": lambda results: _early_minus_late(results, "k_proj"),
    "late_o_proj_minus_layer": _late_o_proj_minus_layer,
    "embedding_minus_layers": _embedding_minus_layers,
}
"""Quantities that are not in a summary, shares at 1e-5 and weighted by coordinates. Early and late are the first and
the last quarter of the language layers."""
