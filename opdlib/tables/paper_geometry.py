"""The paper's numbers on geometry (Tables 9 and 10) beside what chance alone would give them.

Numbers that the paper does not print and that follow from those it does are marked as our arithmetic where they are
shown.
"""

import math

import pandas as pd

from opdlib.quantities import SHARES, short_percent
from opdlib.registry.pairs import registry
from opdlib.tables import paper

SPECTRUM = (*(f"svd_energy.{k}" for k in (1, 8, 16)), "stable_rank", "rank_share.1e-05")
"""The quantities of Table 9 that are about the spectrum."""
SIZES = (
    {"density": "changed"}
    | {f"changed_in.low.{share:g}": f"bottom {short_percent(share)}" for share in SHARES}
    | {"changed_above.0.2": "upper 80%", "changed_in.principal.0.1": "principal 10%"}
)
"""P(changed) by size of the weight: quantity -> how its group of weights is called."""
COVERAGES = ("coverage.principal.0.1", *(f"coverage.low.{share:g}" for share in SHARES))
"""The quantities of Table 10 from which P(changed) follows."""


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
    table = paper.wide(["projection.joint.0.1"]).rename(columns={"projection.joint.0.1": "value"})
    sources = {pair.paper: pair.source for pair in registry().values() if pair.paper}
    expected = table["pair"].map(lambda pair: median_chance(sources[pair]))
    return table.assign(expected=expected, ratio=table["value"] / expected)


def coverage() -> pd.DataFrame:
    """One row a pair: coverage of the principal and the low mask at 10% (Table 10), and the ceiling of both.

    The ceiling, min(1, 10% / density) with density = 1 - exact zero (Table 8), is our arithmetic.
    """
    table = paper.wide(["coverage.principal.0.1", "coverage.low.0.1"])
    return table.assign(**{"coverage_ceiling.0.1": (0.1 / _density(table)).clip(upper=1)})


def changed() -> pd.DataFrame:
    """P(changed) by size of the weight, from Tables 8 and 10: our arithmetic.

    coverage * density / share of the mask, with density = 1 - exact zero. Approximate: the coverages are medians over
    matrices, the density is that of the whole model. Columns: those of `SIZES`.
    """
    covered = paper.wide(COVERAGES)
    return covered[paper.LABELS].join(by_size(covered, _density(covered)))


def by_size(coverages: pd.DataFrame, density: pd.Series) -> pd.DataFrame:
    """The columns of `SIZES`, from coverages at exact nonzero and a density in [0, 1]; cut off at 1."""
    found = {"density": density}
    found |= {f"changed_in.low.{share:g}": coverages[f"coverage.low.{share:g}"] * density / share for share in SHARES}
    found["changed_above.0.2"] = (1 - coverages["coverage.low.0.2"]) * density / 0.8
    found["changed_in.principal.0.1"] = coverages["coverage.principal.0.1"] * density / 0.1
    return pd.DataFrame(found).clip(upper=1)


def _density(table: pd.DataFrame) -> pd.Series:
    return 1 - table["pair"].map(paper.overview().set_index("pair")["exact_zero"])
