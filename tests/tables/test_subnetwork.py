"""Tables on masked training: known answers, one seed, and no answer where there are no runs."""

import math
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest

from opdlib.tables import stacked, study
from opdlib.tables.subnetwork import compared, masked, overlap, written
from tests.tables.study_rows import write_study
from tests.tables.subnetwork_runs import LOST, SOURCE, write_masks, write_overlaps, write_runs
from tests.tables.subnetwork_runs import overlap as overlap_row


@dataclass
class Page:
    """What the notebook makes, from the tables below a folder."""

    root: Path

    def __post_init__(self) -> None:
        self.runs = masked.runs("pico", self.root)
        self.means = masked.over_seeds(self.runs)
        self.paired = compared.paired(self.runs)
        self.along = masked.along("pico", self.root)
        self.ends = compared.at_its_distance(self.along)
        self.overlaps = overlap.by_comparison(overlap.overlaps("pico", self.root))
        self.highest = overlap.at_highest(self.overlaps)
        self.beside = compared.differences(self.runs)

    def test(self, arm: str, partner: str) -> pd.Series:
        return self.paired.set_index(["arm", "partner"]).loc[(arm, partner)]

    def compared(self, arm: str, seed: str) -> pd.Series:
        return self.highest.set_index(["arm", "seed"]).loc[(arm, seed)]

    def shown(self) -> list[pd.DataFrame]:
        tables = [
            (self.means, written.MASKS),
            (self.paired, written.COMPARED),
            (stacked(self.highest, overlap.published()), written.OVERLAPS),
        ]
        return [*(study.shown(table, columns) for table, columns in tables), written.distances(self.means, self.ends)]


@pytest.fixture(scope="module")
def five(tmp_path_factory: pytest.TempPathFactory) -> Page:
    root = tmp_path_factory.mktemp("five")
    write_runs(root, LOST, 5)
    write_masks(root, 5)
    write_overlaps(root)
    return Page(root)


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Page:
    root = tmp_path_factory.mktemp("single")
    write_runs(root, ("opd", "mask-own", "mask-magnitude"), 1, without_curve="mask-magnitude")
    return Page(root)


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Page:
    return Page(tmp_path_factory.mktemp("empty"))


# Runs and masks.


def test_runs_have_their_masks_and_their_distance(five: Page) -> None:
    row = five.runs.set_index(["arm", "seed"]).loc[("mask-rlvr", 1)]
    assert (row["density"], row["in_own"], row["own_energy"]) == (0.2, 0.6, 0.5)
    assert (row["distance"], row["changed"], row["moved_outside"]) == (0.3, 0.9, 0)
    full = five.runs.set_index(["arm", "seed"]).loc[("opd", 2)]
    assert (full["density"], full["own_energy"]) == (1.0, 1.0)
    assert full["gain"] == pytest.approx(0.52 - SOURCE)
    assert math.isnan(full["in_own"])


def test_what_a_mask_keeps_of_the_gain(five: Page, single: Page) -> None:
    means = five.means.set_index("arm")
    assert means.loc["mask-own", "accuracy"] == pytest.approx(0.51, abs=2e-3)
    assert means.loc["mask-random", "kept"] == pytest.approx(0.17 / 0.27, abs=0.01)
    assert means.loc["opd", "kept"] == 1
    own = single.means.set_index("arm").loc["mask-own"]
    assert math.isnan(own["low"])
    assert own["kept"] == pytest.approx((0.25 - LOST["mask-own"]) / 0.25, abs=0.01)
    assert math.isnan(own["density"]), "not counted"


# Comparisons.


def test_pairs_are_taken_seed_by_seed(five: Page) -> None:
    own = five.test("mask-own", "opd")
    assert own["difference"] == pytest.approx(-0.01, abs=2e-3)
    assert own["high"] - own["low"] < 0.01, "the seeds' own spread, 0.04, is not in it"
    assert own["verdict"] == study.SAME, "within full OPD's range from seed to seed"
    assert five.test("mask-random", "opd")["verdict"] == study.OTHER
    assert five.test("mask-own", "mask-random")["verdict"] == "above"
    assert five.test("mask-smallest", "mask-random")["verdict"] == "below"
    assert five.test("mask-magnitude", "mask-random")["verdict"] == study.UNDECIDED


def test_holm_counts_all_tests(five: Page) -> None:
    assert len(five.paired) == 10
    assert (five.paired["p_holm"] >= five.paired["p"]).all()
    smallest = five.paired["p"].idxmin()
    assert five.paired.loc[smallest, "p_holm"] == pytest.approx(10 * five.paired.loc[smallest, "p"])


def test_accuracy_along_the_way_starts_at_the_source(five: Page, single: Page) -> None:
    own = five.along[(five.along["arm"] == "mask-own") & (five.along["seed"] == 1)]
    assert list(own["step"]) == [0, 10, 20]
    assert list(own["distance"]) == [0.0, 0.2, 0.4]
    assert own["accuracy"].iloc[0] == SOURCE
    assert set(single.along["arm"]) == {"opd", "mask-own"}, "the third has no curve"


def test_full_training_when_it_had_come_as_far(five: Page) -> None:
    ends = five.ends.set_index("arm")
    assert ends.loc["mask-random", "full"] == pytest.approx((SOURCE + 0.52) / 2), "half of the way"
    assert ends.loc["mask-random", "difference"] == pytest.approx(0.42 - 0.385, abs=2e-3)
    assert ends.loc["mask-random", "verdict"] == "above"
    assert ends.loc["mask-own", "difference"] == pytest.approx(-0.01, abs=2e-3)
    assert ends.loc["mask-own", "seeds"] == 5


def test_a_run_that_went_farther_than_full_training_is_not_compared() -> None:
    points = pd.DataFrame(
        [("opd", 0, 0, 0.0, 0.2), ("opd", 0, 9, 0.1, 0.4), ("mask-own", 0, 0, 0.0, 0.2), ("mask-own", 0, 9, 0.3, 0.4)],
        columns=masked.ALONG,
    )
    (row,) = compared.at_its_distance(points).to_dict("records")
    assert (row["seeds"], row["verdict"]) == (0, study.UNDECIDED)
    assert math.isnan(row["difference"])


# What runs share.


def test_overlaps_over_pairs(five: Page) -> None:
    own = five.compared("opd", "other seed")
    assert (own["pairs"], own["o1"]) == (2, pytest.approx(0.84))
    assert (own["o1_low"], own["o1_high"]) == (0.8, 0.88)
    assert own["ratio_global"] == pytest.approx(0.21 / 0.0625)
    assert own["ratio_magnitude"] == pytest.approx(0.21 / 0.0825)
    assert own["excess"] == pytest.approx((0.21 - 0.0825) / (0.25 - 0.0825))
    assert five.compared("rlvr", "same seed")["o1"] == pytest.approx(0.44)
    assert five.compared("rlvr", "other seed")["o1"] == pytest.approx(0.40)
    assert set(five.highest["atol"]) == {7e-4}


def test_the_excess_is_one_when_the_smaller_lies_in_the_larger(tmp_path: Path) -> None:
    rows = [
        overlap_row("rlvr", (0, 0), 7e-4, both=0.05, b=0.05),
        overlap_row("sft", (0, 0), 7e-4, both=0.25 * 0.05 + 0.02, b=0.05),
    ]
    write_study(tmp_path, [], overlaps=rows)
    table = overlap.overlaps("pico", tmp_path)
    assert table["excess"].tolist() == pytest.approx([1.0, 0.0])
    assert table["ratio_magnitude"].tolist()[1] == pytest.approx(1.0)


def test_an_empty_mask_has_no_ratio(tmp_path: Path) -> None:
    row = overlap_row("rlvr", (0, 0), 7e-4, both=0.0)
    row |= dict.fromkeys(("density_b", "o1", "global_o1", "magnitude_o1"), 0.0)
    write_study(tmp_path, [], overlaps=[row])
    table = overlap.overlaps("pico", tmp_path)
    assert table["ratio_global"].isna().all()
    assert table["excess"].isna().all()


def test_what_tensors_and_sizes_explain_of_an_overlap(five: Page, empty: Page) -> None:
    # Full OPD twice: 0.84 shared, 0.25 by global chance, 0.33 within magnitudes; RLVR 0.40, SFT 0.60.
    assert overlap.explained(five.highest).tolist() == pytest.approx([0.08 / 0.59, 0.08 / 0.15, 0.08 / 0.35])
    less = five.highest.assign(o1=five.highest["o1"].where(five.highest["arm"] != "rlvr", 0.2))
    assert overlap.explained(less).empty, "one shares no more than chance"
    assert overlap.explained(empty.highest).empty


def test_few_seeds_have_no_verdict(five: Page, single: Page) -> None:
    assert set(written.distances(five.means, five.ends)["verdict"]) == {"-", "above", "below"}
    assert set(written.distances(single.means, single.ends)["verdict"]) == {"-"}


# Beside the paper.


def test_the_papers_masks() -> None:
    table = masked.published().set_index(["setting", "run"])
    own = table.loc[("DS-Qwen OPD", "full-OPD mask")]
    assert (own["arm"], own["density"]) == ("mask-own", 0.175)
    assert own["difference"] == pytest.approx(0.3510 - 0.3552)
    assert own["late_difference"] == pytest.approx(0.3473 - 0.3427)
    assert math.isnan(table.loc[("Qwen2.5-VL OPD", "GRPO mask"), "late"])


def test_the_papers_overlaps_have_opd_first() -> None:
    first, second, third = overlap.published().to_dict("records")
    assert (first["arm"], first["o1"], first["o2"]) == ("rlvr", 0.672, 0.5321)
    assert (first["global_o1"], first["global_o2"]) == (0.2211, 0.175)
    assert second["ratio_global"] == pytest.approx(2.21, abs=0.005)
    assert (third["arm"], third["o1"]) == ("opd-other-teacher", 0.8017)


def test_noise_of_the_papers_differences(five: Page) -> None:
    row = five.beside[five.beside["setting"] == "DS-Qwen OPD"].iloc[0]
    assert row["noise"] == pytest.approx(math.sqrt((0.351 * 0.649 + 0.3552 * 0.6448) / 960))
    assert five.beside[five.beside["setting"] != "DS-Qwen OPD"]["noise"].isna().all()
    assert five.beside["span"].dropna().unique().tolist() == pytest.approx([0.04])


# Whatever there is.


@pytest.mark.parametrize("which", ["five", "single", "empty"])
def test_every_table_can_be_made(which: str, request: pytest.FixtureRequest) -> None:
    page = request.getfixturevalue(which)
    for table in page.shown():
        assert all(isinstance(cell, str) for cell in table.to_numpy().flatten())
        assert not any("nan" in cell for cell in table.to_numpy().flatten())


def test_nothing_is_claimed_of_an_empty_study(empty: Page) -> None:
    assert empty.means.empty
    assert empty.paired.empty
    assert empty.overlaps.empty
    assert set(empty.beside["setting"]) == {"DS-Qwen OPD", "Qwen2.5-VL OPD"}, "the paper's rows stay"
