"""What the paper says of subnetworks beside what the study found, with a verdict by rule.

The rules were written when runs at scale pico could be seen. *Nearly recovers*, in points: the interval of the
difference from full OPD lies above the larger of the paper's two own gaps (*reproduced*), or below it (*not
reproduced*). The same as a share of what a random mask loses, seed by seed: below the larger of the paper's two shares,
or above it; points of two tasks are not the same thing, these shares nearly are. One mask ahead of another: the
interval of the paired difference is above 0, or below. A ratio: all our pairs of that kind, of other seeds, reach the
smallest of the paper's ratios, or none does. Anything else is *undecided*, and without runs *not tested*.
"""

from __future__ import annotations

import pandas as pd

from opdlib.claims.verdict import NOT_TESTED, above
from opdlib.quantities import MISSING
from opdlib.registry.study import FULL
from opdlib.stats import mean_interval
from opdlib.tables.subnetwork import compared, overlap
from opdlib.tables.subnetwork.masked import OWN, RANDOM, published
from opdlib.tables.subnetwork.overlap import OTHER_SEED
from opdlib.tables.text import percent, points, with_interval

RECOVERS = "Training inside the mask of OPD's own delta nearly recovers full OPD, in points"
LOSES = "The same: what the own mask loses, of what a random mask loses"
NEAR = 0.05
"""Masks of the paper that differ by less in density are compared."""
AHEAD = {
    (OWN, RANDOM): "The own mask ends ahead of a random mask of its density",
    ("mask-rlvr", RANDOM): "An RLVR mask ends ahead of a random mask",
}
RATIOS = {
    "rlvr": "OPD and RLVR share several times as many changes as global chance gives",
    "opd-other-teacher": "OPD with two teachers shares several times as many changes as global chance gives",
}


def claims(runs: pd.DataFrame, overlaps: pd.DataFrame) -> pd.DataFrame:
    """One row a claim: claim, paper, ours, verdict.

    `runs`: `subnetwork.runs`; `overlaps`: `overlap.by_comparison` at the threshold of the own mask.
    """
    paired, own = compared.paired(runs), published().query("arm == @OWN")["difference"]
    rows = [_difference(paired, OWN, FULL, RECOVERS, own, float(own.min())), _loses(runs)]
    for (arm, partner), claim in AHEAD.items():
        printed = _printed(arm, partner)
        rows.append(_difference(paired, arm, partner, claim, printed["peak"] - printed["peak_other"], 0.0))
    return pd.DataFrame([*rows, *(_ratio(overlaps, arm) for arm in RATIOS)])


def _printed(arm: str, partner: str) -> pd.DataFrame:
    """The paper's rows of two arms in one setting and of nearly one density, side by side."""
    table = published()
    first, second = (table[table["arm"] == name] for name in (arm, partner))
    both = first.merge(second, on="setting", suffixes=("", "_other"))
    return both[(both["density"] - both["density_other"]).abs() < NEAR]


def _difference(
    paired: pd.DataFrame, arm: str, partner: str, claim: str, printed: pd.Series, bound: float
) -> dict[str, str]:
    """The claim that one arm minus another is above `bound`."""
    row = {"claim": claim, "paper": ", ".join(map(points, printed)), "ours": MISSING, "verdict": NOT_TESTED}
    for own in paired[(paired["arm"] == arm) & (paired["partner"] == partner)].to_dict("records"):
        ends = own["low"], own["high"]
        row |= {"ours": with_interval(own["difference"], *ends, points), "verdict": above(bound, *ends)}
    return row


def _loses(runs: pd.DataFrame) -> dict[str, str]:
    printed = _printed(OWN, RANDOM)
    shares = printed["difference"] / printed["difference_other"]
    row = {"claim": LOSES, "paper": ", ".join(percent(s, 0) for s in shares), "ours": MISSING, "verdict": NOT_TESTED}
    by_seed = runs.pivot_table(index="seed", columns="arm", values="accuracy")
    if {FULL, OWN, RANDOM} <= set(by_seed):
        lost = ((by_seed[FULL] - by_seed[OWN]) / (by_seed[FULL] - by_seed[RANDOM])).dropna()
        value, low, high = mean_interval(lost)
        row |= {"ours": with_interval(value, low, high), "verdict": above(-float(shares.max()), -high, -low)}
    return row


def _ratio(overlaps: pd.DataFrame, arm: str) -> dict[str, str]:
    theirs = overlap.published().query("arm == @arm")["ratio_global"]
    paper = ", ".join(f"{ratio:.2f}" for ratio in theirs)
    row = {"claim": RATIOS[arm], "paper": paper, "ours": MISSING, "verdict": NOT_TESTED}
    own = overlaps[(overlaps["arm"] == arm) & (overlaps["seed"] == OTHER_SEED)]
    if len(own):
        low, high = float(own["ratio_low"].min()), float(own["ratio_high"].max())
        ours = f"{low:.2f} to {high:.2f} over global chance"
        row |= {"ours": ours, "verdict": above(float(theirs.min()), low, high)}
    return row
