"""Tables of the optimizer ablation: known answers, and no answer where there are no runs."""

import math

import numpy as np
import pandas as pd
import pytest

from opdlib.tables import study
from opdlib.tables.optimizers import compared, state, sweep, written
from tests.tables.optimizer_page import Page, page

GAPS = ["accuracy", "exact_zero"]


@pytest.fixture(scope="module")
def five(tmp_path_factory: pytest.TempPathFactory) -> Page:
    return page(tmp_path_factory.mktemp("five"), 5, "adam-zero")


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Page:
    return page(tmp_path_factory.mktemp("single"), 1)


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Page:
    return Page(tmp_path_factory.mktemp("empty"))


def test_the_sweep_has_every_arm_that_differs_in_its_optimizer_alone(five: Page) -> None:
    assert list(five.arms["arm"])[:4] == ["adamw-3e-6", "opd", "adamw-3e-5", "adamw-1e-4"]
    assert five.arms["arm"].iloc[-1] == "adam-zero"
    assert {"rlvr", "offline", "mask-own"}.isdisjoint(five.arms["arm"])
    assert len(five.arms) == five.arms["arm"].nunique() >= 16
    assert (five.run("opd")["finished"], five.run("sgd-3e-3")["finished"]) == (5, 0)
    assert five.run("opd")["clipped"] == 1
    assert five.run("adam-zero")["clipped"] == 0
    assert math.isnan(five.run("sgd-3e-3")["clipped"])
    assert "adam-zero" not in set(five.runs["arm"])


def test_learning_has_mean_and_range_over_seeds(five: Page) -> None:
    table = sweep.learning(five.curves, "accuracy")
    own = table[table["arm"] == "opd"].set_index("step")
    assert list(own.index) == [10, 20]
    assert own.loc[20, ["seeds", "value", "low", "high"]].tolist() == pytest.approx([5, 0.452, 0.45, 0.454])
    assert set(sweep.learning(five.curves, "momentum_cosine")["step"]) == {1, 10, 20}


def test_states_are_summed_up_run_by_run(five: Page) -> None:
    own = five.states.query("arm == 'opd' and state == 'momentum_cosine'").set_index("quantity")
    assert own["value"].tolist() == pytest.approx([1.0, 0.6, 0.2, 0.2])
    assert own["low"].tolist() == pytest.approx([1.0, 0.6, 0.2, 0.2])
    assert "sgd-1e-2" not in set(five.states["arm"])


@pytest.mark.parametrize("step", [1, 2, 30])
def test_the_cosine_of_unrelated_gradients_is_that_of_orthogonal_ones(step: int) -> None:
    momentum = np.zeros(step)
    for gradient in np.eye(step):
        momentum = 0.9 * momentum + 0.1 * gradient
    cosine = momentum[-1] / np.linalg.norm(momentum)
    assert state.unrelated_cosine(step) == pytest.approx(cosine)


def test_averaging_alone_makes_the_second_moment_even() -> None:
    random = np.random.default_rng(0)
    spread = random.lognormal(size=1000)
    gradients = spread * random.normal(size=(1000, 1000))
    first = np.abs(gradients[0])
    last = np.sqrt((gradients**2).mean(axis=0))
    assert state.settled_cv(first.std() / first.mean()) == pytest.approx(last.std() / last.mean(), rel=0.15)
    assert math.isnan(state.settled_cv(0.1))


def test_the_ends_of_the_state_stand_beside_their_nulls(five: Page, empty: Page) -> None:
    table = state.nulls({"pico": five.states, "none": empty.states}).set_index(["state", "run"])
    assert table.loc[("momentum_cosine", "pico")].tolist() == pytest.approx([1.0, 0.2, 0.436], abs=1e-3)
    assert table.loc[("second_moment_cv", "paper")].tolist() == pytest.approx([6.49, 3.83, 5.14], abs=1e-2)
    assert table.loc[("second_moment_cv", "pico")].tolist() == pytest.approx([4.0, 2.0, 3.13], abs=1e-2)
    nothing = state.nulls({"none": empty.states})
    assert set(nothing["run"]) == {"paper"}
    assert written.nulls(nothing).iloc[0].tolist() == ["paper", "0.958", "0.008", "0.436"]


def test_paired_tests(five: Page) -> None:
    tests = compared.paired(five.runs).set_index("arm")
    assert "opd" not in tests.index
    assert tests.loc["sgd-3e-2", "difference"] == pytest.approx(0.15)
    assert tests.loc["sgd-3e-2", "verdict"] == study.OTHER
    assert tests.loc["rmsprop-1e-5", "verdict"] == study.SAME
    # Differences 0.25 - 0.002 seed: mean 0.246, standard error sqrt(2)/1000, four degrees of freedom.
    assert tests.loc["adamw-1e-4", "p"] == pytest.approx(6.55e-9, rel=1e-2)
    assert tests.loc["adamw-1e-4", "holm"] == tests.loc["adamw-1e-4", "p"], "the largest p of a table stays"
    shown = written.accuracies(five.runs, tests.reset_index(), five.arms)
    assert shown.loc["SGD 0.03", "minus opd"] == "+15.0 (+15.0 to +15.0)"
    assert shown.loc["AdamW 1e-5 (opd)", "minus opd"] == "-"


def test_the_grid_of_rates(five: Page) -> None:
    grid = compared.grid(five.runs)
    assert len(grid) == 12
    own = grid.set_index(["first", "second"])
    assert own.loc[("opd", "sgd-1e-2"), "difference"] == pytest.approx(-0.05)
    # opd and adamw-3e-6 against 0.5, 0.6 and 0.4: behind, behind, and ahead or the same.
    assert ((grid["verdict"] == study.OTHER) & (grid["difference"] > 0)).sum() == 6
    assert grid["verdict"].value_counts().to_dict() == {study.OTHER: 11, study.SAME: 1}
    assert written.grid(grid, five.arms).loc["AdamW 1e-5 (opd)", "minus SGD 0.01"] == "-5.0 (-5.0 to -5.0)"


def test_each_at_its_best_rate(five: Page) -> None:
    chosen = compared.best(five.runs, five.arms).set_index("optimizer")
    assert chosen["arm"].tolist() == ["adamw-1e-4", "rmsprop-3e-5", "sgd-3e-2", "sgdm-1e-2"]
    assert chosen["edge"].tolist() == ["high", "high", "", "high"]
    assert chosen["rates"].tolist() == [4, 2, 3, 2]
    assert (chosen["swept"] >= chosen["rates"]).all()
    assert chosen.loc["sgd", "unseen"] == pytest.approx(0.602)


def test_a_rate_chosen_on_the_other_seeds_is_scored_on_its_own() -> None:
    scores = {0.1: [0.9, 0.1, 0.1], 0.2: [0.2, 0.3, 0.4]}
    rows = [
        {"arm": f"sgd-{rate}", "optimizer": "sgd", "learning_rate": rate, "seed": seed, "accuracy": accuracy}
        for rate, values in scores.items()
        for seed, accuracy in enumerate(values)
    ]
    arms = pd.DataFrame({"optimizer": ["sgd", "sgd"], "gradient": "true"})
    chosen = compared.best(pd.DataFrame(rows), arms)
    assert chosen["accuracy"].iloc[0] == pytest.approx(1.1 / 3)
    assert chosen["unseen"].iloc[0] == pytest.approx((0.2 + 0.1 + 0.1) / 3)


def test_best_against_best(five: Page) -> None:
    pairs = compared.best_pairs(five.runs, five.arms).set_index(["first", "second"])
    assert pairs.loc[("adamw", "sgd"), "verdict"] == study.OTHER
    matched = pairs.loc[("adamw", "rmsprop")]
    assert (matched["arm"], matched["other"]) == ("adamw-3e-5", "rmsprop-3e-5"), "over the rates that both have"
    shown = written.pairs(pairs.reset_index(), five.arms)
    told = ["SGD 0.03", "both, against neither", "all rates", "5", "+9.6 (+9.2 to +10.0)", "different"]
    assert shown.iloc[0].tolist() == told
    assert shown["best of"].tolist() == ["all rates"] * 3 + ["rates that match"] * 2


def test_nobody_is_ahead_of_an_optimizer_whose_sweep_ends_too_early(five: Page) -> None:
    runs = five.runs[five.runs["arm"] != "sgd-1e-1"]
    pairs = compared.best_pairs(runs, five.arms).set_index(["first", "second"])
    assert pairs.loc[("adamw", "sgd"), "low"] > 0
    assert pairs.loc[("adamw", "sgd"), "verdict"] == study.UNDECIDED


def test_momentum_on_and_off_at_matching_rates(five: Page) -> None:
    table = compared.momentum(five.runs).set_index("with")
    assert dict(table["without"]) == {
        "opd": "rmsprop-1e-5",
        "adamw-3e-5": "rmsprop-3e-5",
        "sgdm-1e-3": "sgd-1e-2",
        "sgdm-1e-2": "sgd-1e-1",
    }
    assert table["difference"].tolist() == pytest.approx([0.0, -0.01, 0.0, 0.25])


def test_beside_adamw_at_the_same_norm(five: Page) -> None:
    gaps = compared.beside_adamw(five.paths, GAPS).set_index(["arm", "quantity"])
    # At 0.0075 the nearest steps of AdamW are those of opd at 0.005 and at 0.01.
    share = math.log(1.5) / math.log(2)
    adamw = (1 - share) * 0.35 + share * 0.45
    assert gaps.loc[("sgd-1e-2", "accuracy"), "value"] == pytest.approx(0.50 - adamw, abs=2e-3)
    assert gaps.loc[("rmsprop-1e-5", "exact_zero"), "value"] == pytest.approx(0, abs=1e-9)
    assert gaps.loc[("sgdm-1e-3", "exact_zero"), "value"] == pytest.approx(0.3)
    assert (gaps["seeds"] == 5).all()
    assert written.gaps(gaps.reset_index(), five.arms).loc["SGD, momentum 0.001", "unchanged"][:5] == "+30.0"


def test_deltas(five: Page) -> None:
    table = sweep.wide(five.runs, ["rel_norm", "exact_zero", "nobody.measured"])
    own = table[table["arm"] == "opd"].set_index("quantity")
    assert own.loc["exact_zero", "value"] == pytest.approx(0.5)
    assert own.loc["nobody.measured", "seeds"] == 0


@pytest.mark.slow
def test_one_seed_decides_nothing(single: Page) -> None:
    assert set(compared.paired(single.runs)["verdict"]) == {study.UNDECIDED}
    assert set(compared.best_pairs(single.runs, single.arms)["verdict"]) == {study.UNDECIDED}
    assert compared.best(single.runs, single.arms)["unseen"].isna().all()
    shown = written.accuracies(single.runs, compared.paired(single.runs), single.arms)
    assert set(written.pairs(compared.best_pairs(single.runs, single.arms), single.arms)["verdict"]) == {"-"}
    assert shown.loc["SGD 0.01"].tolist() == ["1", "50.00%", "+5.0", "-", "-"]


def test_an_empty_study_says_so(empty: Page) -> None:
    nothing = "no runs yet"
    tests = compared.paired(empty.runs)
    gaps = compared.beside_adamw(empty.paths, GAPS)
    for table in (
        written.accuracies(empty.runs, tests, empty.arms),
        written.grid(compared.grid(empty.runs), empty.arms),
        written.gaps(gaps, empty.arms),
        written.pairs(compared.best_pairs(empty.runs, empty.arms), empty.arms),
    ):
        assert table.to_numpy().tolist() == [[nothing]]
        assert study.below({"a": table, "b": table}).equals(table)
    assert compared.best(empty.runs, empty.arms).empty
    assert compared.momentum(empty.runs).empty
    assert sweep.learning(empty.curves, "accuracy").empty


def test_points_have_no_negative_zero() -> None:
    assert written.difference(-0.0001, -0.002, 0.001) == "+0.0 (-0.2 to +0.1)"
    assert written.difference(math.nan, math.nan, math.nan) == "-"


def test_an_interval_ends_where_a_share_does(single: Page) -> None:
    runs = pd.concat([single.runs.assign(accuracy=score, seed=seed) for seed, score in enumerate((0.1, 0.9))])
    shown = written.accuracies(runs, compared.paired(runs), single.arms)
    assert shown.loc["SGD 0.01", "accuracy"] == "50.00% (0.00% to 100.00%)"


def test_two_scales_stand_below_each_other(five: Page, single: Page, empty: Page) -> None:
    tables = {
        name: written.accuracies(page.runs, compared.paired(page.runs), page.arms)
        for name, page in {"large": single, "none": empty, "small": five}.items()
    }
    shown = study.below(tables)
    assert list(shown.columns)[:2] == ["model", "seeds"]
    assert shown.columns.name == "arm"
    assert shown.loc["AdamW 1e-5 (opd)", "model"].tolist() == ["large", "small"]
    assert len(shown) == len(tables["large"]) + len(tables["small"])
