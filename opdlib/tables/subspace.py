"""Tables of where an update points and which weights it reaches, each number beside what chance would give."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from opdlib.quantities import name_of
from opdlib.results.open import Results
from opdlib.tables import paper_geometry
from opdlib.tables.geometry import matrices, overview, spread
from opdlib.tables.text import short_percent

UPDATE_ATOL = (0.0, 1e-5)
"""A weight is updated if abs(delta) exceeds this: the paper's coverages take the first, its overlaps the second."""
MASKS = ("principal", "low")
SIDES = ("joint", "left", "right")


def projection(results: Results, shares: Sequence[float], by: str = "model") -> pd.DataFrame:
    """`spread` of the share of the update's energy in the source's leading directions, on each side, at each share of
    rank, with the column share."""
    names = [name_of("projection", side, share) for side in SIDES for share in shares]
    return spread(results, names, by).rename(columns={"at": "share"})


def joint(results: Results) -> pd.DataFrame:
    """One row: the joint projection at 10% of rank, in the columns of `opdlib.tables.paper_geometry.projection`.

    value and expected are medians over matrices, ratio is the one over the other; NaN if nothing changed.
    """
    found = spread(results, [name_of("projection", "joint", 0.1)])
    row = found[["value", "expected"]].reindex([0])
    return results.labelled(row.assign(ratio=row["value"] / row["expected"]))


def coverage(results: Results, shares: Sequence[float]) -> pd.DataFrame:
    """Coverage of the principal and the low-magnitude mask beside its bounds; medians over matrices, all in [0, 1].

    Columns: quantity (mask and share), atol (of the update mask), mask, share (of all coordinates that the mask holds:
    the coverage that chance would give), coverage (share of the updated coordinates that lie in the mask), ceiling
    (min(1, share / density): no mask of this size can cover more), inside (P(changed) in the mask), anywhere
    (P(changed), the density).
    """
    keys = [(atol, mask, share) for atol in UPDATE_ATOL for mask in MASKS for share in shares]
    names = [
        (
            name_of("coverage", mask, share, atol),
            name_of("coverage_ceiling", at=share, atol=atol),
            name_of("changed_in", mask, share, atol),
            name_of("density", atol=atol),
        )
        for atol, mask, share in keys
    ]
    known = spread(results, sorted({n for row in names for n in row})).set_index("quantity")["value"]
    values = [known.reindex([*row]).to_list() for row in names]
    found = pd.DataFrame(values, columns=["coverage", "ceiling", "inside", "anywhere"], dtype=float)
    masks = pd.DataFrame(keys, columns=["atol", "mask", "share"])
    masks.insert(0, "quantity", [f"{mask}, {short_percent(share)}" for _, mask, share in keys])
    return results.labelled(masks.join(found))


def changed(results: Results) -> pd.DataFrame:
    """One row: P(changed) by size of the weight, the columns of `opdlib.tables.paper_geometry.by_size`.

    Medians over matrices of shares that are exact in each. A weight is changed if its delta is not zero.
    """
    rows = matrices(results).fillna({"expert": -1})
    one = ["tensor", "expert", "rows", "columns"]
    wide = rows.pivot_table(index=one, columns="quantity", values="value").reset_index()
    principal, low = (
        {share: name_of("changed_in", mask, share) for share in paper_geometry.MASK_SHARES} for mask in MASKS
    )
    wide = wide.reindex(columns=["rows", "columns", "changed", *low.values(), *principal.values()]).astype(float)
    size = wide["rows"] * wide["columns"]
    bottom = np.ceil((0.2 * size).round(9))
    above = (wide["changed"] * size - wide[low[0.2]] * bottom) / (size - bottom).where(size > bottom)
    found = {"changed": wide["changed"]} | {f"bottom {short_percent(share)}": wide[name] for share, name in low.items()}
    found |= {"upper 80%": above, "principal 10%": wide[principal[0.1]]}
    return results.labelled(pd.DataFrame(found).median().to_frame().T)


def changed_by_arithmetic(results: Results) -> pd.DataFrame:
    """`changed` by the arithmetic that the paper's printed numbers allow: medians of coverage times global density."""
    covered = overview(results, paper_geometry.COVERAGES)
    return results.labelled(paper_geometry.by_size(covered, pd.Series([1 - results.summary["exact_zero"]])))


def deciles(magnitude: pd.DataFrame) -> pd.DataFrame:
    """P(changed) by tenth of all coordinates, ordered by abs(source), from the binades of `tables.magnitude`.

    Columns: decile (1 holds the smallest weights), from, to (the binades of its first and its last weight), share
    (changed, in [0, 1]), expected (as in `tables.magnitude`; NaN where that is not known for most of the tenth).
    A binade that a boundary cuts is shared out in proportion, as if all its weights had the same chance: an
    approximation inside that binade, exact elsewhere.
    """
    table = magnitude.sort_values("magnitude")
    edges = np.linspace(0, table["coordinates"].sum(), 11)
    ends = table["coordinates"].cumsum().to_numpy()

    def inside(counts: pd.Series) -> np.ndarray:
        return np.diff(np.interp(edges, [0, *ends], [0, *counts.cumsum()]))

    known = table["coordinates"].where(table["expected"].notna(), 0)
    expected = inside(table["expected"].fillna(0) * known) / inside(known).clip(min=1)
    first, last = (ends.searchsorted(at.clip(max=ends[-1])) for at in (edges[:-1] + 0.5, edges[1:] - 0.5))
    whole = inside(table["coordinates"])
    found = {
        "decile": range(1, 11),
        "from": table["magnitude"].to_numpy()[first],
        "to": table["magnitude"].to_numpy()[last],
        "share": inside(table["share"] * table["coordinates"]) / whole,
        "expected": np.where(inside(known) > whole / 2, expected, np.nan),
    }
    labels = magnitude[paper_geometry.LABELS].iloc[[0] * 10].reset_index(drop=True)
    return labels.join(pd.DataFrame(found))
