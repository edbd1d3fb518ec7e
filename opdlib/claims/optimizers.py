"""What the paper says of optimizers beside what the study found, with a verdict by rule.

The rules were written when the first runs could be seen, and before any run with SGD; the one on edges of a sweep
(`best_pairs`) was added when all could be seen. About who is ahead: *reproduced* if the difference over seeds is
positive and another number by the rule of `tables.study`; *not reproduced* if it is negative and another, or the same.
About a number: *reproduced* if its whole interval over seeds is within the tolerance of the paper's value, *not
reproduced* if the whole interval is outside. Anything else is *undecided*, and without runs *not tested*. Tolerances:
0.1 for a cosine, a fifth of the value for a variation.
"""

from __future__ import annotations

from functools import partial

import pandas as pd

from opdlib.claims.verdict import NOT_REPRODUCED, NOT_TESTED, REPRODUCED, above, together, verdict
from opdlib.quantities import MISSING, label
from opdlib.registry.claims import Range
from opdlib.registry.study import FULL
from opdlib.tables import study
from opdlib.tables.optimizers.compared import best_pairs, paired
from opdlib.tables.optimizers.state import STATES, WHEN, published_state, states
from opdlib.tables.optimizers.sweep import published
from opdlib.tables.optimizers.written import difference, names
from opdlib.tables.study import UNDECIDED
from opdlib.tables.text import number, with_interval

EVERY_RATE = "AdamW, at one rate, ends ahead of SGD: here of SGD at every rate"
AT_BEST = "AdamW ends ahead of SGD, each at its best rate"
COSINE_TOLERANCE, VARIATION_TOLERANCE = 0.1, 0.2


def claims(runs: pd.DataFrame, arms: pd.DataFrame, curves: pd.DataFrame) -> pd.DataFrame:
    """One row a claim: claim, paper, ours, verdict.

    `runs` and `curves` with the columns of `sweep.labelled`, `arms` is that of `sweep`.
    """
    found = states(curves)
    rows = [_every_rate(runs, arms), _at_best(runs, arms)]
    rows += [_number(found[found["arm"] == FULL], state, when) for state in STATES for when in WHEN[:3]]
    rows += [_falls(curves[curves["arm"] == FULL], state) for state in STATES]
    return pd.DataFrame(rows, columns=["claim", "paper", "ours", "verdict"])


def ahead(found: pd.DataFrame) -> str:
    """Verdict on "ahead in each of these", from the columns verdict (of `study.verdict`) and difference."""
    return together(
        [
            UNDECIDED if word == UNDECIDED else REPRODUCED if word == study.OTHER and value > 0 else NOT_REPRODUCED
            for word, value in zip(found["verdict"], found["difference"], strict=True)
        ]
    )


def _every_rate(runs: pd.DataFrame, arms: pd.DataFrame) -> list[str]:
    tests, sgd = paired(runs), arms[arms["optimizer"] == "sgd"]["arm"]
    own = tests[tests["arm"].isin(sgd)]
    own = own.assign(difference=-own["difference"], low=-own["high"], high=-own["low"])
    texts = zip(own["arm"].map(names(arms)), map(difference, own["difference"], own["low"], own["high"]), strict=True)
    paper = [f"{row['optimizer'].split()[0]} {row['final']:.2%}" for row in published().to_dict("records")]
    found = UNDECIDED if ahead(own) == REPRODUCED and len(own) < len(sgd) else ahead(own)
    return [EVERY_RATE, ", ".join(paper), "; ".join(map(": ".join, texts)) or MISSING, found]


def _at_best(runs: pd.DataFrame, arms: pd.DataFrame) -> list[str]:
    own = best_pairs(runs, arms).query("first == 'adamw' and second == 'sgd'")
    sides = [own[side].map(names(arms)) for side in ("arm", "other")]
    texts = [
        f"{a} minus {b}: {text}"
        for a, b, text in zip(*sides, map(difference, own["difference"], own["low"], own["high"]), strict=True)
    ]
    return [AT_BEST, "no sweep", "; ".join(texts) or MISSING, ahead(own)]


def _number(found: pd.DataFrame, state: str, when: str) -> list[str]:
    paper = published_state(state)[when]
    tolerance = COSINE_TOLERANCE if state == "momentum_cosine" else VARIATION_TOLERANCE * abs(paper)
    trivial = " (here 1 by definition)" if (state, when) == ("momentum_cosine", "first") else ""
    row = [f"{label(state)} of AdamW, {when}{trivial}", f"{paper:g}"]
    for own in found[(found["state"] == state) & (found["quantity"] == when)].to_dict("records"):
        judged = verdict(Range(paper, paper).widened(tolerance), own["low"], own["high"])
        return [*row, _with(own["value"], own["low"], own["high"]), judged]
    return [*row, MISSING, NOT_TESTED]


def _falls(curves: pd.DataFrame, state: str) -> list[str]:
    paper = published_state(state)
    row = [f"{label(state)} of AdamW falls during training", f"{paper['last'] - paper['first']:+.2f}"]
    ends = curves.dropna(subset=[state]).groupby("seed")[state].agg(["first", "last"])
    if ends.empty:
        return [*row, MISSING, NOT_TESTED]
    fall = study.summed(ends["last"] - ends["first"])
    text = _with(fall["value"], fall["low"], fall["high"], "+")
    return [*row, text, above(0.0, -fall["high"], -fall["low"])]


def _with(value: float, low: float, high: float, sign: str = "") -> str:
    return with_interval(value, low, high, partial(number, form=f"{sign}.2f"))
