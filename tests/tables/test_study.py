"""Arms compared over seeds, against answers known by construction, and the rule of sameness."""

import math

import pandas as pd
import pytest

from opdlib.errors import RegistryError
from opdlib.registry.pairs import find_pair, registry
from opdlib.registry.study import FULL, study
from opdlib.results.layout import State, state_of, summary_of
from opdlib.tables import open_results
from opdlib.tables.study import (
    OTHER,
    SAME,
    UNDECIDED,
    at_norm,
    differences,
    over_seeds,
    repeats,
    shown,
    text_table,
    verdict,
)
from opdlib.tables.study import along as along_of
from opdlib.tables.study import curves as curves_of
from opdlib.tables.study import runs as runs_of
from opdlib.tables.written import interval
from tests.tables.matched_runs import LOSS, along, runs


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


def test_text_is_of_rows_or_of_columns() -> None:
    by_row = text_table([{"arm": "a", "seeds": 3}, {"arm": "b", "p": "0.1"}], "arm")
    by_column = text_table({"arm": pd.Series(["a", "b"]), "seeds": ["3", None], "p": [math.nan, "0.1"]}, "arm")
    assert by_row.to_dict() == by_column.to_dict() == {"seeds": {"a": "3", "b": "-"}, "p": {"a": "-", "b": "0.1"}}
    nothing = [[["no runs yet"]]] * 2
    assert [text_table(none, "arm").to_numpy().tolist() for none in ([], {"arm": pd.Series([])})] == nothing


def test_a_table_for_the_eye_is_headings_and_forms() -> None:
    table = pd.DataFrame({"arm": ["a", "b"], "seeds": [3, 1], "low": [0.1, math.nan], "high": [0.2, math.nan]})
    found = shown(table, {"run": "arm", "seeds": "seeds", "95% interval": (interval, "low", "high")})
    assert found.loc["a"].to_dict() == {"seeds": "3", "95% interval": "10.0% to 20.0%"}
    assert found.loc["b"].to_dict() == {"seeds": "1", "95% interval": "-"}


# Whatever a pair is called, and whatever there is of it.


@pytest.mark.parametrize("name", [name for pair in registry().values() for name in (pair.key, *pair.aliases)])
def test_every_pair_of_the_registry_opens_or_says_why_not(name: str) -> None:
    opens_or_tells(name)


@pytest.mark.slow
@pytest.mark.parametrize("scale", study())
def test_runs_of_every_scale_have_numbers_and_open_or_say_why_not(scale: str) -> None:
    there = set(runs_of(scale)["arm"])
    assert there == set(study()[scale].arms) if study()[scale].apart else there <= set(study()[scale].arms)
    assert set(along_of(scale)["arm"]) == there
    run = study()[scale].arms[FULL].pairs[0]
    opens_or_tells(run)
    if FULL in there:
        assert summary_of(run)["view"] == "bf16"


def opens_or_tells(name: str) -> None:
    if state_of(find_pair(name)) is State.COMPLETE:
        assert len(open_results(name).tensors)
        return
    with pytest.raises(RegistryError, match=rf"^pair '{find_pair(name).key}': .* run: opd (measure|study) [^\n]*$"):
        open_results(name)


def test_repeats_of_a_run_are_the_seeds_of_its_arm() -> None:
    values = repeats(find_pair("pico-bf16-opd-s2"), "exact_zero")
    assert list(values) == list(runs_of("pico-bf16", ["opd"])["exact_zero"])
    assert len(repeats(find_pair("ds-qwen-opd"), "exact_zero")) == len(repeats(None, "exact_zero")) == 0


def test_the_accuracy_of_weights_that_were_not_rounded_is_that_of_the_last_step() -> None:
    curves = curves_of("smollm2", ["opd"]).set_index(["seed", "step"])["accuracy"]
    table = runs_of("smollm2", ["opd"])
    ends = dict(zip(table["seed"], table["accuracy_unrounded"], strict=True))
    assert len(ends) == 3
    assert all(found == curves[seed, 150] for seed, found in ends.items())
    assert runs_of("smollm2-bf16")["accuracy_unrounded"].isna().all(), "they compute in bf16"
