"""Two arms on the same held-out problems: which problems only one of them answers, and what that says."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from opdlib.registry.study import FULL
from opdlib.results.study import answered, open_study
from opdlib.stats import holm, mcnemar, paired_bootstrap
from opdlib.tables import study
from opdlib.tables.written import interval, percent, points, probability

AGAINST_FULL = (
    *("mask-own", "mask-magnitude", "mask-random", "sgd-3e-2", "adamw-3e-5", "adamw-1e-4", "offline-1e-4"),
    *("offline", "rlvr"),
)
"""Arms that are laid beside OPD problem by problem: masks, SGD, raised rates, other regimes."""
PAIRED = [
    *("arm", "partner", "seeds", "problems", "accuracy", "partner_accuracy", "difference", "low", "high"),
    *("ahead", "behind", "p", "p_holm"),
]
SHOWN: study.Columns = {
    "arm": "arm",
    "against": "partner",
    "seeds": "seeds",
    "problems": "problems",
    "accuracy": (percent, "accuracy"),
    "of the other": (percent, "partner_accuracy"),
    "points": (points, "difference"),
    "95% interval": (lambda low, high: interval(low, high, points), "low", "high"),
    "ahead on": "ahead",
    "behind on": "behind",
    "p": (probability, "p"),
    "p, Holm": (probability, "p_holm"),
}
"""Columns of `paired` for `opdlib.tables.study.shown`."""


def paired(
    scale: str, arms: Sequence[str] = AGAINST_FULL, partner: str = FULL, root: Path | None = None
) -> pd.DataFrame:
    """Each of `arms` against `partner` on every held-out problem, of the seeds that both have; none of an arm without.

    Columns: arm, partner, seeds, problems, accuracy and partner_accuracy (of these seeds), difference, low, high (95%,
    over problems: `opdlib.stats.paired_bootstrap`), ahead, behind (problems that the arm answers in more seeds than its
    partner, or in fewer: with one seed McNemar's discordant pairs), p (McNemar's, exact, of these two; a problem counts
    once, however many seeds there are), p_holm (adjusted by Holm for all rows).
    """
    table, rows = open_study(scale, root).answers, []
    runs = {run: column for column in map(str, table) if (run := answered(column)) and table[column].notna().all()}
    for arm in arms:
        seeds = [seed for name, seed in runs if name == arm and (partner, seed) in runs]
        if seeds:
            ours, theirs = (table[[runs[name, s] for s in seeds]].astype(float).to_numpy() for name in (arm, partner))
            by_seed = (ours - theirs).T
            difference, low, high = paired_bootstrap(by_seed)
            ahead, behind = (int((sign * by_seed.sum(axis=0) > 0).sum()) for sign in (1, -1))
            row = {"arm": arm, "partner": partner, "seeds": len(seeds), "problems": len(table)}
            row |= {"accuracy": float(ours.mean()), "partner_accuracy": float(theirs.mean())}
            row |= {"difference": difference, "low": low, "high": high, "ahead": ahead, "behind": behind}
            rows.append(row | {"p": mcnemar(ahead, behind)})
    known = pd.DataFrame(rows, columns=PAIRED[:-1])
    return known.assign(p_holm=holm(known["p"].astype(float)))
