"""Numbers of one measurement: those of its summary, and a few that are made of them or need its tables."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from opdlib.checkpoints.names import BLOCKS
from opdlib.quantities import flat
from opdlib.stats import median_interval, verdict
from opdlib.tables import Results, at, geometry, layers, sparsity


@dataclass(frozen=True)
class Measured:
    """One run or pair as it was measured in view bf16."""

    seed: int
    summary: Mapping[str, Any]
    results: Results | None = None
    """Its tables, where they are at hand."""

    @cached_property
    def numbers(self) -> dict[str, float]:
        """Every number of the summary by its dotted key; NaN is undefined."""
        return {key: math.nan if value is None else float(value) for key, value in flat(self.summary)}

    def number(self, key: str) -> float:
        """The number with this key, of the summary or one of `MADE`, or, if the tables are at hand, of `FROM_TABLES`.
        NaN if it is undefined or absent."""
        if key in self.numbers:
            return self.numbers[key]
        if key.startswith("lead."):
            _, block, what = key.split(".")
            return _lead(self.numbers, block, what)
        if key in MADE:
            return MADE[key](self.numbers)
        if key in FROM_TABLES and self.results is not None:
            return FROM_TABLES[key](self.results)
        return math.nan

    def explained(self, null: str, key: str) -> Mapping[str, Any]:
        """What a null says of a number: ratio (null over observed) and verdict; empty where it says nothing.

        That of chance is made from the tables: the median over matrices of the ratio, with the interval of a median.
        """
        if null != "chance":
            known: Mapping[str, Any] = self.summary.get("explained", {}).get(null, {}).get(key) or {}
            return known if known.get("ratio") is not None else {}
        if self.results is None:
            return {}
        rows = geometry.matrices(self.results).query("quantity == @key").dropna(subset=["expected", "value"])
        ratio, low, high = median_interval(rows["expected"] / rows["value"])
        return {} if math.isnan(ratio) else {"ratio": ratio, "interval": [low, high], "verdict": verdict(low, high)}

    def combined(self, operation: str, key: str, other: str) -> float:
        """A number (`value`), minus another, or over another; NaN where one is absent or divided by zero."""
        left, right = self.number(key), self.number(other) if other else math.nan
        if operation == "value":
            return left
        return left - right if operation == "minus" else left / (right or math.nan)


def of_results(results: Results) -> Measured:
    """The measurement of one pair."""
    return Measured(0, results.summary, results)


def _lead(numbers: Mapping[str, float], block: str, what: str) -> float:
    """A block's number over the largest of the other blocks': above 1 it is the largest."""
    others = [numbers[key] for name in BLOCKS if name != block and (key := f"blocks.{name}.{what}") in numbers]
    largest = max((value for value in others if not math.isnan(value)), default=math.nan)
    return numbers.get(f"blocks.{block}.{what}", math.nan) / (largest or math.nan)


def _least_sparse_layer(numbers: Mapping[str, float]) -> float:
    found = [value for key, value in numbers.items() if key.startswith("layers.") and key.endswith("sparsity.1e-05")]
    return min(found, default=math.nan)


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


MADE: Mapping[str, Callable[[Mapping[str, float]], float]] = {
    "changed": lambda numbers: 1 - numbers["exact_zero"],
    "least_sparse_layer": _least_sparse_layer,
}
"""Made of the numbers of a summary; besides, `lead.BLOCK.WHAT` is what `_lead` says."""
FROM_TABLES: Mapping[str, Callable[[Results], float]] = {
    "least_sparse_projection": lambda results: float(_projections(results)["share"].min()),
    "early_minus_late": _early_minus_late,
    "early_minus_late_k_proj": lambda results: _early_minus_late(results, "k_proj"),
    "late_o_proj_minus_layer": lambda results: (
        _quarters(_projections(results, "o_proj"))[1] - _quarters(_projections(results))[1]
    ),
    "embedding_minus_layers": _embedding_minus_layers,
}
"""Shares at 1e-5, weighted by coordinates. Early and late are the first and the last quarter of the language layers."""
