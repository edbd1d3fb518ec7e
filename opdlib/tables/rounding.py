"""What rounding to bf16 does to the spectrum of an update."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from opdlib.quantities import key_of
from opdlib.results.open import Results
from opdlib.tables.geometry import matrices


def budget(results: Results, stored: Results, top: int = 16) -> pd.DataFrame:
    """How much of the update's energy lies in the `top` largest singular values of each matrix, and how much elsewhere.

    Rows: part (`top 16`, `all others`). Columns: stored, bf16 (sums over the matrices that changed in both views, in
    units of all their energy in view stored), kept (bf16 over stored). The leading directions of the two views need
    not be the same. NaN without a matrix.
    """
    exact, rounded = _energies(stored, top).add_suffix("_stored"), _energies(results, top).add_suffix("_bf16")
    whole = exact.join(rounded, how="inner").sum()
    unit = whole["inside_stored"] + whole["outside_stored"]
    parts = {f"top {top}": "inside", "all others": "outside"}
    table = pd.DataFrame(
        {"part": list(parts)}
        | {view: [whole[f"{p}_{view}"] / (unit or np.nan) for p in parts.values()] for view in ("stored", "bf16")}
    )
    return table.assign(kept=table["bf16"] / table["stored"].where(table["stored"] > 0))


def _energies(results: Results, top: int) -> pd.DataFrame:
    """Energy inside and outside the leading directions, by tensor."""
    rows = matrices(results)
    rows = rows[rows["quantity"] == f"svd_energy.{top}"]
    rows = rows.merge(results.tensors[["tensor", "energy"]], on="tensor").set_index("tensor")
    inside = rows["value"] * rows["energy"]
    return pd.DataFrame({"inside": inside, "outside": rows["energy"] - inside})


def rounded_rank_one(rel_norm: float, size: int = 256, seed: int = 0) -> pd.DataFrame:
    """A known answer: an update of rank one, with this relative norm, before and after bf16 rounding of the weights.

    The source is a size x size matrix of independent normal numbers on the bf16 grid, the update the outer product of
    two vectors of such numbers. Columns: quantity, exact, rounded. NaN where rounding leaves nothing of the update.
    """
    generator = np.random.default_rng(seed)
    source = to_bf16(generator.standard_normal((size, size)))
    update = np.outer(*generator.standard_normal((2, size)))
    update *= rel_norm * np.linalg.norm(source) / np.linalg.norm(update)
    exact, rounded = (_quantities(delta) for delta in (update, to_bf16(source + update) - source))
    return pd.DataFrame({"quantity": list(exact), "exact": list(exact.values()), "rounded": list(rounded.values())})


def to_bf16(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Normal numbers rounded to bf16, to nearest, ties to even: eight significant bits."""
    mantissa, exponent = np.frexp(values)
    rounded: NDArray[np.float64] = np.ldexp(np.round(mantissa * 256), exponent - 8)
    return rounded


def _quantities(delta: NDArray[np.float64]) -> dict[str, float]:
    sigma = np.linalg.svd(delta, compute_uv=False)
    energy = sigma**2 / ((sigma**2).sum() or np.nan)
    ranks = {t: float((sigma > t * sigma[0]).mean()) if sigma[0] > 0 else np.nan for t in (1e-6, 1e-5, 1e-4)}
    return {
        "exact_zero": float((delta == 0).mean()),
        "svd_energy.1": float(energy[0]),
        "svd_energy.16": float(energy[:16].sum()),
        "stable_rank": float(1 / energy[0]),
        **{key_of("rank_share", at=t): share for t, share in ranks.items()},
    }
