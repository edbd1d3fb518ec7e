"""What two runs changed in common, beside chance of three kinds and beside what two seeds of one recipe share.

The tables come from `opd study SCALE --overlaps`; a is always full OPD. o1 is the share of a's changed weights that b
changed too, o2 the reverse. The three baselines are what independent changes of the same number would give: over all
weights (`global`, the paper's), within each tensor (`tensor`), and within each binade of abs(source weight) of each
tensor (`magnitude`).
"""

from pathlib import Path

import pandas as pd

from opdlib.quantities import UPDATE_ATOL
from opdlib.registry.study import FULL, study
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
MEANS = [
    *("density_a", "density_b", *SHARES),
    *(f"{baseline}_{share}" for baseline in BASELINES for share in ("o1", "o2")),
    *(f"ratio_{baseline}" for baseline in BASELINES),
    "excess",
]
RANGES = {"o1_low": "min", "o1_high": "max"}
KINDS = {"observed": "", "random": "global_"}
PRINTED = {f"{share}_{kind}_pct": f"{of}{share}" for kind, of in KINDS.items() for share in ("o1", "o2")}
TURNED = {"first_mask": "second_mask"} | {f"o1_{kind}_pct": f"o2_{kind}_pct" for kind in KINDS}
"""Columns of the paper's Table 4 -> ours; those of the first run -> those of the second."""


def overlaps(scale: str, root: Path | None = None) -> pd.DataFrame:
    """One row a pair of runs and threshold: `opdlib.results.study.OVERLAPS`, ratio_<baseline> (observed over expected
    intersection, undefined where a mask is empty) and excess (0 at the magnitude baseline, 1 where the smaller mask
    lies wholly in the larger). No rows where nothing was counted yet."""
    table = open_study(scale, root).overlaps
    ratios = {f"ratio_{base}": table["o1"] / table[f"{base}_o1"] for base in BASELINES}
    possible = table[["density_a", "density_b"]].min(axis=1) / table["density_a"]
    expected = table["magnitude_o1"]
    return table.assign(**ratios, excess=(table["o1"] - expected) / (possible - expected).where(possible > expected))


def latent_error(root: Path | None = None) -> dict[str, float]:
    """How far off the latent cosine is where the cosine is known: pairs, and low and high of latent minus known, over
    every two runs of the study whose float32 weights were compared, at the paper's threshold."""
    tables = pd.concat([open_study(scale, root).overlaps for scale in study()], ignore_index=True)
    known = tables[tables["atol"] == UPDATE_ATOL[1]]
    errors = (known["latent_cosine"] - known["cosine"]).dropna()
    return {"pairs": len(errors), "low": float(errors.min()), "high": float(errors.max())}


def cosines(root: Path | None = None) -> pd.DataFrame:
    """Which way two runs went, where the float32 weights of both were compared: a row a scale and comparison, of any
    change at all. Columns: scale, name, seed, pairs, the means of cosine, latent_cosine and equal_signs over pairs, and
    the range of cosine: low and high."""
    tables = [open_study(scale, root).overlaps.assign(scale=scale) for scale in study()]
    table = pd.concat(tables, ignore_index=True).dropna(subset=["cosine"])
    seed = (table["seed_a"] == table["seed_b"]).map({True: SAME_SEED, False: OTHER_SEED})
    table = table.assign(name=table["arm_b"].map(NAMES), seed=seed)[table["atol"] == UPDATE_ATOL[0]]
    means = {name: (name, "mean") for name in ("cosine", "latent_cosine", "equal_signs")}
    ends = {"low": ("cosine", "min"), "high": ("cosine", "max")}
    grouped = table.groupby(["scale", "name", "seed"], sort=False)
    return grouped.agg(pairs=("atol", "size"), **means, **ends).reset_index()


def by_comparison(table: pd.DataFrame) -> pd.DataFrame:
    """One row a comparison and threshold, over pairs of runs, in the order of the table.

    Columns: arm, name, seed (`same seed` or `other seed`; two runs of full OPD are always of other seeds), atol, pairs,
    then means over pairs: density_a, density_b, o1, o2, jaccard, <baseline>_o1, <baseline>_o2, ratio_<baseline>,
    excess; and the smallest and largest o1: o1_low, o1_high. A range and no interval: pairs that share a run are not
    independent.
    """
    seed = (table["seed_a"] == table["seed_b"]).map({True: SAME_SEED, False: OTHER_SEED})
    rows = []
    for (arm, which, atol), own in table.assign(seed=seed).groupby(["arm_b", "seed", "atol"], sort=False):
        row = {"arm": arm, "name": NAMES[str(arm)], "seed": which, "atol": atol, "pairs": len(own)}
        row |= {end: own["o1"].agg(how) for end, how in RANGES.items()}
        rows.append(row | own[MEANS].mean().to_dict())
    return pd.DataFrame(rows, columns=["arm", "name", "seed", "atol", "pairs", *MEANS, *RANGES])


def at_highest(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of `by_comparison` at the highest threshold, that of the own mask; none of an empty table."""
    highest: pd.DataFrame = table[table["atol"] == table["atol"].max()].reset_index(drop=True)
    return highest


def explained(highest: pd.DataFrame) -> pd.Series:
    """How much of what two runs of other seeds share beyond global chance a preference for the same tensors and
    magnitudes explains, by comparison; empty unless each shares more than global chance gives."""
    other = highest[highest["seed"] == OTHER_SEED]
    beyond = other["o1"] - other["global_o1"]
    found: pd.Series = (other["magnitude_o1"] - other["global_o1"]) / beyond
    return found if (beyond > 0).all() else found[:0]


def published() -> pd.DataFrame:
    """Table 4 with OPD first: pair (as the paper calls it), name (`paper: ` and the other run), arm (ours that asks the
    same), density_a, density_b, o1, o2, global_o1, global_o2, ratio_global; atol 1e-5, one pair of runs each."""
    table = paper.read("table4_overlap")
    second = table["second_mask"].str.startswith("OPD") & ~table["first_mask"].str.startswith("OPD")
    turned = table.rename(columns=TURNED | {theirs: ours for ours, theirs in TURNED.items()})
    table = pd.concat([table[~second], turned[second]]).sort_index()
    found = table[[*PRINTED]].astype(float).rename(columns=PRINTED) / 100
    return found.assign(
        pair=table["family"] + " " + table["first_mask"],
        name="paper: " + table["second_mask"],
        arm=table["second_mask"].str.startswith("OPD").map({True: "opd-other-teacher", False: "rlvr"}),
        density_a=found["global_o2"],
        density_b=found["global_o1"],
        ratio_global=found["o1"] / found["global_o1"],
        atol=1e-5,
        pairs=1,
    )
