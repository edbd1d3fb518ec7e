"""All claims of a finding against one pair's results, and what their tolerances did."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from opdlib.claims.ours import ours_of
from opdlib.claims.verdict import DIRECTION, NOT_REPRODUCED, NOT_TESTED, REPRODUCED, judge
from opdlib.registry.claims import Claim, load
from opdlib.tables import Results
from opdlib.tables.paper import OPD_STYLE

VERDICTS = (REPRODUCED, DIRECTION, NOT_REPRODUCED, NOT_TESTED)
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


def without_tolerance(comparison: pd.DataFrame) -> pd.DataFrame:
    """The tested rows of a comparison that would have another verdict without tolerance, as the column `strictly`."""
    strict = {claim.id: claim.model_copy(update={"tolerance": 0.0}) for claim in load()}
    tested = comparison[comparison["verdict"] != NOT_TESTED]
    strictly = [judge(strict[id_], ours) for id_, ours in zip(tested["id"], tested["ours"], strict=True)]
    changed: pd.DataFrame = tested.assign(strictly=strictly)
    return changed[changed["strictly"] != changed["verdict"]]


def tolerance_in_words(comparison: pd.DataFrame) -> str:
    """How many of the tested verdicts hang on a tolerance, as a sentence."""
    tested, other = int((comparison["verdict"] != NOT_TESTED).sum()), without_tolerance(comparison)
    if not tested:
        return "No claim was tested on this pair."
    which = f" ({', '.join(other['id'])})" if len(other) else ""
    return f"Without any tolerance, {len(other)} of {tested} tested claims{which} would have another verdict."


def _row(claim: Claim, results: Results) -> dict[str, Any]:
    obstacle = _obstacle(claim, results)
    ours = None if obstacle else ours_of(claim, results)
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
        "verdict": NOT_TESTED if ours is None else judge(claim, ours),
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
