"""What two runs changed in common, beside chance of three kinds and beside what two seeds of one recipe share.

The tables come from `opd study SCALE --overlaps`; a is always full OPD. o1 is the share of a's changed weights that b
changed too, o2 the reverse. The three baselines are what independent changes of the same number would give: over all
weights (`global`, the paper's), within each tensor (`tensor`), and within each binade of abs(source weight) of each
tensor (`magnitude`).
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from opdlib.registry.study import FULL
from opdlib.results.study import BASELINES, SHARES, open_study
from opdlib.tables import paper

NAMES = {
    FULL: "OPD",
    "rlvr": "RLVR",
    "offline": "offline, CE",
    "offline-rkl": "offline, RKL",
    "opd-ce": "OPD, CE",
    "sft": "SFT",
    "opsd": "OPSD",
    "opd-other-teacher": "OPD, other teacher",
}
"""Arm -> what the page calls it."""
SAME_SEED, OTHER_SEED = "same seed", "other seed"


def overlaps(scale: str, root: Path | None = None) -> pd.DataFrame:
    """One row a pair of runs and threshold: `opdlib.results.study.OVERLAPS`, ratio_<baseline> (observed over expected
    intersection, undefined where a mask is empty) and excess (0 at the magnitude baseline, 1 where the smaller mask
    lies wholly in the larger). No rows where nothing was counted yet."""
    table = open_study(scale, root).overlaps
    ratios = {f"ratio_{base}": table["o1"] / table[f"{base}_o1"] for base in BASELINES}
    possible = table[["density_a", "density_b"]].min(axis=1) / table["density_a"]
    expected = table["magnitude_o1"]
    return table.assign(**ratios, excess=(table["o1"] - expected) / (possible - expected).where(possible > expected))


def by_comparison(table: pd.DataFrame) -> pd.DataFrame:
    """One row a comparison and threshold, over pairs of runs, in the order of the table.

    Columns: arm, seed (`same seed` or `other seed`; two runs of full OPD are always of other seeds), atol, pairs, then
    means over pairs: density_a, density_b, o1, o2, jaccard, <baseline>_o1, <baseline>_o2, ratio_<baseline>, excess; and
    the smallest and largest of o1 and ratio_global: o1_low, o1_high, ratio_low, ratio_high. A range and no interval:
    pairs that share a run are not independent.
    """
    seed = (table["seed_a"] == table["seed_b"]).map({True: SAME_SEED, False: OTHER_SEED})
    rows = []
    for (arm, which, atol), own in table.assign(seed=seed).groupby(["arm_b", "seed", "atol"], sort=False):
        row = {"arm": arm, "seed": which, "atol": atol, "pairs": len(own)} | {m: float(own[m].mean()) for m in MEANS}
        row |= {"o1_low": float(own["o1"].min()), "o1_high": float(own["o1"].max())}
        row |= {"ratio_low": float(own["ratio_global"].min()), "ratio_high": float(own["ratio_global"].max())}
        rows.append(row)
    return pd.DataFrame(rows, columns=["arm", "seed", "atol", "pairs", *MEANS, *RANGES])


MEANS = (
    *("density_a", "density_b", *SHARES),
    *(f"{baseline}_{share}" for baseline in BASELINES for share in ("o1", "o2")),
    *(f"ratio_{baseline}" for baseline in BASELINES),
    "excess",
)
RANGES = ("o1_low", "o1_high", "ratio_low", "ratio_high")


def at_highest(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of `by_comparison` at the highest threshold, that of the own mask; none of an empty table."""
    highest: pd.DataFrame = table[table["atol"] == table["atol"].max()].reset_index(drop=True)
    return highest


def published() -> pd.DataFrame:
    """Table 4 with OPD first: pair (as the paper calls it), with (the other run), arm (ours that asks the same),
    density_a, density_b, o1, o2, global_o1, global_o2, ratio_global; atol 1e-5, one run each."""
    table = paper.read("table4_overlap")
    shares = table[["o1_observed_pct", "o2_observed_pct", "o1_random_pct", "o2_random_pct"]].astype(float) / 100
    second = table["second_mask"].str.startswith("OPD") & ~table["first_mask"].str.startswith("OPD")
    swapped = shares[["o2_observed_pct", "o1_observed_pct", "o2_random_pct", "o1_random_pct"]]
    values = shares.to_numpy()
    values[second] = swapped.to_numpy()[second]
    first = table["first_mask"].where(~second, table["second_mask"])
    other = table["second_mask"].where(~second, table["first_mask"])
    found = pd.DataFrame(values, columns=["o1", "o2", "global_o1", "global_o2"])
    found.insert(0, "pair", table["family"] + " " + first)
    found.insert(1, "with", other)
    found.insert(2, "arm", other.map(lambda name: "opd-other-teacher" if name.startswith("OPD") else "rlvr"))
    return found.assign(
        density_a=found["global_o2"],
        density_b=found["global_o1"],
        ratio_global=found["o1"] / found["global_o1"],
        atol=1e-5,
    )
