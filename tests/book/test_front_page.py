"""The sentences of the front page are true of the numbers that stand in them."""

from __future__ import annotations

import ast
from pathlib import Path

import nbformat
import pytest

from opdlib.tables import open_results

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
    by_rate = found["slowest_exact_zero"] - found["fastest_exact_zero"]
    assert by_rate > 5 * abs(found["opd_exact_zero"] - found["offline_exact_zero"])


def test_a_subnetwork_and_the_best_rates() -> None:
    mask, rates = glued("06_subnetwork"), glued("03_optimizers")
    assert mask["own_kept"] > mask["random_kept"]
    assert rates["adamw_best"] > rates["sgd_best"]


@pytest.mark.parametrize("page", ["01_sparsity", "04_rank", "05_subspace", "06_subnetwork", "07_matched"])
def test_no_number_of_the_front_page_is_missing(page: str) -> None:
    assert "undefined" not in glued(page).values()
