"""The paper's numbers on geometry (Tables 2, 9 and 10) in the shape of ours, and what chance alone would give them.

Numbers that the paper does not print and that follow from those it does are marked as our arithmetic where they are
shown.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from opdlib.quantities import SHARES, short_percent
from opdlib.registry.pairs import registry
from opdlib.tables import paper
from opdlib.tables.select import stacked

LABELS = ["pair", "regime", "origin", "view"]

_SPECTRUM = {f"top{k}_energy_pct": f"svd_energy.{k}" for k in (1, 8, 16)} | {
    "rank_1e-5_pct": "rank_share.1e-05",
    "joint_projection_10_pct": "projection.joint.0.1",
}
_COVERAGE = {
    f"{mask}_{100 * share:g}_pct": f"coverage.{mask}.{share:g}"
    for mask in ("principal", "low", "nonprincipal_or_low")
    for share in SHARES
}

SPECTRUM = (*(f"svd_energy.{k}" for k in (1, 8, 16)), "stable_rank", "rank_share.1e-05")
"""The quantities of Table 9 that are about the spectrum."""
SIZES = (
    {"density": "changed"}
    | {f"changed_in.low.{share:g}": f"bottom {short_percent(share)}" for share in SHARES}
    | {"changed_above.0.2": "upper 80%", "changed_in.principal.0.1": "principal 10%"}
)
"""P(changed) by size of the weight: quantity -> how its group of weights is called."""
COVERAGES = tuple(_COVERAGE.values())
"""The quantities of Table 10; of the last mask the paper has one share only."""


def numbers() -> pd.DataFrame:
    """Tables 9 and 10: columns pair, regime, origin ('paper'), view, quantity, value. Shares in [0, 1]."""
    spectrum, coverage = (paper.labelled(paper.read(name)) for name in ("table9_spectrum", "table10_coverage"))
    ranks = _melted(spectrum, {"stable_rank": "stable_rank"})
    shares = [_melted(spectrum, _SPECTRUM), _melted(coverage, _COVERAGE)]
    return stacked(ranks, *(part.assign(value=part["value"] / 100) for part in shares))


def overview(keys: Sequence[str]) -> pd.DataFrame:
    """One row a pair, with each of these quantities as a column of that key; NaN where the paper has none."""
    table = numbers()
    values = table.pivot_table(index="pair", columns="quantity", values="value").reindex(columns=[*keys])
    return table[LABELS].drop_duplicates().merge(values.rename_axis(columns=None), on="pair")


def shapes(source: str) -> pd.DataFrame:
    """The matrices in the layers of one of the paper's source models, from its public configuration.

    Columns: module, rows, columns, matrices (how many have this shape). Empty for a model whose shapes are not listed.
    """
    table = paper.read("shapes")
    return table[table["source"] == source].drop(columns="source").reset_index(drop=True)


def chance(table: pd.DataFrame, share: float = 0.1) -> pd.DataFrame:
    """What an isotropic update of these matrices would have in the source's leading directions; our arithmetic.

    Adds to `shapes` the columns k (directions: max(1, floor(share * smaller side))), arithmetic and expected
    (k^2 / (rows * columns), the joint projection in [0, 1]).
    """
    smaller = table[["rows", "columns"]].min(axis=1)
    k = [max(1, math.floor(round(share * side, 9))) for side in smaller]
    made = table.assign(k=k)
    arithmetic = [f"{row.k} * {row.k} / ({row.rows} * {row.columns})" for row in made.itertuples()]
    return made.assign(arithmetic=arithmetic, expected=made["k"] ** 2 / (made["rows"] * made["columns"]))


def median_chance(source: str, share: float = 0.1) -> float:
    """The median of `chance` over the matrices of a source model; NaN if its shapes are not listed."""
    table = chance(shapes(source), share)
    return float(table["expected"].repeat(table["matrices"].to_list()).median())


def projection() -> pd.DataFrame:
    """Table 9's joint projection at 10% beside chance: columns pair, regime, origin, view, value, expected, ratio.

    expected is `median_chance` of the pair's source, ratio the one over the other: our arithmetic, NaN where the shapes
    are not listed.
    """
    table = overview(["projection.joint.0.1"]).rename(columns={"projection.joint.0.1": "value"})
    sources = {pair.paper: pair.source for pair in registry().values() if pair.paper}
    expected = table["pair"].map(lambda pair: median_chance(sources[pair]))
    return table.assign(expected=expected, ratio=table["value"] / expected)


def coverage() -> pd.DataFrame:
    """One row a pair: coverage of the principal and the low mask at 10% (Table 10), and the ceiling of both.

    The ceiling, min(1, 10% / density) with density = 1 - exact zero (Table 8), is our arithmetic.
    """
    table = overview(["coverage.principal.0.1", "coverage.low.0.1"])
    return table.assign(**{"coverage_ceiling.0.1": (0.1 / _density(table)).clip(upper=1)})


def changed() -> pd.DataFrame:
    """P(changed) by size of the weight, from Tables 8 and 10: our arithmetic.

    coverage * density / share of the mask, with density = 1 - exact zero. Approximate: the coverages are medians over
    matrices, the density is that of the whole model. Columns: those of `SIZES`.
    """
    covered = overview(COVERAGES)
    return covered[LABELS].join(by_size(covered, _density(covered)))


def by_size(coverages: pd.DataFrame, density: pd.Series) -> pd.DataFrame:
    """The columns of `SIZES`, from coverages at exact nonzero and a density in [0, 1]; cut off at 1."""
    found = {"density": density}
    found |= {f"changed_in.low.{share:g}": coverages[f"coverage.low.{share:g}"] * density / share for share in SHARES}
    found["changed_above.0.2"] = (1 - coverages["coverage.low.0.2"]) * density / 0.8
    found["changed_in.principal.0.1"] = coverages["coverage.principal.0.1"] * density / 0.1
    return pd.DataFrame(found).clip(upper=1)


def _density(table: pd.DataFrame) -> pd.Series:
    return 1 - table["pair"].map(paper.overview().set_index("pair")["exact_zero"])


def _melted(table: pd.DataFrame, names: dict[str, str]) -> pd.DataFrame:
    known = {column: name for column, name in names.items() if column in table}
    long = table.melt(LABELS, [*known], var_name="quantity", value_name="value")
    return long.assign(quantity=long["quantity"].map(known))
