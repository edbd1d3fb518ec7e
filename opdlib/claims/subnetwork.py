"""What the paper says of subnetworks beside what the study found, with a verdict by rule.

The rules were written when runs at scale pico could be seen. *Nearly recovers*, in points: the interval of the
difference from full OPD lies above the larger of the paper's two own gaps (*reproduced*), or below it (*not
reproduced*). The same as a share of what a random mask loses, seed by seed: below the larger of the paper's two shares,
or above it; points of two tasks are not the same thing, these shares nearly are. One mask ahead of another: the
interval of the paired difference is above 0, or below. A ratio: all our pairs of that kind, of other seeds, reach the
smallest of the paper's ratios, or none does. Anything else is *undecided*, and without runs *not tested*.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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
    paired = compared.paired(runs)
    rows = [_recovers(paired), _loses(runs)]
    rows += [_ahead(paired, *pair) for pair in AHEAD]
    rows += [_ratio(overlaps, arm) for arm in RATIOS]
    return pd.DataFrame(rows, columns=["claim", "paper", "ours", "verdict"])


def _recovers(paired: pd.DataFrame) -> dict[str, str]:
    gaps = published().query("arm == @OWN")["difference"]
    row = {"claim": RECOVERS, "paper": ", ".join(map(points, gaps)), "ours": MISSING, "verdict": NOT_TESTED}
    found = paired[(paired["arm"] == OWN) & (paired["partner"] == FULL)]
    for own in found.to_dict("records"):
        row |= {
            "ours": with_interval(own["difference"], own["low"], own["high"], points),
            "verdict": above(float(gaps.min()), own["low"], own["high"]),
        }
    return row


def _loses(runs: pd.DataFrame) -> dict[str, str]:
    gaps = _gaps()
    shares = [own / random for _, own, random in gaps]
    row = {"claim": LOSES, "paper": ", ".join(percent(s, 0) for s in shares), "ours": MISSING, "verdict": NOT_TESTED}
    by_seed = runs.pivot_table(index="seed", columns="arm", values="accuracy")
    if {FULL, OWN, RANDOM} <= set(by_seed):
        lost = ((by_seed[FULL] - by_seed[OWN]) / (by_seed[FULL] - by_seed[RANDOM])).dropna()
        value, low, high = mean_interval(lost)
        row |= {"ours": with_interval(value, low, high), "verdict": above(-max(shares), -high, -low)}
    return row


def _gaps() -> list[tuple[str, float, float]]:
    """The paper's settings: setting, what its own mask loses, what a random mask of the same density loses."""
    table = published().to_dict("records")
    own = [row for row in table if row["arm"] == OWN]
    return [(r["setting"], r["difference"], q["difference"]) for r in own for q in table if _fits(q, r, RANDOM)]


def _fits(row: Mapping[Any, Any], other: Mapping[Any, Any], arm: str) -> bool:
    """Whether `row` is of this arm, and of the setting and nearly the density of `other`."""
    near = abs(float(row["density"]) - float(other["density"])) < NEAR
    return bool(row["arm"] == arm and row["setting"] == other["setting"] and near)


def _ahead(paired: pd.DataFrame, arm: str, partner: str) -> dict[str, str]:
    table = published().to_dict("records")
    first = [row for row in table if row["arm"] == arm]
    gaps = [points(p["peak"] - q["peak"]) for p in first for q in table if _fits(q, p, partner)]
    row = {"claim": AHEAD[arm, partner], "paper": ", ".join(gaps), "ours": MISSING, "verdict": NOT_TESTED}
    found = paired[(paired["arm"] == arm) & (paired["partner"] == partner)]
    for own in found.to_dict("records"):
        ours = with_interval(own["difference"], own["low"], own["high"], points)
        row |= {"ours": ours, "verdict": above(0.0, own["low"], own["high"])}
    return row


def _ratio(overlaps: pd.DataFrame, arm: str) -> dict[str, str]:
    printed = overlap.published()
    theirs = printed[printed["arm"] == arm]["ratio_global"]
    paper = ", ".join(f"{ratio:.2f}" for ratio in theirs)
    row = {"claim": RATIOS[arm], "paper": paper, "ours": MISSING, "verdict": NOT_TESTED}
    own = overlaps[(overlaps["arm"] == arm) & (overlaps["seed"] == OTHER_SEED)]
    if len(own):
        low, high = float(own["ratio_low"].min()), float(own["ratio_high"].max())
        ours = f"{low:.2f} to {high:.2f} over global chance"
        row |= {"ours": ours, "verdict": above(float(theirs.min()), low, high)}
    return row
