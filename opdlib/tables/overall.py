"""The numbers of one pair in the order of the findings, each beside chance, rounding and the paper."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from opdlib.checkpoints.names import BLOCKS
from opdlib.quantities import MISSING, SHARES, as_column, family_of, find, quantity
from opdlib.results.flat import headline
from opdlib.tables import paper
from opdlib.tables.written import headed

GROUPS: Mapping[str, Sequence[str]] = {
    "How much changed": (
        *("rel_norm", "exact_zero", "sparsity.1e-06", "sparsity.1e-05", "sparsity.1e-04", "sparsity_rms.1e-03"),
        *("top_energy.0.01", "top_energy.0.05", "delta_abs.mean", "delta_abs.max"),
    ),
    "Where": (*(f"blocks.{block}.rel_norm" for block in BLOCKS), *(f"blocks.{block}.energy_share" for block in BLOCKS)),
    "Along how many directions": (
        *("svd_energy.1", "svd_energy.8", "svd_energy.16", "stable_rank", "effective_rank", "rank_share.1e-05"),
    ),
    "Along which directions": (
        *(f"projection.{side}.0.1" for side in ("joint", "left", "right")),
        *(f"rotation.{share}" for share in SHARES),
        *("spectral_drift", "spectral_drift_delta", "kappa"),
    ),
    "Which weights": (
        *("coverage.low.0.1", "coverage.principal.0.1", "coverage.principal_not_low.0.1"),
        *("coverage.nonprincipal_or_low.0.1", "coverage_pooled.low.0.1", "coverage_pooled.principal.0.1"),
        *("enrichment.principal_not_low.0.1", "enrichment.nonprincipal_or_low.0.1"),
        *("changed_in.low.0.1", "changed_in.principal.0.1"),
    ),
}
"""Question -> the keys that answer it."""


def overall(summary: Mapping[str, Any]) -> pd.DataFrame:
    """A row for each number of `GROUPS` that the summary has.

    Columns: question, quantity (its key), value (NaN: undefined), chance, null (what rounded noise of this size gives),
    verdict (whether that explains the value; empty where it was not asked), paper_low and paper_high (the span of the
    paper's six OPD-style pairs).
    """
    numbers = {key: math.nan if value is None else float(value) for key, value in headline(summary).items()}
    explained = summary.get("explained", {}).get("visibility", {})
    rows = []
    for question, keys in GROUPS.items():
        for key in (key for key in keys if key in numbers):
            low, high = paper.span(key)
            known = explained.get("changed" if key == "exact_zero" else key, {})
            chances = {"chance": _chance(key, numbers), "null": numbers.get(f"nulls.visibility.{key}", math.nan)}
            row = {"question": question, "quantity": key, "value": numbers[key], **chances}
            rows.append(row | {"verdict": known.get("verdict", ""), "paper_low": low, "paper_high": high})
    return pd.DataFrame(rows)


def _chance(key: str, numbers: Mapping[str, float]) -> float:
    chance = quantity(key).chance
    if find(chance):
        return numbers.get(chance, 1 - numbers["exact_zero"] if chance == "density" else math.nan)
    return float(chance) if chance else math.nan


def shown(table: pd.DataFrame) -> pd.DataFrame:
    """`overall` for the eye, a row a number, each in the digits of its kind; a column that says nothing is left out."""
    rows = []
    for row in table.to_dict("records"):
        numbers = [row[column] for column in ("value", "chance", "null", "paper_low", "paper_high")]
        here, chance, null, low, high = as_column(quantity(row["quantity"]).kind, numbers)
        span = low if low == high else f"{low} to {high}"
        rows.append((here, chance, null, row["verdict"] or MISSING, span))
    index = pd.Index([quantity(key).label for key in table["quantity"]], name="number", dtype=object)
    text = pd.DataFrame(rows, index=index, columns=["here", "chance", "rounded noise", "verdict", "paper"])
    said = [column for column in text if column == "here" or (text[column] != MISSING).any()]
    return headed(text[said])


def definitions(table: pd.DataFrame) -> dict[str, str]:
    """Label of every family of numbers in `overall`, parameters in capitals -> its definition."""
    families = dict.fromkeys(family_of(key) for key in table["quantity"])
    return {_plain(family.label): _plain(family.definition) for family in families}


def _plain(text: str) -> str:
    return re.sub(r"\{(\w+)\}", lambda found: "" if found[1] == "above" else found[1].upper(), text)
