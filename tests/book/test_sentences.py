"""The sentences of the front page and of the essay are true of their numbers, written and unwritten."""

import ast
from pathlib import Path

import nbformat
import pandas as pd
import pytest
import torch

from opdlib import claims
from opdlib.claims import verdict
from opdlib.registry.recipes import load_recipe
from opdlib.registry.study import FULL, find_scale
from opdlib.results.study import PART, REST, SHORT
from opdlib.tables import open_results, paper, paper_nulls, study, surgery

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"


def glued(page: str) -> dict[str, object]:
    """What the committed page stores for others: name -> number or word."""
    found = {}
    for cell in nbformat.read(NOTEBOOKS / f"{page}.ipynb", as_version=4).cells:
        for output in cell.get("outputs", []):
            text = output.data.get("application/papermill.record/text/plain")
            if text is not None:
                found[output.metadata["scrapbook"]["name"]] = ast.literal_eval(text)
    return found


def test_most_weights_move_and_rounding_gives_the_share_that_does_not() -> None:
    share = glued("01_sparsity")
    assert share["exact_zero"] > 0.5 > 0.01 > share["exact_zero_stored"]
    assert open_results("smollm2-opd").verdict("visibility", "changed") == "explained"


def test_nothing_is_avoided() -> None:
    found = glued("05_subspace")
    assert found["joint_projection"] >= found["joint_expected"]
    assert open_results("smollm2-opd").verdict("visibility", "coverage.low.0.1") == "explained"


def test_the_spectrum_is_special_and_rounding_dilutes_it() -> None:
    found = glued("04_rank")
    assert found["top16_energy_stored"] > found["top16_energy"] > found["top16_energy_null"]
    assert open_results("smollm2-opd").verdict("visibility", "svd_energy.16") == "above"


def test_the_rate_moves_more_than_who_samples() -> None:
    found = glued("07_matched")
    by_rate = found["opd_exact_zero"] - found["fast_exact_zero"]
    assert by_rate > 5 * abs(found["opd_exact_zero"] - found["offline_exact_zero"])
    assert abs(found["fast_exact_zero"] - found["fast_offline_exact_zero"]) < 0.02
    assert 1 > found["seeds_cosine"] > found["offline_cosine"] > 0.9 * found["seeds_cosine"]


def test_rounding_costs_the_slow_run_and_not_the_fast_one() -> None:
    solved = glued("09_surgery")
    assert solved["solved_in_float32"] - solved["solved_in_bf16"] > 0.1
    assert abs(solved["faster_in_float32"] - solved["faster_in_bf16"]) < 0.01


def test_a_subnetwork_and_the_best_rates() -> None:
    mask, rates = glued("06_subnetwork"), glued("03_optimizers")
    assert mask["own_kept"] > mask["random_kept"]
    assert rates["adamw_best"] > rates["sgd_best"]


@pytest.mark.slow
def test_what_survives_and_what_does_not() -> None:
    """The second paragraph of the front page, by clause."""
    records = pd.DataFrame(claims.records())
    under = (
        records.groupby(["clause", "control"], as_index=False)
        .size()
        .pivot_table("size", "clause", "control", fill_value=0)
    )
    against = under[verdict.EXPLAINED] + under[verdict.OPPOSITE]
    gone, stand, open_ = ["A3", "A10", "A11", "A12"], ["A9"], ["A7"]
    assert (against[gone] > 0).all()
    assert (under[verdict.SURVIVES][gone] == 0).all()
    assert against["A5"] > under[verdict.SURVIVES]["A5"], (
        "of three, but for the embedding, which has less than its size"
    )
    assert (under[verdict.SURVIVES][stand] > against[stand]).all()
    assert (under[verdict.SURVIVES][open_] + against[open_] == 0).all()


def test_ten_times_the_rate_and_nothing_else() -> None:
    fast, full = (load_recipe(find_scale("smollm2").arms[arm].recipe) for arm in ("adamw-1e-4", FULL))
    assert fast.learning_rate == pytest.approx(10 * full.learning_rate)


def test_seeds_and_sizes_that_are_written_out() -> None:
    """Three seeds an arm in the larger model, five in the one of 0.8 million weights."""
    assert {len(study.runs("smollm2", [arm])) for arm in (FULL, "adamw-1e-4", "offline")} == {3}
    parts = surgery.parts("smollm2").query("arm == @FULL").groupby(["part", "kind"])["seed"].nunique()
    said = [("scale:1", PART), ("visible", PART), ("visible", REST)]
    assert {*parts[[*said, *(("singular:16", kind) for kind in (PART, REST, SHORT))]]} == {3}
    small = study.runs("pico-bf16", [FULL, "mask-own", "mask-random", "adamw-3e-4", "sgd-3e-2"])
    assert set(small["arm"].value_counts()) == {5}
    assert round(small["parameters"].iloc[0] / 1e6, 1) == 0.8


def test_the_weight_of_the_essay() -> None:
    large, small, added = (torch.tensor(x, dtype=torch.float64) for x in (0.1, 0.001, 0.00002))
    for weight, step, moved in ((large, 0.00049, 0), (small, 0.0000076, 3)):
        before = weight.bfloat16()
        after = (before.double() + added).bfloat16()
        assert (before.view(torch.int16) + 1).view(torch.bfloat16).double() - before.double() == pytest.approx(
            step, rel=0.01
        )
        assert int(after.view(torch.int16) - before.view(torch.int16)) == moved


def test_the_essay_on_the_papers_rows() -> None:
    results = open_results("smollm2-opd")
    low, high = paper.span("exact_zero")
    assert low < results.numbers["exact_zero"] < high
    smallest = results.numbers["coverage.low.0.1"]
    assert results.numbers["nulls.visibility.coverage.low.0.1"] == pytest.approx(smallest, rel=0.01)
    least, most = paper.span("coverage.low.0.1")
    assert 0.2 < least < 0.25 < 0.45 < most < 0.5
    assert (paper_nulls.coverage()["ratio_low"] > 1).all(), "null over printed"


@pytest.mark.parametrize("page", ["01_sparsity", "04_rank", "05_subspace", "06_subnetwork", "07_matched"])
def test_no_number_of_the_front_page_is_missing(page: str) -> None:
    assert "undefined" not in glued(page).values()
