"""All claims beside our numbers: of one pair, of the arms of one scale, and of everything that there is."""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from opdlib.claims import verdict
from opdlib.claims.controls import Beside, Control, control, paper_rows
from opdlib.claims.ours import Measured, of_results
from opdlib.claims.study import Found, measured, of_runs, of_scale
from opdlib.registry.claims import OPD, PAPER, Claim, load
from opdlib.registry.pairs import DEFAULT, find_pair
from opdlib.registry.study import FULL, find_run, study
from opdlib.results.layout import State, committed_folder, state_of
from opdlib.tables import Results
from opdlib.tables.matched.arms import same_source
from opdlib.tables.optimizers import compared as rates
from opdlib.tables.optimizers import sweep
from opdlib.tables.paper import OPD_STYLE
from opdlib.tables.study import ENOUGH
from opdlib.tables.study import runs as study_runs

GENERAL = "OPD-style pairs"
"""What a claim that names no pair is about."""
NOISE = "noise"
"""The pair of Gaussian noise, data/pairs.yaml."""
GIVEN = re.compile("rel_norm|energy_share")
"""Numbers that the noise was given, tensor by tensor: that they come out says nothing."""
STRANGERS = {"offline": "offline", "rlvr": "rlvr", "sgd": "sgd"}
"""Who else may pass -> the arm, or the optimizer at its best rate."""


def compare(finding: str, results: Results) -> pd.DataFrame:
    """Every claim of a finding about pairs against the results of one pair in view bf16.

    Columns: id, about (`GENERAL`, or the paper's pair), statement, locator, low, high (the paper's range), ours, unit,
    tolerance, verdict, control (verdict), reason. `ours` is NaN where nothing was tested; `reason` then says why, and
    what would test it. Other arms and noise are set beside runs of our default scale only.
    """
    own, beside = of_results(results), Beside([of_results(results)])
    if results.pair is not None and (run := find_run(results.pair.key)) and run[0].name == default_scale():
        beside = Beside([own], run[0].name, noise(results))
    rows = []
    for claim in load(finding):
        if claim.scale or claim.subject == PAPER:
            continue
        obstacle = _obstacle(claim, results)
        found = Found(reason=obstacle) if obstacle else of_runs(claim, [own])
        about = claim.pair.title if claim.pair else GENERAL
        rows.append({"about": about} | _row(claim, found, beside))
    return pd.DataFrame(rows).drop(columns=["high_ours", "low_ours", "seeds"])


def of_study(finding: str, scale: str, root: Path | None = None) -> pd.DataFrame:
    """Every claim of a finding about arms, at one scale: the columns of `compare` without `about`, and low_ours,
    high_ours (the interval, NaN of a single seed) and seeds."""
    beside = Beside([], scale, root=root)
    return pd.DataFrame([_row(claim, of_scale(claim, scale, root), beside) for claim in load(finding) if claim.scale])


def records() -> list[dict[str, Any]]:
    """Every claim with both verdicts over all that there is, and who else passes, as `opd claims --json` prints it.

    Claims about OPD in general are judged by all runs of full OPD at the scale of the default pair, those about arms by
    the arms of the scale that they name or, where it has too few runs for the claim, of another one over that source
    (`scale` says which); the paper's own rows by what it prints. `passes` is whether the number of
    somebody else is reproduced, too: null where it has none or was given it (`GIVEN`), and where the claim is not about
    OPD in general. Who has no runs at that scale is asked at the first other one over the same source.
    """
    scale = default_scale()
    own = measured(scale, FULL)
    stranger = noise(own[0].results) if own and own[0].results else None
    scales = {name: Beside(own, name, stranger) for name in study()}
    others = _strangers(scale) | {NOISE: [stranger] if stranger else []}
    found = []
    for claim in load():
        ours, where = _of_arms(claim) if claim.scale else (_ours(claim, own), scale)
        row = _row(claim, ours, scales[where]) | {"scale": where if claim.scale else None}
        runs = {} if claim.subject != OPD else others | ({NOISE: []} if GIVEN.search(claim.quantity) else {})
        found.append(_record(claim, row, {who: _passes(claim, runs.get(who, [])) for who in (NOISE, *STRANGERS)}))
    return found


def passing(found: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """How many of the claims that apply to it each of these passes: columns who, passes, claims. `found` are
    `records`; the first row is OPD itself."""
    general = [record for record in found if any(passed is not None for passed in record["passes"].values())]
    rows = [["OPD", sum(record["number"] == verdict.REPRODUCED for record in general), len(general)]]
    for who in (NOISE, *STRANGERS):
        told = [record["passes"][who] for record in general if record["passes"][who] is not None]
        rows.append([who, sum(told), len(told)])
    return pd.DataFrame(rows, columns=["who", "passes", "claims"])


def without_tolerance(comparison: pd.DataFrame) -> pd.DataFrame:
    """The tested rows of a comparison that would have another verdict without tolerance, as the column `strictly`."""
    strict = {claim.id: claim.model_copy(update={"tolerance": 0.0}) for claim in load()}
    tested = comparison[comparison["verdict"] != verdict.NOT_TESTED]
    strictly = [verdict.number(strict[id_], ours) for id_, ours in zip(tested["id"], tested["ours"], strict=True)]
    changed: pd.DataFrame = tested.assign(strictly=strictly)
    return changed[changed["strictly"] != changed["verdict"]]


def counts(table: pd.DataFrame) -> pd.DataFrame:
    """How many claims got each verdict on their number, all four words always listed."""
    return table["verdict"].value_counts().reindex([*verdict.NUMBER], fill_value=0).to_frame("claims")


def default_scale() -> str:
    """The scale of the default pair."""
    run = find_run(find_pair(DEFAULT).key)
    return run[0].name if run else ""


def noise(results: Results) -> Measured | None:
    """The pair `noise`, if it is over the source of these results and its own are here."""
    pair = find_pair(NOISE)
    if state_of(pair) is not State.COMPLETE:
        return None
    found = Results(committed_folder(pair))
    same = found.provenance["identity"]["source"] == results.provenance["identity"]["source"]
    return of_results(found) if same else None


def _ours(claim: Claim, own: Sequence[Measured]) -> Found:
    if claim.subject == OPD:
        return of_runs(claim, own)
    if claim.subject == PAPER:
        return Found(pd.Series([float(paper_rows(claim.quantity).min())]))
    pair = find_pair(claim.subject)
    if state_of(pair) is not State.COMPLETE:
        return Found(reason=_untested(claim))
    return of_runs(claim, [of_results(Results(committed_folder(pair)))])


def _of_arms(claim: Claim) -> tuple[Found, str]:
    """The number of a claim about arms, and whose it is: the scale that it names if that has `ENOUGH` runs for it, else
    the one over its source that has, or comes nearest."""
    found = [(of_scale(claim, scale), scale) for scale in (claim.scale, *same_source(claim.scale))]
    return max(found, key=lambda each: min(each[0].seeds, ENOUGH))


def _strangers(scale: str) -> dict[str, list[Measured]]:
    """Runs that are not OPD, by name: those of this scale, or where it has none of the first other one over the same
    source. Of SGD those at its best rate there."""
    return {
        name: next(filter(None, (measured(place, _chosen(place, arm)) for place in (scale, *same_source(scale)))), [])
        for name, arm in STRANGERS.items()
    }


def _chosen(scale: str, arm: str) -> str:
    """The arm itself, or of the optimizer that it names the arm at the best rate."""
    arms = sweep.arms(scale)
    best = rates.best(sweep.labelled(study_runs(scale), arms), arms).set_index("optimizer")["arm"]
    return str(best.get(arm, arm))


def _passes(claim: Claim, runs: Sequence[Measured]) -> bool | None:
    found = of_runs(claim, runs)
    return verdict.number(claim, *found.interval) == verdict.REPRODUCED if found.seeds else None


def _row(claim: Claim, found: Found, beside: Beside) -> dict[str, Any]:
    mean, low, high = found.interval
    left = control(claim, beside) if found.seeds else Control()
    return {
        "id": claim.id,
        "statement": claim.statement,
        "locator": claim.locator,
        "low": claim.range.low,
        "high": claim.range.high,
        "ours": mean,
        "low_ours": low,
        "high_ours": high,
        "seeds": found.seeds,
        "unit": claim.unit,
        "tolerance": claim.tolerance,
        "verdict": verdict.number(claim, mean, low, high),
        "control": left.verdict,
        "control_value": left.value,
        "reason": found.reason,
    }


def _record(claim: Claim, row: Mapping[str, Any], passes: Mapping[str, bool | None]) -> dict[str, Any]:
    known = {name: None if math.isnan(row[name]) else row[name] for name in ("ours", "low_ours", "high_ours")}
    return {
        "id": claim.id,
        "clause": claim.clause,
        "statement": claim.statement,
        "locator": claim.locator,
        "paper": [claim.low, claim.high],
        "unit": claim.unit,
        "tolerance": claim.tolerance,
        "ours": None if known["ours"] is None else [*known.values()],
        "seeds": row["seeds"],
        "scale": row["scale"],
        "number": row["verdict"],
        "control": row["control"],
        "control_kind": claim.control or None,
        "control_value": None if math.isnan(row["control_value"]) else row["control_value"],
        "passes": dict(passes),
        "fixed": claim.fixed,
        "accepts": claim.accepts or None,
        "reason": row["reason"],
    }


def _untested(claim: Claim) -> str:
    """What would test a claim about another pair."""
    pair = find_pair(claim.subject)
    if pair.trained is None:
        return f"{pair.why}; with it: opd measure --source {pair.source} --trained CHECKPOINT"
    return f"another pair; run: opd measure {pair.key}"


def _obstacle(claim: Claim, results: Results) -> str:
    """Why the claim cannot be tested on these results; empty if it can."""
    subject, pair = claim.pair, results.pair
    if results.view != "bf16":
        return f"the paper's view is bf16, these results are in view {results.view}"
    if subject is not None:
        return "" if pair is not None and pair.key == subject.key else _untested(claim)
    if pair is not None and pair.regime not in OPD_STYLE:
        return f"this pair is {pair.regime or pair.title}, the claim is about {GENERAL}"
    if results.summary["exact_zero"] == 1:
        return "nothing changed between the two checkpoints"
    return ""
