"""Tables of where an update points and which weights it reaches, each number beside what chance would give."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from opdlib.quantities import MASKS, SIDES, UPDATE_ATOL, key_of, short_percent
from opdlib.results.open import Results
from opdlib.tables import paper_geometry
from opdlib.tables.geometry import matrices, spread


def projection(results: Results, shares: Sequence[float], by: str = "model") -> pd.DataFrame:
    """`spread` of the share of the update's energy in the source's leading directions, on each side, at each share of
    rank, with the column share."""
    keys = [key_of("projection", side, share) for side in SIDES for share in shares]
    return spread(results, keys, by).rename(columns={"at": "share"})


def joint(results: Results) -> pd.DataFrame:
    """One row: the joint projection at 10% of rank, in the columns of `opdlib.tables.paper_geometry.projection`.

    value and expected are medians over matrices, ratio is the one over the other; NaN if nothing changed.
    """
    found = spread(results, ["projection.joint.0.1"])
    row = found[["value", "expected"]].reindex([0])
    return results.labelled(row.assign(ratio=row["value"] / row["expected"]))


def coverage(results: Results, shares: Sequence[float]) -> pd.DataFrame:
    """Coverage of the principal and the low-magnitude mask beside its bounds; medians over matrices, all in [0, 1].

    Columns: row (mask and share), atol (of the update mask), mask, share (of all coordinates that the mask holds:
    the coverage that chance would give), coverage (share of the updated coordinates that lie in the mask), ceiling
    (min(1, share / density): no mask of this size can cover more), inside (P(changed) in the mask), anywhere
    (P(changed), the density).
    """
    masks = [(atol, mask, share) for atol in UPDATE_ATOL for mask in MASKS for share in shares]
    metrics = {"coverage": "coverage", "ceiling": "coverage_ceiling", "inside": "changed_in", "anywhere": "density"}
    keys = {c: [key_of(metric, mask, share, atol) for atol, mask, share in masks] for c, metric in metrics.items()}
    known = spread(results, sorted({key for column in keys.values() for key in column})).set_index("quantity")["value"]
    found = pd.DataFrame(masks, columns=["atol", "mask", "share"])
    found.insert(0, "row", [f"{mask}, {short_percent(share)}" for _, mask, share in masks])
    values = {name: known.reindex(column).to_numpy(dtype=float) for name, column in keys.items()}
    return results.labelled(found.assign(**values))


def changed(results: Results) -> pd.DataFrame:
    """One row: P(changed) by size of the weight, the columns of `opdlib.tables.paper_geometry.by_size`.

    Medians over matrices of shares that are exact in each. A weight is changed if its delta is not zero.
    """
    rows = matrices(results)
    one = ["tensor", "rows", "columns"]
    wide = rows.pivot_table(index=one, columns="quantity", values="value").reset_index()
    wide = wide.reindex(columns=["rows", "columns", *paper_geometry.SIZES]).astype(float)
    size = wide["rows"] * wide["columns"]
    bottom = np.ceil((0.2 * size).round(9))
    above = (wide["density"] * size - wide["changed_in.low.0.2"] * bottom) / (size - bottom).where(size > bottom)
    found = wide.assign(**{"changed_above.0.2": above})[[*paper_geometry.SIZES]]
    return results.labelled(found.median().to_frame().T)
