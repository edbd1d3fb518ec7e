"""The 2 x 2 against answers known by construction, and the rule of sameness."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest

from opdlib.tables import (
    matched,
    matched_conclusions,
    matched_counts,
    matched_norm,
    matched_paper,
    matched_shown,
    matched_words,
    study,
    study_provenance,
    summary_names,
)
from opdlib.tables.study import OTHER, SAME, UNDECIDED, at_norm, differences, mean_interval, over_seeds, verdict
from opdlib.train.objectives import DISTILLATIONS
from tests.matched_runs import END, LEARNED, SOURCE, write_study

DATA, LOSS, BOTH = 0.5, -2.0, 0.25
"""What teacher samples, cross-entropy and both together add to OPD's number, in every seed."""
SEEDS = {0: 10.0, 1: 10.3, 2: 9.9, 3: 10.1}
ADDED = {"opd": 0.0, "opd-ce": LOSS, "offline-rkl": DATA, "offline": DATA + LOSS + BOTH}


def runs() -> pd.DataFrame:
    """One number of four arms over four seeds."""
    rows = [
        {"arm": arm, "seed": seed, "stable_rank": base + added}
        for arm, added in ADDED.items()
        for seed, base in SEEDS.items()
    ]
    return pd.DataFrame(rows)


def along() -> pd.DataFrame:
    """Two arms on the way: the number is 3 + ln(norm) for opd, 4 + ln(norm) for offline, which goes half as far."""
    rows = [
        {"arm": arm, "seed": seed, "step": step, "rel_norm": far * step, "stable_rank": start + math.log(far * step)}
        for arm, far, start in (("opd", 0.002, 3.0), ("offline", 0.001, 4.0))
        for seed in (0, 1)
        for step in (1, 2, 4)
    ]
    return pd.DataFrame(rows)


def test_effects_are_what_was_built_in() -> None:
    found = matched.effects(runs(), ["stable_rank"]).set_index("effect")["value"]
    assert found["data"] == pytest.approx(DATA + BOTH / 2)
    assert found["loss"] == pytest.approx(LOSS + BOTH / 2)
    assert found["interaction"] == pytest.approx(BOTH)


def test_effects_need_all_four_corners() -> None:
    three = runs().query("arm != 'offline'")
    found = matched.effects(three, ["stable_rank"], ["data", "loss", "interaction"])
    assert (found["seeds"] == 0).all()
    assert found["value"].isna().all()
    assert (found["verdict"] == UNDECIDED).all()


def test_differences_are_paired_by_seed() -> None:
    """The seeds' own spread cancels, so that the interval has no width."""
    found = differences(runs(), ["opd-ce"], ["stable_rank"]).iloc[0]
    assert (found["seeds"], found["difference"]) == (4, pytest.approx(LOSS))
    assert found["high"] - found["low"] == pytest.approx(0.0, abs=1e-12)
    assert found["range"] == pytest.approx(0.4)
    assert found["verdict"] == OTHER
    assert differences(runs(), ["offline-rkl"], ["stable_rank"]).iloc[0]["verdict"] == OTHER  # 0.5 is outside 0.4


@pytest.mark.parametrize(
    ("low", "high", "span", "expected"),
    [
        (-0.1, 0.1, 0.1, SAME),
        (0.05, 0.1, 0.1, SAME),
        (0.05, 0.2, 0.1, OTHER),
        (-0.2, -0.15, 0.1, OTHER),
        (-0.2, 0.05, 0.1, UNDECIDED),
        (0.0, 0.2, 0.1, UNDECIDED),
        (math.nan, math.nan, 0.1, UNDECIDED),
        (0.0, 0.0, 0.0, SAME),
    ],
)
def test_the_rule(low: float, high: float, span: float, expected: str) -> None:
    assert verdict(low, high, span) == expected


def test_the_interval_is_students() -> None:
    mean, low, high = mean_interval([1.0, 2.0, 3.0])
    assert (mean, high - mean) == (2.0, pytest.approx(4.302652729911275 / math.sqrt(3)))
    assert mean - low == pytest.approx(high - mean)
    alone = mean_interval([5.0])
    assert alone[0] == 5.0
    assert math.isnan(alone[1])
    assert math.isnan(mean_interval([])[0])


def test_undefined_numbers_are_no_seeds() -> None:
    table = runs()
    table.loc[table["seed"] == 1, "stable_rank"] = math.nan
    assert set(over_seeds(table, ["stable_rank"])["seeds"]) == {3}
    assert differences(table, ["offline"], ["stable_rank"]).iloc[0]["seeds"] == 3


def test_at_equal_norm_a_number_is_interpolated_in_the_logarithm() -> None:
    norms = pd.Series({0: 0.003, 1: 0.0015})
    found = at_norm(along(), norms, ["stable_rank"]).set_index(["arm", "seed"])["stable_rank"]
    assert found["opd", 0] == pytest.approx(3 + math.log(0.003))
    assert found["offline", 1] == pytest.approx(4 + math.log(0.0015))
    assert math.isnan(found["opd", 1])  # never so near after its first measured step


def test_arms_are_compared_where_both_have_been() -> None:
    assert matched_norm.largest_common(along(), ["opd", "offline"]).to_dict() == {0: 0.004, 1: 0.004}
    found = matched_norm.compared(along(), ["offline"], ["rel_norm", "stable_rank"])
    assert list(found["quantity"]) == ["stable_rank"]
    assert found["difference"].iloc[0] == pytest.approx(1.0)
    assert matched_norm.middle_step(along()) == 2
    assert matched_norm.middle_error(along(), ["stable_rank"])["stable_rank"] == pytest.approx(0.0, abs=1e-12)


def test_the_part_of_rate_and_length() -> None:
    rows = [("data and loss", 2.0), ("rate and length", 4.0), ("all of it", 8.0), ("paper", 16.0)]
    table = pd.DataFrame([{"quantity": "rel_norm", "change": change, "value": value} for change, value in rows])
    assert matched_paper.part_of_rate(table)["rel_norm"] == pytest.approx(2 / 3)
    assert matched_paper.part_of_rate(table, "paper")["rel_norm"] == pytest.approx(1 / 2)


def test_the_design_is_that_of_the_study() -> None:
    table = matched.design("pico")
    assert list(table["arm"]) == ["opd", "opd-ce", "offline-rkl", "offline"]
    assert list(matched.design("smollm2")["arm"]) == ["opd", "offline-rkl", "offline"]


def test_the_corners_are_what_the_objectives_are() -> None:
    losses = {"divergence": "reverse KL", "cross-entropy": "cross-entropy"}
    for arm, (samples, loss) in matched.CORNERS.items():
        objective = DISTILLATIONS[arm]
        assert (objective.samples, losses[objective.loss]) == (samples, loss)
        assert objective.loss == "cross-entropy" or objective.beta == 1.0


# A study in results folders.


@pytest.fixture(scope="module")
def five(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_study(tmp_path_factory.mktemp("five"), 5)


def test_what_is_tested_varies_and_repeats_nothing(five: Path) -> None:
    table = study.runs("pico", results=five)
    assert "parameters" not in matched.numbers(table)
    assert {"rank_share.1e-05", "projection_expected.joint.0.1"} <= set(matched.numbers(table))
    tested = matched.tested(table)
    assert {"rel_norm", "exact_zero", "stable_rank", "projection.joint.0.1"} <= set(tested)
    assert not {"rank_share.1e-05", "projection_expected.joint.0.1", "sparsity.1e-05", "hill_exponent"} & set(tested)


def test_runs_that_are_missing_are_named_with_their_command(five: Path, tmp_path: Path) -> None:
    state = matched.state("pico", ["opd", "rlvr"], five)
    assert state[["planned", "finished"]].to_numpy().tolist() == [[5, 5], [5, 0]]
    assert matched_words.runs(state, "pico") == (
        "**pico**: 5 of 10 planned runs of these arms have results. Not run: rlvr; `opd study pico --arms rlvr` runs "
        "them."
    )
    partly = matched.state("smollm2", ["opd", "opd-ce"], write_study(tmp_path, 1, {"opd": 0.001}, "smollm2"))
    said = matched_words.runs(partly, "smollm2")
    assert "opd (1 of 3 seeds); `opd study smollm2 --arms opd` runs the rest" in said
    assert "This scale does not have opd-ce." in said


def test_an_arm_that_learns_nothing_is_said_to(five: Path) -> None:
    table = matched_counts.accuracy(study.runs("pico", results=five)).set_index("arm")
    assert table.loc["opd", "accuracy"] == pytest.approx(LEARNED + 0.002)
    assert table.loc["opd", ["wilson_low", "wilson_high"]].to_list() == pytest.approx([LEARNED - 0.03, LEARNED + 0.034])
    assert (table.loc["opd-k1", "learned"], table.loc["opd-k1", "source"]) == ("no", SOURCE)
    assert table.loc["offline", "tokens"] == 1002
    said = matched_words.learned(table.reset_index(), "pico")
    assert "no sign of learning: `opd-k1`" in said
    assert matched_shown.accuracy(table.reset_index()).loc["opd-k1", "tokens"] == "1,002"


def test_equal_at_the_end_or_only_at_equal_norm(five: Path) -> None:
    """offline-rkl is opd over again; opd-ce differs by its norm alone; offline also by its stable rank."""
    keys = ["rel_norm", "exact_zero", "stable_rank", "rank_share.1e-05"]
    table, along = study.runs("pico", results=five), study.along("pico", results=five)
    end = matched.differing(matched.against_opd(table, ["opd-ce", "offline"], keys))
    assert "rank_share.1e-05" not in set(end["quantity"])
    assert set(end.query("quantity != 'stable_rank'")["verdict"]) == {OTHER}
    norms = {
        "one": matched_norm.norm_at(along, matched_norm.middle_step(along)),
        "two": matched_norm.largest_common(along, list(matched.CORNERS)),
    }
    assert norms["one"][4] == pytest.approx(0.01 * 1.04 / 2)
    assert norms["two"][4] == pytest.approx(0.008 * 1.04)
    at = {when: matched_norm.compared(along, ["opd-ce", "offline"], keys, norm) for when, norm in norms.items()}
    found = at["two"].set_index(["arm", "quantity"])["difference"]
    assert found["offline", "stable_rank"] == pytest.approx(1.0, abs=0.01)
    assert abs(found["opd-ce", "stable_rank"]) < 0.01
    error = matched_norm.middle_error(along, keys)
    said = matched_conclusions.equal_norm(end, at, error, "pico")
    assert "`offline`, pico, 5 seeds at each of 2 norms" in said
    assert "stable rank (102%)" in said.rpartition("another at every norm")[2]  # 1 of 1 - 10 * (0.0102 - 0.00816)
    assert matched_shown.across({"end": end, **at}, ["opd-ce"]).loc["relative norm", "opd-ce"] == "another / - / -"


def test_an_arm_that_never_was_so_far_is_not_compared(five: Path) -> None:
    along = study.along("pico", results=five)
    far = pd.Series(dict.fromkeys(range(5), 0.5))
    assert (matched_norm.compared(along, ["offline"], ["stable_rank"], far)["seeds"] == 0).all()


def test_factors_multiply_to_the_whole(five: Path) -> None:
    table = matched_paper.factors(study.runs("pico", results=five), ["rel_norm", "rank_share.1e-05"])
    own = table[table["quantity"] == "rel_norm"].set_index("change")["value"]
    assert own["data and loss"] == pytest.approx(END["offline"] / END["opd"])
    assert own["rate and length"] == pytest.approx(END["offline-long"] / END["offline"])
    assert own["all of it"] == pytest.approx(own["data and loss"] * own["rate and length"])
    assert own["paper"] == pytest.approx(0.11936 / 0.00047)
    part = matched_paper.part_of_rate(table)
    assert part["rel_norm"] == pytest.approx(math.log(10) / math.log(8))
    assert math.isnan(part["rank_share.1e-05"])
    assert matched_shown.factors(table).loc["relative norm", "data and loss"].startswith("0.8 ")
    assert "go its way: relative norm (42%)" in matched_conclusions.rate(table, "pico")


def test_the_papers_rows_are_the_papers() -> None:
    table = matched_paper.rows(["rel_norm", "sparsity.1e-05", "svd_energy.16", "effective_rank"]).set_index("pair")
    assert list(table.columns) == ["regime", "rel_norm", "sparsity.1e-05", "svd_energy.16"]
    assert table.loc["Qwen-Math Distill", "rel_norm"] == pytest.approx(0.11936)
    assert table.loc["DS-Qwen OPD", "sparsity.1e-05"] == pytest.approx(0.8258)
    assert table.loc["DS-Qwen OPD", "svd_energy.16"] == pytest.approx(0.2692)
    assert matched_norm.rank_correlation("rel_norm") == pytest.approx(1.0)


def test_chance_and_the_strict_count() -> None:
    rows = [
        {"arm": "offline", "quantity": "a", "seeds": 5, "difference": 10.0, "low": 9.9, "high": 10.1, "verdict": OTHER},
        {"arm": "offline", "quantity": "b", "seeds": 5, "difference": 1.0, "low": 0.1, "high": 1.9, "verdict": OTHER},
        {"arm": "offline", "quantity": "c", "seeds": 5, "difference": 0.0, "low": -1.0, "high": 1.0, "verdict": SAME},
        {"arm": "offline", "quantity": "d", "seeds": 1, "difference": 0.0, "low": math.nan, "high": math.nan}
        | {"verdict": UNDECIDED},
    ]
    counts = matched_counts.counted(pd.DataFrame(rows)).iloc[0]
    assert (counts["tested"], counts[SAME], counts[OTHER], counts[UNDECIDED]) == (3, 1, 2, 1)
    assert counts["by_chance"] == pytest.approx(0.15)
    assert counts["strict"] == 1


def test_what_is_said_of_the_scale(five: Path) -> None:
    table = study.runs("pico", results=five)
    assert matched_words.over_chance(table.query("arm == 'opd'")) == pytest.approx((0.02 + 0.0102) / 0.01)
    assert "outside it in both" in matched_words.sparse(table, "pico")
    assert "how sparse OPD is" in matched_conclusions.beyond_the_range(table, "pico")
    assert matched_words.rule().startswith("> Two arms are compared seed by seed")


def test_effects_in_words(five: Path) -> None:
    table = study.runs("pico", results=five)
    effects = matched.effects(table, ["rel_norm", "stable_rank", "hill_exponent"])
    said = matched_words.sizes(effects, "pico")
    assert "5 seeds, 2 numbers that vary" in said
    assert "loss \N{MINUS SIGN}20.0% of OPD's (relative norm)" in said
    factors = matched_paper.factors(table, ["rel_norm"])
    said = matched_conclusions.against_paper(effects, factors, {"rel_norm": 0.0102}, "pico")
    assert "(loss) multiplies relative norm by 0.796 to 0.804 (paper's contrast: 254)" in said
    assert matched_shown.effects(effects).loc["Hill exponent"].isin(["-"]).all()


def test_the_provenance_says_everything_that_occurs(five: Path) -> None:
    table = study_provenance.provenance("pico", ["opd", "offline"], five)
    assert table.loc["runs", "pico"] == "10"
    assert table.loc["source digest", "pico"] == "ab" * 8
    assert table.loc["code", "pico"] == "01234567; 01234567 (with uncommitted changes)"
    assert study_provenance.provenance("smollm2", ["opd"], five).empty


@pytest.mark.parametrize("seeds", [0, 1])
def test_without_runs_or_with_one_seed_nothing_is_claimed(seeds: int, tmp_path: Path) -> None:
    write_study(tmp_path, seeds)
    table, along = study.runs("pico", results=tmp_path), study.along("pico", results=tmp_path)
    arms = ["opd-ce", "offline-rkl", "offline"]
    end = matched.differing(matched.against_opd(table, arms, matched.HEADLINE))
    effects = matched.effects(table, matched.HEADLINE)
    at = {"one": matched_norm.compared(along, arms, matched.HEADLINE, matched_norm.norm_at(along, 10))}
    factors = matched_paper.factors(table, matched.HEADLINE)
    accuracy = matched_counts.accuracy(table)
    shown = [
        matched_shown.means(table, matched.HEADLINE, arms),
        matched_shown.compared(end, matched_norm.middle_error(along, matched.HEADLINE)),
        matched_shown.effects(effects),
        matched_shown.across({"end": end, **at}, arms),
        matched_shown.factors(factors),
        matched_shown.accuracy(accuracy),
        matched_shown.counts(matched_counts.counted(end)),
    ]
    assert not any("nan" in str(cell).split() for text in shown for cell in text.to_numpy().ravel())
    assert not end["verdict"].isin([OTHER]).any()
    said = [
        matched_words.sparse(table, "pico"),
        matched_words.learned(accuracy, "pico"),
        matched_words.verdicts(end, table, "pico"),
        matched_words.sizes(effects, "pico"),
        matched_words.norms({"one": matched_norm.norm_at(along, 10)}),
        matched_conclusions.equal_norm(end, at, {}, "pico"),
        matched_conclusions.rate(factors, "pico"),
        matched_conclusions.views(end, end, "pico"),
        matched_conclusions.chance(end, "pico"),
        matched_conclusions.against_paper(effects, factors, {}, "pico"),
        matched_conclusions.undecided_is_not_the_same([end], "pico"),
        matched_conclusions.accuracy_gap(accuracy, arms, "pico"),
        matched_conclusions.beyond_the_range(table, "pico"),
    ]
    assert all(text and "nan" not in text.split() for text in said)
    assert "**Another**" not in " ".join(said)
    assert "no interval" in said[8]
    assert matched_norm.middle_step(along) == (10 if seeds else None)


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("rel_norm", "relative norm"),
        ("sparsity.1e-05", "within 1e-5"),
        ("top_energy.0.01", "energy of top 1%"),
        ("svd_energy.16", "top 16"),
        ("svd_energy_rank.0.1", "top 10% of rank"),
        ("projection_expected.left.0.05", "left projection, 5%: chance"),
        ("coverage_1e-05.principal_not_low.0.2", "principal not low coverage, 20% (above 1e-5)"),
        ("coverage_ceiling.low.0.1", "low coverage, 10%: ceiling"),
        ("blocks.lm_head.energy_share", "lm head: share of the energy"),
        ("sines.right.max", "largest sine, right"),
        ("accuracy", "accuracy"),
    ],
)
def test_names_of_the_numbers(key: str, expected: str) -> None:
    assert summary_names.name(key) == expected
