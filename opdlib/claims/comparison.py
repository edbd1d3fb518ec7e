"""All claims of a finding against one pair's results."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from opdlib.claims.claim import Claim, load
from opdlib.tables import Results
from opdlib.tables.paper import OPD_STYLE

VERDICTS = ("reproduced", "direction", "not reproduced", "not tested")
GENERAL = "OPD-style pairs"
"""What a claim that names no pair is about."""


def compare(finding: str | None, results: Results) -> pd.DataFrame:
    """Every claim of a finding (None: of all) against the results of one pair in view bf16.

    Columns: id, about (`GENERAL`, or the paper's pair), statement, locator, paper, ours, unit, tolerance, verdict,
    reason. `ours` is NaN where nothing was tested; `reason` then says why, and what would test it.
    """
    return pd.DataFrame([_row(claim, results) for claim in load(finding)])


def counts(table: pd.DataFrame) -> pd.DataFrame:
    """How many claims got each verdict, all four words always listed."""
    return table["verdict"].value_counts().reindex(list(VERDICTS), fill_value=0).to_frame("claims")


def _row(claim: Claim, results: Results) -> dict[str, Any]:
    obstacle = _obstacle(claim, results)
    ours = None if obstacle else claim.value(results)
    if ours is None and not obstacle:
        obstacle = f"{claim.parts['left']} is undefined or absent for this pair"
    return {
        "id": claim.id,
        "about": claim.pair.title if claim.pair else GENERAL,
        "statement": claim.statement,
        "locator": claim.locator,
        "paper": claim.paper_value,
        "ours": math.nan if ours is None else ours,
        "unit": claim.unit,
        "tolerance": claim.tolerance,
        "verdict": "not tested" if ours is None else claim.judge(ours),
        "reason": obstacle,
    }


def _obstacle(claim: Claim, results: Results) -> str:
    """Why the claim cannot be tested on these results; empty if it can."""
    subject, pair = claim.pair, results.pair
    if results.view != "bf16":
        return f"the paper's view is bf16, these results are in view {results.view}"
    if subject is not None:
        if pair is not None and pair.key == subject.key:
            return ""
        if subject.trained is None:
            return f"{subject.why}; with it: opd measure --source {subject.source} --trained CHECKPOINT"
        return f"another pair; run: opd measure {subject.key}"
    if pair is not None and pair.regime not in OPD_STYLE:
        return f"this pair is {pair.regime}, the claim is about {GENERAL}"
    if results.summary["exact_zero"] == 1:
        return "nothing changed between the two checkpoints"
    return ""
