"""The rule of the study beside a margin that is fixed by the paper: how often each is right, and what the margin says.

The rule's margin is the range of the data, which grows with the number of seeds: the more runs, the larger a difference
may be and still be none. The other margin is 5% of the paper's own contrast (`opdlib.tables.matched.paper`), on the
scale of logarithms, or of logits for a share. Differences are taken on that scale, from OPD within a seed. Their
variance is pooled over arms, so that an arm of a single seed has an interval, too, if others have more; all of them
share the runs of OPD, which leaves it fewer degrees of freedom (`opdlib.stats.shared_freedom`). Arms without a seed of
OPD's are compared as unrelated runs, by the variance within arms.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from opdlib.registry.study import FULL
from opdlib.stats import LEVEL, MARGIN, holm, pooled_variance, scaled, shared_freedom, student
from opdlib.tables import study
from opdlib.tables.matched import paper
from opdlib.tables.matched.arms import present
from opdlib.tables.study import OTHER, SAME, UNDECIDED

COLUMNS = ["arm", "quantity", "seeds", "paired", "freedom", "factor", "low", "high", "margin", "p", "holm", "verdict"]
WITHIN = "within the margin"
"""The whole interval is: the difference is small, whether or not it is certain that there is one."""
OPERATING = ["rule", "correlation", "seeds", "shift", SAME, OTHER, UNDECIDED]
SHIFTS, SEEDS, CORRELATIONS = (0.0, 1.0, 2.0, 4.0), (3, 5, 10), (0.0, 0.85)


def against_opd(table: pd.DataFrame, arms: Sequence[str], quantities: Sequence[str]) -> pd.DataFrame:
    """Each of `arms` over OPD in each number, as factors: of odds where the number is a share.

    `table` is that of `opdlib.tables.study.runs`; all of its arms give the variance. Columns: arm, quantity, seeds (of
    the arm that count), paired (whether it has seeds in common with OPD, as arms with several have), freedom (degrees
    of freedom of the pooled variance), factor, low, high (95%), margin (the factor up to which a difference is none;
    NaN where the paper has no such number), p (two-sided, Student's), holm (for all tests of the table), verdict:
    `WITHIN` if the whole interval is within the margin, `OTHER` if it is not and holm is below 5%, else `UNDECIDED`.
    NaN where nothing is known.
    """
    margins, rows = _margins(quantities), []
    there = [arm for arm in dict.fromkeys(table["arm"]) if arm != FULL]
    for key in present(table, quantities):
        wide = study.by_seed(table, key, [FULL, *there])
        logs = pd.DataFrame(scaled(key, wide.to_numpy(dtype=float)), wide.index, wide.columns)
        logs = logs.replace([math.inf, -math.inf], math.nan)
        differences = logs[there].sub(logs[FULL], axis="index")
        within, freedom = pooled_variance(logs[arm].dropna() for arm in logs)
        between, _ = pooled_variance(differences[arm].dropna() for arm in there)
        freedom_between = shared_freedom([int(differences[arm].count()) for arm in there])
        for arm in [arm for arm in arms if arm in there]:
            paired = freedom_between > 0 and bool(differences[arm].notna().any())
            own = differences[arm].dropna() if paired else logs[arm].dropna()
            center = float(own.mean()) - (0.0 if paired else float(logs[FULL].mean()))
            share = 1 / len(own) if len(own) else math.nan
            square = between * share if paired else within * (share + 1 / max(logs[FULL].count(), 1))
            found = student(center, square, freedom_between if paired else freedom)
            ends = {name: math.exp(value) for name, value in zip(("factor", "low", "high"), found[:3], strict=True)}
            rows.append(
                {"arm": arm, "quantity": key, "seeds": len(own), "paired": paired, **ends}
                | {"freedom": freedom_between if paired else freedom, "margin": margins[key], "p": found[3]}
            )
    known = pd.DataFrame(rows, columns=[c for c in COLUMNS if c not in ("holm", "verdict")])
    known["holm"] = holm(known["p"].astype(float))
    alike = (1 / known["margin"] <= known["low"]) & (known["high"] <= known["margin"])
    verdicts = np.select([alike, known["holm"] < LEVEL], [WITHIN, OTHER], UNDECIDED)
    return known.assign(verdict=verdicts)[COLUMNS]


def operating(trials: int = 2000, seed: int = 0, correlations: Sequence[float] = CORRELATIONS) -> pd.DataFrame:
    """How often each rule says what, by simulation: columns `OPERATING`, the last three shares of `trials`.

    Two arms of normal numbers with a standard deviation of 1 over seeds, a correlation within a seed and a true
    difference of `shift`. The fixed margin is one standard deviation here; what it is in the study depends on the
    number.
    """
    rng, rows = np.random.default_rng(seed), []
    for correlation in correlations:
        for seeds in SEEDS:
            opd, own = rng.standard_normal((2, trials, seeds))
            arm = correlation * opd + math.sqrt(1 - correlation**2) * own
            span = np.ptp(opd, axis=1)
            for shift in SHIFTS:
                differences = arm + shift - opd
                square = differences.var(axis=1, ddof=1) / seeds
                _, low, high, _ = student(differences.mean(axis=1), square, seeds - 1)
                for rule, margin in (("range of OPD", span), ("fixed margin, 1 SD", np.ones(trials))):
                    said = pd.Series(list(map(study.verdict, low, high, margin)))
                    shares = [float((said == word).mean()) for word in (SAME, OTHER, UNDECIDED)]
                    rows.append([rule, correlation, seeds, shift, *shares])
    return pd.DataFrame(rows, columns=OPERATING)


def _margins(quantities: Sequence[str]) -> Mapping[str, float]:
    rows = paper.rows(quantities).set_index("pair")
    found = dict.fromkeys(quantities, math.nan)
    for key in [key for key in quantities if key in rows]:
        own, other = scaled(key, rows[key].reindex([paper.OPD, paper.DISTILL]).to_numpy(dtype=float))
        found[key] = math.exp(MARGIN * abs(own - other)) if math.isfinite(own) and math.isfinite(other) else math.nan
    return found
