"""What the paper says of optimizers beside what the study found, with a verdict by rule.

The rules were written when the first runs could be seen, and before any run with SGD; the one on edges of a sweep
(`best.best_pairs`) was added when all could be seen. About who is ahead: *reproduced* if the difference over seeds is
positive and another number by the rule of `tables.study`; *not reproduced* if it is negative and another, or the same.
About a number: *reproduced* if its whole interval over seeds is within the tolerance of the paper's value, *not
reproduced* if the whole interval is outside. Anything else is *undecided*, and without runs *not tested*. Tolerances:
0.1 for a cosine, a fifth of the value for a variation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import pandas as pd

from opdlib import quantities
from opdlib.claims.verdict import NOT_REPRODUCED, NOT_TESTED, REPRODUCED, above, together, verdict
from opdlib.quantities import MISSING
from opdlib.registry.claims import Range
from opdlib.registry.study import FULL
from opdlib.stats import mean_interval
from opdlib.tables import study
from opdlib.tables.optimizers.best import best_pairs
from opdlib.tables.optimizers.cells import difference, label, names
from opdlib.tables.optimizers.compared import paired
from opdlib.tables.optimizers.state import STATES, WHEN, published_state, states
from opdlib.tables.optimizers.sweep import published
from opdlib.tables.study import UNDECIDED
from opdlib.tables.text import number, with_interval

EVERY_RATE = "AdamW, at one rate, ends ahead of SGD: here of SGD at every rate"
COSINE_TOLERANCE, VARIATION_TOLERANCE = 0.1, 0.2


def claims(runs: pd.DataFrame, arms: pd.DataFrame, curves: pd.DataFrame) -> pd.DataFrame:
    """One row a claim: claim, paper, ours, verdict.

    `runs` and `curves` with the columns of `optimizers.labelled`, `arms` is that of `optimizers.sweep`.
    """
    pairs = best_pairs(runs, arms)
    found = states(curves[curves["optimizer"] == "adamw"])
    rows = [_every_rate(runs, arms), _at_best(pairs, names(arms))]
    rows += [_number(found, quantity, when) for quantity in STATES for when in WHEN[:3]]
    rows += [_falls(curves, quantity) for quantity in STATES]
    return pd.DataFrame(rows, columns=["claim", "paper", "ours", "verdict"])


def ahead(found: Sequence[str], values: Sequence[float]) -> str:
    """Verdict on "ahead of each of them", from verdicts of `study.verdict` and the differences they are about."""
    return together(
        [
            UNDECIDED if word == UNDECIDED else REPRODUCED if word == study.OTHER and value > 0 else NOT_REPRODUCED
            for word, value in zip(found, values, strict=True)
        ]
    )


def _every_rate(runs: pd.DataFrame, arms: pd.DataFrame) -> dict[str, str]:
    tests = paired(runs)
    sgd = arms[arms["optimizer"] == "sgd"]
    own = tests[tests["arm"].isin(sgd["arm"])]
    rates = dict(zip(sgd["arm"], sgd["learning_rate"], strict=True))
    told = [
        f"{label('sgd', rates[row['arm']])}: {difference(-row['difference'], -row['high'], -row['low'])}"
        for row in own.to_dict("records")
    ]
    found = ahead(list(own["verdict"]), list(-own["difference"])) if len(own) else NOT_TESTED
    missing = len(sgd) - len(own)
    paper = [f"{row['optimizer'].split()[0]} {row['final']:.2%}" for row in published().to_dict("records")]
    return {
        "claim": EVERY_RATE,
        "paper": ", ".join(paper),
        "ours": "; ".join(told) or MISSING,
        "verdict": UNDECIDED if found == REPRODUCED and missing else found,
    }


def _at_best(pairs: pd.DataFrame, called: Mapping[str, str]) -> dict[str, str]:
    own = pairs[(pairs["first"] == "adamw") & (pairs["second"] == "sgd")].to_dict("records")
    told = [
        f"{called[r['arm']]} minus {called[r['other']]}: {difference(r['difference'], r['low'], r['high'])}"
        for r in own
    ]
    return {
        "claim": "AdamW ends ahead of SGD, each at its best rate",
        "paper": "no sweep",
        "ours": "; ".join(told) or MISSING,
        "verdict": ahead([str(row["verdict"]) for row in own], [float(row["difference"]) for row in own]),
    }


def _number(found: pd.DataFrame, quantity: str, when: str) -> dict[str, str]:
    paper = published_state(quantity)[when]
    tolerance = COSINE_TOLERANCE if quantity == "momentum_cosine" else VARIATION_TOLERANCE * abs(paper)
    own = found[(found["arm"] == FULL) & (found["quantity"] == quantity) & (found["when"] == when)]
    trivial = " (here 1 by definition)" if (quantity, when) == ("momentum_cosine", "first") else ""
    row = {"claim": f"{quantities.label(quantity)} of AdamW, {when}{trivial}", "paper": f"{paper:g}", "ours": MISSING}
    if own.empty:
        return row | {"verdict": NOT_TESTED}
    value, low, high = (float(own[c].iloc[0]) for c in ("value", "low", "high"))
    return row | {
        "ours": _with(value, low, high),
        "verdict": verdict(Range(paper, paper).widened(tolerance), low, high),
    }


def _falls(curves: pd.DataFrame, quantity: str) -> dict[str, str]:
    paper = published_state(quantity)
    row = {"claim": f"{quantities.label(quantity)} of AdamW falls during training"}
    row |= {"paper": f"{paper['last'] - paper['first']:+.2f}", "ours": MISSING, "verdict": NOT_TESTED}
    own = curves[curves["arm"] == FULL].dropna(subset=[quantity]).sort_values("step")
    ends = own.groupby("seed")[quantity].agg(["first", "last"])
    if ends.empty:
        return row
    value, low, high = mean_interval(ends["last"] - ends["first"])
    return row | {"ours": _with(value, low, high, "+"), "verdict": above(0.0, -high, -low)}


def _with(value: float, low: float, high: float, sign: str = "") -> str:
    return with_interval(value, low, high, partial(number, form=f"{sign}.2f"))
