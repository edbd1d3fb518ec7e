"""What the tolerances of a comparison did to its verdicts."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd

from opdlib.claims.claim import load


def without_tolerance(comparison: pd.DataFrame) -> pd.DataFrame:
    """The tested rows of a comparison that would have another verdict without tolerance, as the column `strictly`."""
    strict = {claim.id: replace(claim, tolerance=0.0) for claim in load()}
    tested = comparison[comparison["verdict"] != "not tested"]
    strictly = [strict[id_].judge(ours) for id_, ours in zip(tested["id"], tested["ours"], strict=True)]
    changed: pd.DataFrame = tested.assign(strictly=strictly)
    return changed[changed["strictly"] != changed["verdict"]]


def tolerance_in_words(comparison: pd.DataFrame) -> str:
    """How many of the tested verdicts hang on a tolerance, as a sentence."""
    tested, other = int((comparison["verdict"] != "not tested").sum()), without_tolerance(comparison)
    if not tested:
        return "No claim was tested on this pair."
    which = f" ({', '.join(other['id'])})" if len(other) else ""
    return f"Without any tolerance, {len(other)} of {tested} tested claims{which} would have another verdict."
