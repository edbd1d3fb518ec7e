"""Claims: written from the paper's numbers, judged by their tolerance, never tested on another pair's checkpoints."""

import hashlib
import json
import math
import shutil
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opdlib import claims
from opdlib.claims import Claim, verdict
from opdlib.claims.ours import FROM_TABLES, Measured, of_results
from opdlib.errors import RegistryError
from opdlib.registry.claims import OPD, claim_of, clauses
from opdlib.registry.pairs import Pair, registry
from opdlib.tables import Results, open_results, paper
from opdlib.tables.paper import OPD_STYLE
from tests.conftest import pico_weights, reseal
from tests.tables.results_of import deep_pair, results_of

pytestmark = pytest.mark.slow

ALL = claims.load()


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return results_of(tmp_path_factory.mktemp("claims"), *deep_pair(8))


def everything(results: Results) -> pd.DataFrame:
    """All claims about pairs, compared."""
    table = pd.concat([claims.compare(f, results) for f in ("sparsity", "layers", "rank", "subspace")])
    return table.reset_index(drop=True)


def paper_value(claim: Claim, pair: str) -> float | None:
    """What the claim's quantity is for a pair of the paper; None where the paper has no number."""
    table = paper.numbers()
    known = dict(table[table["pair"] == pair].set_index("quantity")["value"])
    if claim.quantity.startswith("lead."):
        _, block, what = claim.quantity.split(".")
        own = paper.blocks().query("pair == @pair").dropna(subset=[what]).set_index("block")[what]
        return float(own[block] / own.drop(block).max()) if block in own else None
    left, right = known.get(claim.quantity), known.get(claim.other)
    if claim.operation == "value" or left is None or right is None:
        return left if claim.operation == "value" else None
    return left - right if claim.operation == "minus" else left / right


def test_the_file_is_in_order() -> None:
    assert len({claim.id for claim in ALL}) == len(ALL)
    assert {claim.finding for claim in ALL} == set(claims.FINDINGS)
    assert {claim.clause for claim in ALL} == set(clauses())
    for claim in ALL:
        assert claim.statement.endswith((".", ".)")), claim.id


def test_what_was_fixed_before_our_results_stays() -> None:
    """The range of every claim of that time, its tolerance and its wider range, by a digest; they are never moved."""
    fixed = [c for c in ALL if c.fixed == "before"]
    assert len(fixed) == 58
    said = [[c.id, c.low, c.high, c.tolerance, c.wide_low, c.wide_high] for c in fixed]
    assert hashlib.sha256(json.dumps(said).encode()).hexdigest()[:16] == "c51d1d08e6712f33"


@pytest.mark.parametrize("claim", [c for c in ALL if c.pair], ids=lambda c: c.id)
def test_a_claim_about_a_row_holds_for_that_row(claim: Claim) -> None:
    assert claim.pair is not None
    assert claim.pair.paper is not None
    value = paper_value(claim, claim.pair.paper)
    assert value is not None
    assert verdict.number(claim, value) == "reproduced"


@pytest.mark.parametrize("claim", [c for c in ALL if c.subject == OPD], ids=lambda c: c.id)
def test_a_general_claim_spans_the_opd_style_rows(claim: Claim) -> None:
    """Each row lies in the range without any tolerance, and the range is no wider than the rows need."""
    rows = [p.paper for p in registry().values() if p.paper and p.regime in OPD_STYLE]
    values = [v for v in (paper_value(claim, row) for row in rows) if v is not None]
    if not values or claim.id == "L5":  # Figure 2 has no numbers; L5 is said of four rows out of six
        assert claim.id in {"L5", "L8", "L9", "L10", "L11", "L12", "L29"}
        return
    if claim.quantity.startswith("lead."):
        assert {verdict.number(claim, v) for v in values} == {"reproduced"}
        return
    assert max(values) == pytest.approx(claim.range.high, abs=6e-4)
    assert min(values) == pytest.approx(claim.range.low, abs=6e-4) or math.isinf(claim.range.low)


def test_four_of_six_rows_say_that_the_mlp_moves_further() -> None:
    (claim,) = (c for c in ALL if c.id == "L5")
    rows = [p.paper for p in registry().values() if p.paper and p.regime in OPD_STYLE]
    assert sum(verdict.number(claim, paper_value(claim, row) or 0.0) == "reproduced" for row in rows) == 4


def made(low: str, high: str, tolerance: float, **more: str) -> Claim:
    row = dict.fromkeys(Claim.model_fields, "") | {"id": "X1", "clause": "A3", "finding": "sparsity"}
    row |= {"statement": "A test.", "locator": "nowhere", "subject": "OPD", "quantity": "rel_norm"}
    row |= {"operation": "value", "low": low, "high": high, "unit": "fraction", "tolerance": str(tolerance)}
    return claim_of(row | {"judged": "mean", "wide_low": "0.5", "fixed": "after"} | more)


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 0.5))
def test_the_tolerance_decides(paper_number: float, ours: float, tolerance: float) -> None:
    found = verdict.number(made(str(paper_number), str(paper_number), tolerance), ours)
    assert (found == "reproduced") == (paper_number - tolerance <= ours <= paper_number + tolerance)
    assert found in ("reproduced", "direction" if ours >= 0.5 else "not reproduced")


def test_verdicts_on_ranges() -> None:
    assert verdict.number(made("0.6", "0.9", 0.05), 0.94) == "reproduced"
    assert verdict.number(made("0.6", "0.9", 0.05), 0.96) == "direction"
    assert verdict.number(made("0.6", "0.9", 0.05), 0.4) == "not reproduced"
    assert verdict.number(made("", "0.1", 0.0, wide_low=""), 0.2) == "not reproduced"
    assert verdict.number(made("", "0.1", 0.0), math.nan) == "not tested"


@pytest.mark.parametrize(
    ("ours", "wanted"),
    [
        ((0.7, 0.65, 0.75), "reproduced"),
        ((0.7, 0.5, 0.9), "direction"),
        ((0.7, math.nan, math.nan), "direction"),
        ((0.58, 0.4, 0.75), "not reproduced"),
        ((math.nan, math.nan, math.nan), "not tested"),
    ],
)
def test_verdicts_on_intervals(ours: tuple[float, float, float], wanted: str) -> None:
    assert verdict.number(made("0.6", "", 0.0, judged="interval", wide_low=""), *ours) == wanted


def test_a_row_that_makes_no_sense_is_an_error() -> None:
    with pytest.raises(RegistryError, match=r"X1: tolerance is '-0.1': Input should be greater"):
        made("0.1", "0.1", -0.1)
    with pytest.raises(RegistryError, match="X1: the paper's range has neither low nor high"):
        made("", "", 0.1)
    with pytest.raises(RegistryError, match="X1: control 'noise' needs a direction"):
        made("0.1", "", 0.1, control="noise")
    with pytest.raises(RegistryError, match="X1: no pair 'smolm2'"):
        made("0.1", "", 0.1, subject="smolm2")


def test_no_finding_of_that_name() -> None:
    with pytest.raises(RegistryError, match="no finding 'layer'"):
        claims.load("layer")


def test_every_quantity_exists_for_a_whole_model(results: Results) -> None:
    measured = of_results(results)
    for claim in ALL:
        if claim.subject == OPD or (claim.pair and "lm_head" not in claim.quantity):
            assert not math.isnan(measured.combined(claim.operation, claim.quantity, claim.other)), claim.id
    assert all(math.isfinite(f(results)) for f in FROM_TABLES.values())


def test_rows_of_other_pairs_are_not_tested_and_say_what_would_test_them(results: Results) -> None:
    table = everything(results)
    assert list(table["id"]) == [claim.id for claim in ALL if claim.subject == OPD or claim.pair]
    assert table["verdict"].isin(verdict.NUMBER).all()
    assert table["control"].isin(verdict.CONTROL).all()
    rows = table[table["about"] != claims.GENERAL]
    assert set(rows["verdict"]) == {"not tested"}
    assert rows["ours"].isna().all()
    assert rows["reason"].str.contains("opd measure ").all()
    general = table[table["about"] == claims.GENERAL]
    assert "not tested" not in set(general["verdict"])
    assert claims.counts(table)["claims"].sum() == len(table)
    assert list(claims.counts(table).index) == list(verdict.NUMBER)


def as_pair(results: Results, key: str, folder: Path) -> Results:
    """These results as if they were those of a pair of the registry."""
    pair = registry()[key]
    shutil.copytree(results.folder, folder)
    specs = {"source": pair.source, "trained": pair.trained}
    reseal(folder, **{side: results.provenance[side] | {"spec": spec} for side, spec in specs.items()})
    return Results(folder)


def test_a_row_is_tested_on_its_own_pair_only(results: Results, tmp_path: Path) -> None:
    table = claims.compare("sparsity", as_pair(results, "minicpm-opd", tmp_path / "it")).set_index("about")
    assert set(table.loc["MiniCPM OPD", "verdict"]) <= {"reproduced", "direction", "not reproduced"}
    assert set(table.loc["DeepScaleR RLVR", "verdict"]) == {"not tested"}
    assert "not tested" not in set(table.loc[claims.GENERAL, "verdict"])


def test_claims_about_opd_are_not_tested_on_reinforcement_learning(results: Results, tmp_path: Path) -> None:
    table = claims.compare("layers", as_pair(results, "justrl-rlvr", tmp_path / "it")).set_index("about")
    assert set(table.loc[claims.GENERAL, "verdict"]) == {"not tested"}
    assert set(table.loc[claims.GENERAL, "reason"]) == {"this pair is RLVR, the claim is about OPD-style pairs"}
    own = table.loc["JustRL RLVR"].set_index("id")["verdict"]
    assert own.index[own == "not tested"].tolist() == ["L15"], "a pico model has no head of its own"


def test_nothing_is_tested_where_nothing_changed(tmp_path: Path) -> None:
    table = everything(results_of(tmp_path, pico_weights(), pico_weights()))
    assert set(table["verdict"]) == {"not tested"}
    general = table[table["about"] == claims.GENERAL]
    assert set(general["reason"]) == {"nothing changed between the two checkpoints"}


def test_what_a_model_does_not_have_is_not_tested(tmp_path: Path) -> None:
    def without(parts: tuple[str, ...]) -> tuple[dict, dict]:  # type: ignore[type-arg]
        before, after = deep_pair(1)
        kept = [n for n in before if not any(p in n for p in parts)]
        return {n: before[n] for n in kept}, {n: after[n] for n in kept}

    table = claims.compare("layers", results_of(tmp_path, *without(("attn", "embed", "norm")))).set_index("id")
    missing = ["L1", "L3", "L4", "L5", "L6", "L7", "L9", "L10", "L11", "L12"]
    assert set(table.loc[missing, "verdict"]) == {"not tested"}
    assert table.loc["L3", "reason"] == "blocks.attention.energy_share is undefined or absent"
    assert table.loc["L2", "ours"] == 1


def test_the_stored_view_is_not_the_papers(tmp_path: Path) -> None:
    table = claims.compare("sparsity", results_of(tmp_path, *deep_pair(2), view="stored"))
    assert set(table["verdict"]) == {"not tested"}
    assert "view is bf16" in table["reason"].iloc[0]


def test_readable_comparisons() -> None:
    rows = {
        "id": ["A", "B", "C", "D"],
        "statement": ["s"] * 4,
        "locator": ["l"] * 4,
        "low": [0.6672, -math.inf, 1.0, 0.12],
        "high": [0.895, 8e-6, math.inf, 0.12],
        "ours": [0.7, math.nan, 0.5, 0.1],
        "low_ours": [0.69, math.nan, math.nan, 0.08],
        "high_ours": [0.71, math.nan, math.nan, 0.12],
        "unit": ["fraction", "fraction", "ratio", "points"],
        "tolerance": [0.05, 2e-6, 0.0, 0.06],
        "verdict": ["reproduced"] * 4,
        "control": ["none"] * 4,
        "reason": ["", "no number", "", ""],
    }
    shown = claims.readable(pd.DataFrame(rows))
    assert list(shown["paper"]) == ["66.72 to 89.50%", "at most 0.0008%", "at least 1.00", "12.00 points"]
    assert list(shown["ours"]) == ["70.00% (69.00 to 71.00)", "-", "0.50", "10.00 points (8.00 to 12.00)"]
    assert list(shown["tolerance"]) == ["5 points", "0.0002 points", "none", "6 points"]
    assert "reason" not in claims.readable(pd.DataFrame(rows).assign(reason=""))


def test_pairs_of_the_claims_are_the_papers() -> None:
    subjects: list[Pair] = [claim.pair for claim in ALL if claim.pair]
    assert {p.paper for p in subjects} == set(paper.overview()["pair"])


def test_what_the_tolerance_did(results: Results) -> None:
    """A claim at the edge of its range is named; one inside it or out of reach is not."""
    table = claims.compare("rank", results)
    row = table["id"] == "R3"
    for ours, said, named in ((0.45, "reproduced", True), (0.40, "reproduced", False), (0.9, "direction", False)):
        edited = table.assign(ours=table["ours"].where(~row, ours), verdict=table["verdict"].where(~row, said))
        assert ("R3" in set(claims.without_tolerance(edited)["id"])) == named


def test_numbers_of_a_summary(results: Results) -> None:
    summary, measured = results.summary, of_results(results)
    assert measured.number("projection.joint.0.1") == summary["projection"]["joint"]["0.1"]
    assert measured.number("blocks.mlp.rel_norm") == summary["blocks"]["mlp"]["rel_norm"]
    assert measured.number("changed") == pytest.approx(1 - summary["exact_zero"])
    assert measured.number("least_sparse_layer") == min(layer["sparsity"]["1e-05"] for layer in summary["layers"])
    shares = {block: own["energy_share"] for block, own in summary["blocks"].items()}
    rest = max(share for block, share in shares.items() if block != "mlp")
    assert measured.number("lead.mlp.energy_share") == pytest.approx(shares["mlp"] / rest)
    for absent in ("projection.joint.0.3", "projection.joint", "stable_rank.1", "nowhere.0.1"):
        assert math.isnan(measured.number(absent))


def test_chance_is_the_median_over_matrices_of_the_ratio(results: Results) -> None:
    rows = results.matrices.query("metric == 'projection' and side == 'joint' and at == 0.1").dropna(subset="value")
    found = of_results(results).explained("chance", "projection.joint.0.1")
    assert found["ratio"] == pytest.approx((rows["expected"] / rows["value"]).median())
    assert found["verdict"] in ("explained", "above", "below", "undecided")
    assert of_results(results).explained("chance", "stable_rank") == {}
    assert Measured(0, results.summary).explained("chance", "projection.joint.0.1") == {}, "without tables"


@pytest.mark.parametrize(
    "claim", [c for c in ALL if c.finding in ("rank", "subspace") and c.subject == OPD], ids=lambda c: c.id
)
def test_tolerances_that_were_set_late_follow_their_rule(claim: Claim) -> None:
    """A fifth of the range, in two digits; half of the last digit where the range is a point."""
    assert claim.tolerance == pytest.approx((claim.range.high - claim.range.low) / 5 or 0.005, rel=0.05)


def test_a_tolerance_that_accepts_chance_is_marked() -> None:
    """Chance of a projection at the shapes of the default pair lies in the widened range; of a coverage it does not."""
    marked = {claim.id for claim in ALL if claim.accepts == "chance"}
    summary = open_results("smollm2-opd").summary
    chance = {f"projection.joint.{share}": value for share, value in summary["projection_expected"]["joint"].items()}
    chance |= {
        f"coverage.{mask}.{share}": float(share) for mask in ("principal", "low") for share in ("0.01", "0.05", "0.1")
    }
    known = [claim for claim in ALL if claim.subject == OPD and claim.quantity in chance]
    assert marked == {c.id for c in known if c.range.widened(c.tolerance).holds(chance[c.quantity])} == {"U1"}
