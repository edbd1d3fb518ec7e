"""Sentences that were computed about what runs changed in common: true for any runs, silent where there are none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from opdlib.quantities import short
from opdlib.registry.study import FULL
from opdlib.tables.subnetwork.overlap import NAMES, OTHER_SEED
from opdlib.tables.text import percent

NOTHING = "Overlaps were not counted yet; `opd study SCALE --overlaps` does it where the weights are."


def ceiling(table: pd.DataFrame) -> str:
    """What two seeds of full OPD share, at one threshold, and each kind of chance. Table: `by_comparison`."""
    own = table[table["arm"] == FULL]
    if own.empty:
        return "There are no two seeds of full OPD, so there is no ceiling."
    row = own.iloc[0]
    return (
        f"Two runs of full OPD that differ in the seed alone ({row['pairs']} pairs) share {percent(row['o1'])} of the "
        f"weights that change by more than {short(row['atol'])}. Chance gives {percent(row['global_o1'])} over all "
        f"weights, {percent(row['tensor_o1'])} within each tensor, and {percent(row['magnitude_o1'])} within each "
        f"magnitude of each tensor. No ratio can exceed {most(row):.2f} here, one over the larger density."
    )


def explained(table: pd.DataFrame) -> str:
    """How much of the overlap beyond global chance the preference for tensors and magnitudes explains."""
    own = _other_seeds(table)
    if own.empty:
        return NOTHING
    beyond = own["o1"] - own["global_o1"]
    tensor, size = ((own[f"{base}_o1"] - own["global_o1"]) / beyond for base in ("tensor", "magnitude"))
    low, high = own["ratio_magnitude"].min(), own["ratio_magnitude"].max()
    left = "more than chance in every comparison" if low > 1 else "not more than chance in every comparison"
    return (
        f"Of what is shared beyond the paper's chance, a preference for the same tensors explains {_span(tensor)}, and "
        f"together with one for the same magnitudes {_span(size)}. Over the strictest of the three kinds of chance the "
        f"runs share {low:.2f} to {high:.2f} times as much: {left}."
    )


def regimes(table: pd.DataFrame) -> str:
    """Each regime beside the ceiling, in pairs of other seeds, by the excess over chance within magnitudes."""
    own = _other_seeds(table)
    values = {str(row["arm"]): float(row["excess"]) for row in own.to_dict("records")}
    if FULL not in values or len(values) < 2:
        return "Regimes cannot be set beside the ceiling yet."
    top = values.pop(FULL)
    parts = [f"{NAMES[arm]} {percent(excess, 0)}" for arm, excess in values.items()]
    below = sum(excess < top for excess in values.values())
    return (
        f"The excess is {percent(top, 0)} between two seeds of OPD. Between OPD and another regime with another seed: "
        f"{'; '.join(parts)}. It is below that of two seeds in {below} of {len(values)} comparisons."
    )


def particular(table: pd.DataFrame) -> str:
    """Whether OPD and RLVR share more than OPD shares with the other regimes, over chance within magnitudes."""
    own = _other_seeds(table)
    ratios = {str(row["arm"]): float(row["ratio_magnitude"]) for row in own.to_dict("records") if row["arm"] != FULL}
    value = ratios.pop("rlvr", None)
    if value is None or not ratios:
        return "OPD and RLVR cannot be set beside other regimes yet."
    low, high = min(ratios.values()), max(ratios.values())
    where = "above" if value > high else "below" if value < low else "within"
    meaning = (
        "so this overlap is more than what the other regimes share with OPD"
        if where == "above"
        else "so this overlap is nothing particular to the two"
    )
    return (
        f"Changes that OPD and RLVR share are {value:.2f} times those of chance within magnitudes. That is {where} the "
        f"span of the other regimes with OPD, {low:.2f} to {high:.2f}, {meaning}."
    )


def thin(table: pd.DataFrame) -> str:
    """At which thresholds the masks are too full for a ratio to say anything. Table: all thresholds."""
    own = table[table["arm"] == FULL].to_dict("records")
    parts = [f"{most(row):.2f} above {short(row['atol'])}" for row in own]
    if not parts:
        return NOTHING
    return f"How large a ratio of two runs of OPD could be at all: {', '.join(parts)}. A limit near 1 says nothing."


def most(row: Mapping[Any, Any] | pd.Series) -> float:
    """The largest ratio over global chance that two masks of these densities can have."""
    return 1 / max(float(row["density_a"]), float(row["density_b"]))


def _other_seeds(table: pd.DataFrame) -> pd.DataFrame:
    return table[table["seed"] == OTHER_SEED] if len(table) else table


def _span(shares: pd.Series) -> str:
    low, high = percent(float(shares.min()), 0), percent(float(shares.max()), 0)
    return low if low == high else f"{low} to {high}"
