"""The 2 x 2 against answers known by construction, and the rule of sameness."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from opdlib.figures import matched as figures
from opdlib.tables import matched, matched_norm, matched_paper
from opdlib.tables.study import OTHER, SAME, UNDECIDED, at_norm, differences, mean_interval, over_seeds, verdict

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


def test_figures_draw_every_run() -> None:
    ax = figures.against_norm(matched_norm.drawn(along(), "stable_rank"))
    assert len(ax.lines) >= 4
    assert ax.get_xlabel()
    empty = differences(runs().head(0).astype({"stable_rank": float}), [], ["stable_rank"])
    columns = ["arm", "quantity", "difference", "low", "high", "range"]
    assert figures.differences(empty.reindex(columns=columns)).get_xlabel()


def test_the_design_is_that_of_the_study() -> None:
    table = matched.design("pico")
    assert list(table["arm"]) == ["opd", "opd-ce", "offline-rkl", "offline"]
