"""What rounding and magnitude alone would give the paper's ten pairs, without their checkpoints. Our arithmetic.

Weights are taken as Gaussian, the update as Gaussian noise of one size, whatever the pair; a density then says all. It
mixes the paper's medians over matrices with a density of the whole model, so it is approximate.
"""

from functools import cache

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from opdlib.tables import paper, paper_geometry

LEADING = 0.314
"""Share of the energy in the leading tenth of the singular values of a large square Gaussian matrix. Trained matrices
have more: with more, principal weights are larger, and noise reaches fewer of them."""
OVERLAPPING = {
    "DeepScaleR RLVR": "DeepScaleR RLVR",
    "OPD (DeepScaleR teacher)": "DS-Qwen OPD",
    "OPD (JustRL teacher)": "DS-Qwen OPD (JustRL)",
    "GRPO": "Qwen2.5-VL GRPO",
    "OPD": "Qwen2.5-VL OPD",
}
"""Mask of Table 4 -> pair of Tables 8 and 10."""
CUTS = (0.0, 0.01, 0.05, 0.1, 0.2, 1.0)
"""Ends of the five groups of weights, by magnitude within a tensor, that Table 10 tells apart."""
_WEIGHTS, _SCALES, _PHASES = 2048, 160, 8


@cache
def _noise() -> pd.DataFrame:
    """Density and coverages of noise from far below a grid step to far above one, over weights of spread 1.

    The spread lies anywhere in an octave: averages over `_PHASES` places of it.
    """
    from scipy.special import ndtr, ndtri

    sizes = ndtri(0.5 + (np.arange(_WEIGHTS) + 0.5) / (2 * _WEIGHTS))  # quantiles of abs(w), smallest first
    cut, mean, rest = ndtri(0.95), LEADING**0.5 * sizes, (1 - LEADING) ** 0.5
    principal = ndtr((mean - cut) / rest) + ndtr((-mean - cut) / rest)  # P(in the mask), by size
    scales = np.geomspace(2.0**-15, 2.0**3, _SCALES)[:, None]
    chances: NDArray[np.float64] = np.zeros((_SCALES, _WEIGHTS))
    for spread in 2.0 ** (np.arange(_PHASES) / _PHASES):
        half_step = 2.0 ** (np.floor(np.log2(sizes * spread)) - 8) / spread
        chances += 2 * ndtr(-half_step / scales) / _PHASES
    low = chances[:, : round(0.1 * _WEIGHTS)].sum(axis=1) / chances.sum(axis=1)
    return pd.DataFrame(
        {
            "density": chances.mean(axis=1),
            "coverage.low.0.1": low,
            "coverage.principal.0.1": chances @ principal / chances.sum(axis=1),
        }
    )


def curve() -> pd.DataFrame:
    """Coverage of the low and of the principal mask at 10% by noise, against its density: columns density and the two
    keys, all in [0, 1]."""
    return _noise().copy()


def coverage() -> pd.DataFrame:
    """The paper's ten pairs (Tables 8 and 10) beside such noise at their density.

    Columns: pair, regime, origin, view, density, and for low and principal the observed coverage (its key), expected_*
    and ratio_* (expected over observed).
    """
    noise, table = _noise(), paper_geometry.coverage()
    found = table[paper.LABELS].assign(density=1 - paper.wide(["exact_zero"])["exact_zero"])
    for mask in ("low", "principal"):
        key = f"coverage.{mask}.0.1"
        found[key] = table[key]
        found[f"expected_{mask}"] = np.interp(found["density"], noise["density"], noise[key])
        found[f"ratio_{mask}"] = found[f"expected_{mask}"] / found[key]
    return found


def overlap() -> pd.DataFrame:
    """Table 4's overlaps beside independence over all weights (the paper's baseline) and within groups by magnitude.

    A lower bound on what magnitude gives, for four fifths of the weights are one group of the five. Columns: first,
    second, o1 (share of the first mask that lies in the second), random, magnitude, ratio (magnitude over observed).
    """
    table = paper.read("table4_overlap")
    densities = paper.wide(["exact_zero", *(f"coverage.low.{cut:g}" for cut in CUTS[1:-1])]).set_index("pair")
    widths = np.diff(CUTS)

    def changed(mask: str) -> NDArray[np.float64]:
        row = densities.loc[OVERLAPPING[mask]]
        up_to = np.array([0.0, *(row[f"coverage.low.{cut:g}"] for cut in CUTS[1:-1]), 1.0])
        rates: NDArray[np.float64] = np.clip(np.diff(up_to) * (1 - row["exact_zero"]) / widths, 0, 1)
        return rates

    rates = [(changed(a), changed(b)) for a, b in zip(table["first_mask"], table["second_mask"], strict=True)]
    expected = [float((widths * a * b).sum() / (widths * a).sum()) for a, b in rates]
    found = pd.DataFrame({"first": table["family"] + " " + table["first_mask"], "second": table["second_mask"]})
    found["o1"], found["random"] = table["o1_observed_pct"] / 100, table["o1_random_pct"] / 100
    return found.assign(magnitude=expected, ratio=np.array(expected) / found["o1"])
