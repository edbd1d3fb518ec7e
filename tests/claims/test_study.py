"""Claims about arms, and what their numbers are set beside, on runs with known numbers."""

import math
from pathlib import Path

import pandas as pd
import pytest

from opdlib.claims import of_study, verdict
from opdlib.claims.controls import Beside, control, margin
from opdlib.claims.ours import Measured
from opdlib.registry.claims import Range, clauses, load
from opdlib.tables import paper_nulls
from tests.tables.optimizer_runs import ACCURACY
from tests.tables.optimizer_runs import write_runs as write_optimizers
from tests.tables.study_rows import run, write_study
from tests.tables.subnetwork_runs import LOST, write_overlaps
from tests.tables.subnetwork_runs import write_runs as write_masked

CLAIMS = {claim.id: claim for claim in load()}


@pytest.fixture(scope="module")
def optimizers(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    root = tmp_path_factory.mktemp("optimizers")
    write_optimizers(root, ACCURACY, 5)
    return of_study("optimizers", "pico", root).set_index("id")


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    root = tmp_path_factory.mktemp("masked")
    write_masked(root, LOST, 5)
    write_overlaps(root)
    return of_study("subnetwork", "pico", root).set_index("id")


def test_optimizers_at_one_rate_and_at_their_best(optimizers: pd.DataFrame) -> None:
    """opd has 0.45, SGD at its best 0.60, AdamW at its best 0.70 less two thousandths of the seed."""
    assert optimizers.loc["O1", "ours"] == pytest.approx(-0.15)
    assert optimizers.loc["O1", "verdict"] == "not reproduced"
    assert optimizers.loc["O2", "ours"] == pytest.approx(0.10 - 0.004)
    assert optimizers.loc["O2", "verdict"] == "reproduced"


def test_a_best_rate_at_the_edge_and_a_single_rate_decide_nothing(tmp_path: Path) -> None:
    write_optimizers(tmp_path / "edge", ["opd", "adamw-3e-5", "sgd-1e-2", "sgd-3e-2"], 2)
    table = of_study("optimizers", "pico", tmp_path / "edge").set_index("id")
    assert table.loc["O2", "reason"] == "the best rate of adamw at pico is the outermost that was tried"
    write_optimizers(tmp_path / "single", ["opd", "sgd-1e-2", "sgd-3e-2"], 2)
    table = of_study("optimizers", "pico", tmp_path / "single").set_index("id")
    assert table.loc["O2", ["verdict", "reason"]].tolist() == ["not tested", "a single rate of adamw at pico"]
    assert table.loc["O1", "seeds"] == 2


def test_sgd_at_equal_norm(optimizers: pd.DataFrame) -> None:
    """SGD leaves 0.3 more unchanged at any norm, and ends where AdamW is as good as it is: at half of the way of 3e-5
    or later; opd itself never came so far."""
    assert optimizers.loc["O3", "ours"] == pytest.approx(0.5 - (1 / 2.5 + 0.3))
    assert optimizers.loc["O3", ["verdict", "control"]].tolist() == ["reproduced", "survives"]
    here, there = 1 / (1 + 100 * 0.015), 1 / (1 + 100 * 0.015) + 0.3
    exact = math.log(here / (1 - here)) - math.log(there / (1 - there))
    assert optimizers.loc["O3", "control_value"] == pytest.approx(exact, abs=0.05)


def test_states_and_their_nulls(optimizers: pd.DataFrame) -> None:
    assert optimizers.loc[["O4", "O5", "O6"], "ours"].tolist() == pytest.approx([1.0, 0.6, 0.2])
    assert optimizers.loc["O6", "control_value"] == pytest.approx(math.sqrt(0.19) / 0.2)
    assert optimizers.loc["O6", "control"] == "survives", "below what unrelated gradients give"
    settled = math.sqrt(2 / math.pi * 17 - 1)
    assert optimizers.loc["O9", "control_value"] == pytest.approx(settled / 2)
    assert optimizers.loc["O9", "control"] == "opposite", "averaging alone would leave more"
    assert optimizers.loc["O11", ["ours", "verdict", "control"]].tolist() == [-2.0, "reproduced", "survives"]


def test_masks(masked: pd.DataFrame) -> None:
    """The own mask loses 0.01 of 0.10 that a random mask loses, and one of like magnitudes as much as that."""
    assert masked.loc["M1", "ours"] == pytest.approx(-0.01, abs=2e-3)
    assert masked.loc["M2", "ours"] == pytest.approx(0.1, abs=0.02)
    assert masked.loc[["M1", "M2", "M3", "M4"], "verdict"].tolist() == ["reproduced"] * 4
    assert masked.loc[["M1", "M3", "M4"], "control"].tolist() == ["survives"] * 3


def test_overlaps_have_a_range_over_pairs(masked: pd.DataFrame) -> None:
    """Of other seeds RLVR shares 0.10 where chance expects 0.0625, and 0.02 more within magnitudes."""
    assert masked.loc["M5", ["ours", "seeds"]].tolist() == [pytest.approx(1.6), 1]
    assert masked.loc["M5", "verdict"] == "not reproduced"
    assert masked.loc["M5", "control_value"] == pytest.approx(0.825)
    assert masked.loc["M5", "control"] == "survives"
    assert masked.loc["M6", ["verdict", "control"]].tolist() == ["not tested", "none"]


def test_one_seed_decides_nothing(tmp_path: Path) -> None:
    write_masked(tmp_path, LOST, 1)
    table = of_study("subnetwork", "pico", tmp_path).set_index("id")
    assert table.loc[["M1", "M3"], "verdict"].tolist() == ["direction", "direction"]
    assert table.loc[["M1", "M3"], "control"].tolist() == ["undecided"] * 2
    assert math.isnan(table.loc["M1", "low_ours"])


@pytest.mark.parametrize("scale", ["pico-bf16", "smollm2-bf16"])
def test_without_runs_nothing_is_tested(tmp_path: Path, scale: str) -> None:
    for finding in ("optimizers", "subnetwork", "matched"):
        table = of_study(finding, scale, tmp_path)
        assert set(table["verdict"]) == {"not tested"}
        assert set(table["control"]) == {"none"}
        assert all(table["reason"])


def test_the_contrast_of_matched_arms(tmp_path: Path) -> None:
    """OPD leaves 0.8 unchanged, offline distillation 0.79, and the long one 0.1; half way, at half the norm, the two
    first differ by as little."""
    unchanged = {"opd": 0.8, "offline": 0.79, "offline-long": 0.1}
    runs = []
    for arm, share in unchanged.items():
        for seed in range(3):
            own = share + seed / 1e4
            ends = {("bf16", step): {"rel_norm": step / 1e4, "exact_zero": own, "layers": []} for step in (10, 20)}
            runs.append(run(arm, seed, 0.5, 0.3, ends))
    table = of_study("matched", "pico", write_study(tmp_path, runs)).set_index("id")
    assert table.loc["C1", ["ours", "verdict"]].tolist() == [pytest.approx(0.7), "reproduced"]
    assert table.loc["C2", ["ours", "verdict"]].tolist() == [pytest.approx(0.01), "reproduced"]
    logit = math.log(0.8 / 0.2) - math.log(0.79 / 0.21)
    assert table.loc["C1", "control_value"] == pytest.approx(logit, rel=1e-2)
    assert table.loc[["C1", "C2"], "control"].tolist() == ["explained"] * 2
    assert table.loc["C7", "ours"] == 1
    assert margin(CLAIMS["C1"]).high == pytest.approx(0.05 * (math.log(0.8202 / 0.1798) - math.log(0.0306 / 0.9694)))


def explained(seed: int, ratio: float, word: str, low: float = math.nan, high: float = math.nan) -> Measured:
    record = {"ratio": ratio, "interval": [low, high], "verdict": word}
    return Measured(seed, {"explained": {"visibility": {"coverage.low.0.1": record}}})


@pytest.mark.parametrize(
    ("ratios", "wanted"),
    [
        ([0.99, 1.0, 1.01], "explained"),
        ([0.8, 0.81, 0.82], "survives"),
        ([1.2, 1.21, 1.22], "opposite"),
        ([0.8, 1.0, 1.2], "undecided"),
        ([], "none"),
    ],
)
def test_nulls_over_seeds(ratios: list[float], wanted: str) -> None:
    """Null over observed: low, where the observed number is above the null; claim U8 says that it is above."""
    runs = [explained(seed, ratio, "undecided") for seed, ratio in enumerate(ratios)]
    assert control(CLAIMS["U8"], Beside(runs)).verdict == wanted


@pytest.mark.parametrize(
    ("word", "wanted"),
    [("explained", "explained"), ("above", "survives"), ("below", "opposite"), ("undecided", "undecided")],
)
def test_the_null_of_a_single_run_has_its_own_verdict(word: str, wanted: str) -> None:
    found = control(CLAIMS["U8"], Beside([explained(0, 0.9, word)]))
    assert (found.verdict, found.value) == (wanted, 0.9)


def test_the_papers_rows_have_their_null() -> None:
    """The smallest tenth gets fewer of the changes than rounding alone would give it, in the mean of the six rows."""
    found = control(CLAIMS["P2"], Beside([]))
    rows = paper_nulls.coverage().query("regime in ('OPD', 'OPSD')")["ratio_low"]
    assert len(rows) == 6
    assert found.value == pytest.approx(rows.mean())
    assert found.verdict == "opposite"


def test_sides() -> None:
    same = Range(-0.1, 0.1)
    found = [verdict.side(*ends, same) for ends in ((-0.1, 0.1), (0.2, 0.3), (-0.3, -0.2), (0.0, 0.2))]
    assert found == ["explained", "above", "below", "undecided"]
    assert verdict.side(math.nan, math.nan, same) == "undecided"


def test_a_share_of_the_weights_and_noise() -> None:
    """An MLP of 0.6 of the weights of the layers that holds 0.7 of their energy, and of 0.5 of the model beside 0.25 in
    the next block, as of its energy; noise has the same concentration to 1%."""
    mlp = {"inner_parameter_share": 0.6, "inner_energy_share": 0.7, "parameter_share": 0.5, "energy_share": 0.5}
    attention = {"parameter_share": 0.1, "energy_share": 0.25}
    embedding = {"parameter_share": 0.25, "energy_share": 0.01}
    blocks = {"mlp": mlp, "attention": attention, "embedding": embedding}
    runs = [Measured(seed, {"blocks": blocks, "svd_energy": {"8": 0.3}}) for seed in range(2)]
    found = control(CLAIMS["L2"], Beside(runs))
    assert (found.verdict, found.value) == ("survives", pytest.approx(6 / 7))
    found = control(CLAIMS["L1"], Beside(runs))
    assert (found.verdict, found.value) == ("explained", pytest.approx(1))
    found = control(CLAIMS["L4"], Beside(runs))
    assert (found.verdict, found.value) == ("survives", pytest.approx(25))
    noise = Measured(0, {"svd_energy": {"8": 0.303}})
    assert control(CLAIMS["R2"], Beside(runs, noise=noise)).verdict == "explained"
    assert control(CLAIMS["R2"], Beside(runs)).verdict == "none"


def test_every_clause_has_a_claim_with_a_control() -> None:
    assert {claim.clause for claim in CLAIMS.values() if claim.control} == set(clauses())
