"""The 2 x 2 against answers known by construction, and the rule of sameness."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import studentized_range, t

from opdlib.registry.study import find_scale
from opdlib.tables import study
from opdlib.tables.matched import arms, margin, norm, paper, shown
from opdlib.tables.matched.margin import WITHIN
from opdlib.tables.study import OTHER, SAME, UNDECIDED
from tests.tables.matched_runs import END, along, write_runs


def test_the_norm_that_both_have_reached() -> None:
    assert norm.largest_common(along(), ["opd", "offline"]).to_dict() == {0: 0.004, 1: 0.004}
    partly = along().query("arm == 'opd' or seed == 0")
    assert norm.largest_common(partly, ["opd", "offline", "opd-ce"]).to_dict() == {0: 0.004}, "seed 1 has one arm alone"


def test_runs_over_one_source_are_drawn_together() -> None:
    table = norm.over_source("smollm2-bf16")
    scales = table["seed"].str.partition(" ")[0]
    assert {"smollm2-bf16", "smollm2-h100"} <= set(scales)
    assert not scales.str.startswith("pico").any()
    first = norm.over_source("pico-bf16")["seed"].str.partition(" ")[0]
    assert set(first) == {"pico-bf16"}, "its source was trained otherwise than that of pico"
    assert {"opd", "adamw-1e-4"} <= set(table[table["arm"].isin(norm.rates())]["arm"])


def test_what_was_computed_in_two_ways_stands_together(tmp_path: Path) -> None:
    write_runs(tmp_path, 2, {"opd": 0.010, "opd-ce": 0.008, "offline": 0.004, "opd-native": 0.012}, "smollm2")
    write_runs(tmp_path, 3, {"opd": 0.020, "offline": 0.008, "rlvr": 0.008}, "smollm2-bf16")
    table = arms.computed_otherwise("smollm2", tmp_path)
    assert table.equals(arms.computed_otherwise("smollm2-bf16", tmp_path))
    text = shown.by_arm(table, ["rel_norm", "no such number"])
    ways = ["opd, smollm2", "opd, smollm2-bf16", "opd-native, smollm2", "offline, smollm2", "offline, smollm2-bf16"]
    assert [*text.index] == ways, "opd-ce and rlvr were computed in one way"
    assert [*text["seeds"]] == ["2", "3", "2", "2", "3"]
    assert text["relative norm"].str.partition("\N{NO-BREAK SPACE}")[0].to_dict()["opd, smollm2-bf16"] == "2.02%"
    alone = shown.by_arm(arms.computed_otherwise("pico", tmp_path), ["rel_norm"])
    assert alone.iloc[0, 0] == "no runs yet"


def test_the_part_of_rate_and_length() -> None:
    rows = [("data and loss", 2.0), ("rate and length", 4.0), ("all of it", 8.0), ("paper", 16.0)]
    table = pd.DataFrame([{"quantity": "rel_norm", "change": change, "value": value} for change, value in rows])
    assert paper.part_of_rate(table)["rel_norm"] == pytest.approx(2 / 3)
    assert paper.part_of_rate(table, "paper")["rel_norm"] == pytest.approx(1 / 2)


def test_without_the_long_arm_data_and_loss_stand_beside_the_papers_contrast(tmp_path: Path) -> None:
    table = study.runs("pico", root=write_runs(tmp_path, 2, {"opd": 0.010, "offline": 0.008}))
    own = shown.factors(paper.factors(table, ["rel_norm", "stable_rank"])).loc["relative norm"]
    assert own["data and loss"] == "0.8 (0.8 to 0.8)"
    assert own["paper"].startswith("254 (")
    assert set(own.drop(["data and loss", "paper"])) == {"-"}
    assert paper.factors(table.iloc[:0], ["rel_norm"])["value"].isna().iloc[0]


def test_the_design_is_that_of_the_study() -> None:
    table = arms.design("pico")
    assert list(table.index) == ["opd", "opd-ce", "offline-rkl", "offline"]
    assert len(table.drop_duplicates()) == 1, "one line apart, which is none of these"
    there = [arm for arm in arms.CORNERS if arm in find_scale("smollm2-bf16").arms]
    assert list(arms.design("smollm2-bf16").index) == there


@pytest.fixture(scope="module")
def five(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_runs(tmp_path_factory.mktemp("five"), 5)


def test_runs_that_are_missing_are_counted_with_their_command(five: Path, tmp_path: Path) -> None:
    state = study.standing("pico", ["opd", "rlvr"], five)
    assert state[["planned", "finished"]].to_numpy().tolist() == [[5, 5], [5, 0]]
    assert state["missing"].to_list() == ["", "opd study pico --arms rlvr"]
    small = write_runs(tmp_path, 1, {"opd": 0.001}, "smollm2-bf16")
    partly = study.standing("smollm2-bf16", ["opd", "offline-long"], small)
    assert partly[["planned", "finished"]].to_numpy().tolist() == [[3, 1], [0, 0]]
    assert partly["missing"].to_list() == ["opd study smollm2-bf16 --arms opd", ""]


def test_factors_multiply_to_the_whole(five: Path) -> None:
    table = paper.factors(study.runs("pico", root=five), ["rel_norm", "rank_share.1e-05"])
    own = table[table["quantity"] == "rel_norm"].set_index("change")["value"]
    assert own["data and loss"] == pytest.approx(END["offline"] / END["opd"])
    assert own["rate and length"] == pytest.approx(END["offline-long"] / END["offline"])
    assert own["all of it"] == pytest.approx(own["data and loss"] * own["rate and length"])
    assert own["paper"] == pytest.approx(0.11936 / 0.00047)
    part = paper.part_of_rate(table)
    assert part["rel_norm"] == pytest.approx(math.log(10) / math.log(8))
    assert math.isnan(part["rank_share.1e-05"])
    assert shown.factors(table).loc["relative norm", "data and loss"].startswith("0.8 ")
    assert shown.factors(table).loc["relative norm", "in the paper's"] == "42%"


def test_rate_and_samples_each_at_both_values_of_the_other(tmp_path: Path) -> None:
    ends = {"opd": 0.010, "offline": 0.008, "adamw-1e-4": 0.050, "offline-1e-4": 0.060}
    table = paper.factors(
        study.runs("smollm2", root=write_runs(tmp_path, 3, ends, "smollm2")), ["rel_norm"], paper.CROSSED
    )
    found = table.set_index("change").drop("paper")
    assert found["value"].to_list() == pytest.approx([0.8, 1.2, 5.0, 7.5])
    assert (found["seeds"] == 3).all()
    text = shown.factors(table).loc["relative norm"]
    assert [*text.index] == [*paper.CROSSED, "paper"]


def test_the_papers_rows_are_the_papers() -> None:
    table = paper.rows(["rel_norm", "sparsity.1e-05", "svd_energy.16", "effective_rank"]).set_index("pair")
    assert list(table.columns) == ["regime", "rel_norm", "sparsity.1e-05", "svd_energy.16"]
    assert table.loc["Qwen-Math Distill", "rel_norm"] == pytest.approx(0.11936)
    assert table.loc["DS-Qwen OPD", "sparsity.1e-05"] == pytest.approx(0.8258)
    assert table.loc["DS-Qwen OPD", "svd_energy.16"] == pytest.approx(0.2692)


def test_what_is_left_after_holm_is_marked(five: Path) -> None:
    table = study.differences(study.runs("pico", root=five), ["opd-ce", "offline"], ["rel_norm", "stable_rank"])
    found = shown.compared(table)
    assert found.columns.name == "number (seeds), 4 tests"
    assert found.loc["relative norm", "opd-ce (5)"].startswith("different*: ")


@pytest.mark.parametrize("seeds", [0, 1])
def test_without_runs_or_with_one_seed_nothing_is_claimed(seeds: int, tmp_path: Path) -> None:
    write_runs(tmp_path, seeds)
    table, others = study.runs("pico", root=tmp_path), ["opd-ce", "offline-rkl", "offline"]
    end = study.differences(table, others, arms.DRAWN)
    tables = [
        shown.means(table, arms.DRAWN, others),
        shown.compared(end),
        shown.margins(margin.against_opd(table, others, arms.DRAWN)),
        shown.factors(paper.factors(table, arms.DRAWN)),
    ]
    assert not any("nan" in str(cell).split() for text in tables for cell in text.to_numpy().ravel())
    assert not end["verdict"].isin([OTHER]).any()


def arms_of(numbers: dict[str, list[float]], key: str = "stable_rank") -> pd.DataFrame:
    rows = [{"arm": arm, "seed": s, key: value} for arm, values in numbers.items() for s, value in enumerate(values)]
    return pd.DataFrame(rows)


def test_a_fixed_margin_with_pooled_variance() -> None:
    """The paper's stable ranks are 82.74 and 9.97, so that 5% of their contrast is a factor of 1.11."""
    table = arms_of(
        {"opd": [10.0, 20.0, 40.0], "offline": [10.1, 20.0, 39.6], "sft": [30.0, 60.0, 121.0], "rlvr": [10.0]}
    )
    found = margin.against_opd(table, ["offline", "sft", "rlvr"], ["stable_rank"]).set_index("arm")
    assert found["margin"].tolist() == pytest.approx([(82.74 / 9.97) ** 0.05] * 3)
    assert found["paired"].all()
    assert found["freedom"].tolist() == pytest.approx([16 / 5] * 3), "two arms of three seeds share the seeds of OPD"
    logs = [math.log(1.01), 0.0, math.log(0.99)]
    thrice = [math.log(3), math.log(3), math.log(121 / 40)]
    square = (sum((x - sum(logs) / 3) ** 2 for x in logs) + sum((x - sum(thrice) / 3) ** 2 for x in thrice)) / 4
    half = t.ppf(0.975, 16 / 5) * math.sqrt(square / 3)
    assert math.log(found.loc["offline", "high"]) == pytest.approx(sum(logs) / 3 + half)
    assert found["verdict"].tolist() == [WITHIN, OTHER, WITHIN], "one seed has the pooled interval"
    assert found.loc["sft", "holm"] == pytest.approx(3 * found.loc["sft", "p"])
    shown_ = shown.margins(found.reset_index())
    assert shown_.loc["stable rank", "degrees of freedom"] == "3.2, paired"
    assert shown_.loc["stable rank", "sft (3)"].startswith("different: 3.0")
    assert shown_.loc["stable rank", "rlvr (1)"].startswith("1 ("), "no verdict of one seed"


def test_shares_take_odds_and_arms_without_a_seed_in_common_are_not_paired() -> None:
    table = arms_of({"opd": [0.50, 0.52, 0.48], "offline": [0.91, 0.89, 0.90]}, "exact_zero")
    found = margin.against_opd(table, ["offline"], ["exact_zero"]).iloc[0]
    assert found["paired"]
    assert found["freedom"] == 2
    assert found["factor"] == pytest.approx(9.0, rel=0.02)
    assert found["verdict"] == OTHER
    table.loc[table["arm"] == "offline", "seed"] += 3
    apart = margin.against_opd(table, ["offline"], ["exact_zero"]).iloc[0]
    assert not apart["paired"]
    assert apart["freedom"] == 4
    assert apart["factor"] == pytest.approx(9.0, rel=0.02)
    unknown = margin.against_opd(arms_of({"opd": [1.0], "offline": [2.0]}), ["offline"], ["stable_rank"]).iloc[0]
    assert unknown["verdict"] == UNDECIDED, "nothing says how large chance is"
    assert math.isnan(unknown["low"])


def test_a_share_that_is_whole_everywhere_has_no_odds() -> None:
    table = arms_of({"opd": [1.0, 1.0], "offline": [1.0, 1.0]}, "rank_share.1e-05")
    found = margin.against_opd(table, ["offline"], ["rank_share.1e-05"]).iloc[0]
    assert math.isnan(found["factor"])
    assert math.isnan(found["margin"])
    assert found["verdict"] == UNDECIDED


@pytest.mark.parametrize("alike", [0.0, 0.9])
def test_the_pooled_interval_holds_what_is_true_as_often_as_it_says(alike: float) -> None:
    """Arms that do not differ: 19 of 20 intervals hold 1, whatever seeds have in common."""
    rng, held = np.random.default_rng(5), []
    arms_ = ("opd", *(f"a{number}" for number in range(8)))
    for _ in range(150):
        seeds = rng.normal(size=3)
        runs = {arm: np.exp(0.1 * (alike * seeds + math.sqrt(1 - alike**2) * rng.normal(size=3))) for arm in arms_}
        found = margin.against_opd(arms_of({arm: [*own] for arm, own in runs.items()}), arms_[1:], ["stable_rank"])
        held += [*((found["low"] <= 1) & (found["high"] >= 1))]
    assert 0.93 < np.mean(held) < 0.975, "of 1,200, with what arms of one table have in common"


def test_how_often_the_rules_are_right() -> None:
    """Where two arms share all of their chance, the rule of the range calls a difference none as often as the range of
    so many normal numbers exceeds it, which is the more often the more there are; a fixed margin never does."""
    table = margin.operating(4000, correlations=[1 - 1e-9]).set_index(["rule", "seeds", "shift"])
    for seeds in margin.SEEDS:
        for shift in margin.SHIFTS[1:]:
            wanted = studentized_range.sf(shift, seeds, 1e6)
            assert table.loc[("range of OPD", seeds, shift), SAME] == pytest.approx(wanted, abs=0.03)
    fixed = table.loc["fixed margin, 1 SD"]
    assert (fixed.xs(2.0, level="shift")[OTHER] == 1).all()
    assert table[[SAME, OTHER, UNDECIDED]].sum(axis=1).tolist() == pytest.approx([1.0] * len(table))


def test_with_less_in_common_the_rules_decide_less() -> None:
    table = margin.operating(2000).set_index(["rule", "correlation", "seeds", "shift"])[SAME]
    assert table.loc[("range of OPD", 0.85, 10, 2.0)] > 0.7 > 0.65 > table.loc[("range of OPD", 0.0, 10, 2.0)]
    assert table.loc[("range of OPD", 0.85, 5, 2.0)] < 0.45
