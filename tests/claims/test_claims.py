"""Claims: written from the paper's numbers, judged by their tolerance, never tested on another pair's checkpoints."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opdlib import claims
from opdlib.claims import Claim, Range
from opdlib.claims.ours import DERIVED, ours_of, quantity
from opdlib.claims.verdict import judge
from opdlib.errors import RegistryError
from opdlib.registry.claims import claim_of
from opdlib.registry.pairs import Pair, registry
from opdlib.tables import Results, paper
from opdlib.tables.paper import OPD_STYLE
from tests.conftest import pico_weights
from tests.tables.results_of import deep_pair, results_of

pytestmark = pytest.mark.slow

ALL = claims.load()


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return results_of(tmp_path_factory.mktemp("claims"), *deep_pair(8))


def published(pair: str) -> dict[str, float | str]:
    """The paper's own numbers for one pair, by the names that rules use."""
    table, blocks = paper.numbers(), paper.blocks()
    known: dict[str, float | str] = dict(table[table["pair"] == pair].set_index("quantity")["value"])
    own = blocks[blocks["pair"] == pair]
    for column, name in (("rel_norm", "largest_norm_block"), ("energy_share", "largest_energy_block")):
        if own[column].notna().any():
            known[name] = str(own.loc[own[column].idxmax(), "block"])
    return known


def paper_value(claim: Claim, pair: str) -> float | str | None:
    """What the claim's quantity is for a pair of the paper; None where the paper has no number."""
    known, parts = published(pair), claim.parts
    left, right = known.get(str(parts["left"])), known.get(str(parts["right"]))
    if parts["right"] is None or left is None:
        return left
    if not isinstance(left, float) or not isinstance(right, float):
        return None
    return left - right if parts["sign"] == "-" else left / right


def test_the_file_is_in_order() -> None:
    assert len({claim.id for claim in ALL}) == len(ALL)
    assert {claim.finding for claim in ALL} == set(claims.FINDINGS)
    for claim in ALL:
        assert claim.tolerance >= 0, claim.id
        assert claim.unit in ("fraction", "points", "ratio", "block"), claim.id
        assert claim.statement.endswith((".", ".)")), claim.id
        if claim.unit != "block":
            Range.parse(claim.paper_value)


@pytest.mark.parametrize("claim", [c for c in ALL if c.pair], ids=lambda c: c.id)
def test_a_claim_about_a_row_holds_for_that_row(claim: Claim) -> None:
    assert claim.pair is not None
    assert claim.pair.paper is not None
    value = paper_value(claim, claim.pair.paper)
    assert value is not None
    assert judge(claim, value) == "reproduced"


@pytest.mark.parametrize("claim", [c for c in ALL if not c.pair], ids=lambda c: c.id)
def test_a_general_claim_spans_the_opd_style_rows(claim: Claim) -> None:
    """Each row lies in the range without any tolerance, and the range is no wider than the rows need."""
    rows = [p.paper for p in registry().values() if p.paper and p.regime in OPD_STYLE]
    values = [v for v in (paper_value(claim, row) for row in rows) if v is not None]
    if not values or claim.id == "L5":  # Figure 2 has no numbers; L5 is said of four rows out of six
        assert claim.id in {"L5", "L8", "L9", "L10", "L11", "L12"}
        return
    if claim.unit == "block":
        assert {judge(claim, v) for v in values} == {"reproduced"}
        return
    numbers = [float(v) for v in values]
    wanted = Range.parse(claim.paper_value)
    assert max(numbers) == pytest.approx(wanted.high, abs=6e-4)
    assert min(numbers) == pytest.approx(wanted.low, abs=6e-4) or math.isinf(wanted.low)


def test_four_of_six_rows_say_that_the_mlp_moves_further() -> None:
    (claim,) = (c for c in ALL if c.id == "L5")
    rows = [p.paper for p in registry().values() if p.paper and p.regime in OPD_STYLE]
    assert sum(judge(claim, paper_value(claim, row) or 0.0) == "reproduced" for row in rows) == 4


def made(value: str, tolerance: float, rule: str = "rel_norm; direction 0.5..") -> Claim:
    row = {"id": "X1", "finding": "sparsity", "statement": "A test.", "locator": "nowhere"}
    return claim_of(row | {"paper_value": value, "unit": "fraction", "tolerance": str(tolerance), "rule": rule})


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 0.5))
def test_the_tolerance_decides(paper_number: float, ours: float, tolerance: float) -> None:
    verdict = judge(made(str(paper_number), tolerance), ours)
    assert (verdict == "reproduced") == (paper_number - tolerance <= ours <= paper_number + tolerance)
    assert verdict in ("reproduced", "direction" if ours >= 0.5 else "not reproduced")


def test_verdicts_on_ranges_and_words() -> None:
    assert judge(made("0.6..0.9", 0.05), 0.94) == "reproduced"
    assert judge(made("0.6..0.9", 0.05), 0.96) == "direction"
    assert judge(made("0.6..0.9", 0.05), 0.4) == "not reproduced"
    assert judge(made("..0.1", 0.0, "rel_norm"), 0.2) == "not reproduced"
    assert judge(made("mlp", 0.0, "largest_norm_block"), "mlp") == "reproduced"
    assert judge(made("mlp", 0.0, "largest_norm_block"), "norm") == "not reproduced"


def test_a_rule_that_cannot_be_read_is_an_error() -> None:
    with pytest.raises(RegistryError, match="X1: rule 'rel_norm within' cannot be read"):
        made("0.1", 0.0, "rel_norm within")
    with pytest.raises(RegistryError, match=r"X1: tolerance '-0.1' Input should be greater"):
        made("0.1", -0.1)


def test_no_finding_of_that_name() -> None:
    with pytest.raises(RegistryError, match="no finding 'layer'"):
        claims.load("layer")


def test_every_quantity_exists_for_a_whole_model(results: Results) -> None:
    for claim in ALL:
        if claim.parts["left"] not in {"blocks.lm_head.rel_norm"}:
            assert ours_of(claim, results) is not None, claim.id
    assert all(isinstance(f(results), float | str) for f in DERIVED.values())


def test_rows_of_other_pairs_are_not_tested_and_say_what_would_test_them(results: Results) -> None:
    table = claims.compare(None, results)
    assert list(table["id"]) == [claim.id for claim in ALL]
    assert table["verdict"].isin(claims.VERDICTS).all()
    rows = table[table["about"] != claims.GENERAL]
    assert set(rows["verdict"]) == {"not tested"}
    assert rows["ours"].isna().all()
    assert rows["reason"].str.contains("opd measure ").all()
    general = table[table["about"] == claims.GENERAL]
    assert "not tested" not in set(general["verdict"])
    assert claims.counts(table)["claims"].sum() == len(ALL)
    assert list(claims.counts(table).index) == list(claims.VERDICTS)


def as_pair(results: Results, key: str, folder: Path) -> Results:
    """These results as if they were those of a pair of the registry."""
    pair = registry()[key]
    shutil.copytree(results.folder, folder)
    sides = {"source": {"spec": pair.source}, "trained": {"spec": pair.trained}}
    file = folder / "provenance.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | sides))
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
    assert set(table.loc["JustRL RLVR", "verdict"]) <= {"reproduced", "direction", "not reproduced"}


def test_nothing_is_tested_where_nothing_changed(tmp_path: Path) -> None:
    table = claims.compare(None, results_of(tmp_path, pico_weights(), pico_weights()))
    assert set(table["verdict"]) == {"not tested"}
    general = table[table["about"] == claims.GENERAL]
    assert set(general["reason"]) == {"nothing changed between the two checkpoints"}


def test_what_a_model_does_not_have_is_not_tested(tmp_path: Path) -> None:
    def without(parts: tuple[str, ...]) -> tuple[dict, dict]:  # type: ignore[type-arg]
        before, after = deep_pair(1)
        kept = [n for n in before if not any(p in n for p in parts)]
        return {n: before[n] for n in kept}, {n: after[n] for n in kept}

    table = claims.compare("layers", results_of(tmp_path, *without(("attn", "embed", "norm")))).set_index("id")
    missing = ["L3", "L4", "L5", "L6", "L7", "L9", "L10", "L11", "L12"]
    assert set(table.loc[missing, "verdict"]) == {"not tested"}
    assert table.loc["L3", "reason"] == "blocks.attention.energy_share is undefined or absent for this pair"
    assert table.loc["L1", "verdict"] == "reproduced"


def test_the_stored_view_is_not_the_papers(tmp_path: Path) -> None:
    table = claims.compare("sparsity", results_of(tmp_path, *deep_pair(2), view="stored"))
    assert set(table["verdict"]) == {"not tested"}
    assert "view is bf16" in table["reason"].iloc[0]


def test_readable_comparisons() -> None:
    rows = {
        "id": ["A", "B", "C", "D", "E"],
        "statement": ["s"] * 5,
        "locator": ["l"] * 5,
        "paper": ["0.6672..0.895", "..0.000008", "mlp", "1..", "0.12"],
        "ours": [0.7, math.nan, "norm", 0.5, 0.1],
        "unit": ["fraction", "fraction", "block", "ratio", "points"],
        "tolerance": [0.05, 2e-6, 0.0, 0.0, 0.06],
        "verdict": ["reproduced"] * 5,
        "reason": ["", "no number", "", "", ""],
    }
    shown = claims.readable(pd.DataFrame(rows))
    assert list(shown["paper"]) == ["66.72 to 89.50%", "at most 0.0008%", "mlp", "at least 1.00", "12.00 points"]
    assert list(shown["ours"]) == ["70.00%", "-", "norm", "0.50", "10.00 points"]
    assert list(shown["tolerance"]) == ["5 points", "0.0002 points", "none", "none", "6 points"]
    assert "reason" not in claims.readable(pd.DataFrame(rows).assign(reason=""))


def test_pairs_of_the_claims_are_the_papers() -> None:
    subjects: list[Pair] = [claim.pair for claim in ALL if claim.pair]
    assert {p.paper for p in subjects} == set(paper.overview()["pair"])


def test_what_the_tolerance_did(results: Results) -> None:
    """A claim at the edge of its range is named; one inside it or out of reach is not."""
    table = claims.compare("rank", results)
    row = table["id"] == "R3"
    for ours, verdict, named in ((0.45, "reproduced", True), (0.40, "reproduced", False), (0.9, "direction", False)):
        edited = table.assign(ours=table["ours"].where(~row, ours), verdict=table["verdict"].where(~row, verdict))
        assert ("R3" in set(claims.without_tolerance(edited)["id"])) == named
        assert ("R3" in claims.tolerance_in_words(edited)) == named
    nothing = claims.compare("rank", results).assign(verdict="not tested")
    assert claims.tolerance_in_words(nothing) == "No claim was tested on this pair."


def test_nested_numbers_of_a_summary(results: Results) -> None:
    summary = results.summary
    assert quantity(results, "projection.joint.0.1") == summary["projection"]["joint"]["0.1"]
    assert quantity(results, "top_energy.0.01") == summary["top_energy"]["0.01"]
    assert quantity(results, "blocks.mlp.rel_norm") == summary["blocks"]["mlp"]["rel_norm"]
    for absent in ("projection.joint.0.3", "projection.joint", "stable_rank.1", "nowhere.0.1"):
        assert quantity(results, absent) is None


@pytest.mark.parametrize(
    "claim", [c for c in ALL if c.finding in ("rank", "subspace") and not c.pair], ids=lambda c: c.id
)
def test_tolerances_that_were_set_late_follow_their_rule(claim: Claim) -> None:
    """A fifth of the range, in two digits; half of the last digit where the range is a point."""
    wanted = Range.parse(claim.paper_value)
    assert claim.tolerance == pytest.approx((wanted.high - wanted.low) / 5 or 0.005, rel=0.05)
