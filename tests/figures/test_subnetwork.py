"""Figures on masked training: what is drawn is in the table, and an empty study draws empty axes."""

from pathlib import Path

import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from opdlib.figures import subnetwork as figures
from opdlib.tables import stacked
from opdlib.tables.subnetwork import compared, masked, overlap
from tests.tables.subnetwork_runs import LOST, write_masks, write_overlaps, write_runs

pytestmark = pytest.mark.slow


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_runs(tmp_path, LOST, 3)
    write_masks(tmp_path, 3)
    write_overlaps(tmp_path)
    return tmp_path


def rows(ax: Axes) -> list[str]:
    return [text.get_text() for text in ax.get_yticklabels()]


def legend(ax: Axes) -> set[str]:
    found = ax.get_legend()
    return {text.get_text() for text in found.get_texts()} if found else set()


def at(ax: Axes, label: str) -> list[float]:
    """Horizontal places of the marks with a label."""
    (line,) = (line for line in ax.lines if line.get_label() == label)
    return [float(x) for x in line.get_xdata()]  # type: ignore[union-attr, arg-type]


def beside(root: Path) -> pd.DataFrame:
    return compared.differences(masked.runs("pico", root))


def shared(root: Path) -> pd.DataFrame:
    table = overlap.by_comparison(overlap.overlaps("pico", root))
    return stacked(overlap.at_highest(table), overlap.published())


def test_accuracy_has_a_row_for_each_arm_with_runs(root: Path) -> None:
    ax = figures.accuracy(masked.runs("pico", root))
    assert rows(ax) == list(masked.TRAINS.values())
    means = [float(line.get_xdata()[0]) for line in ax.lines if line.get_marker() == "D"]  # type: ignore[index, arg-type]
    assert means == [pytest.approx(51.0)]
    assert [text.get_text() for text in ax.texts] == ["source"]


def test_differences_have_the_papers_values_and_the_range_of_seeds(root: Path) -> None:
    ax = figures.difference(beside(root))
    assert rows(ax) == list(masked.TRAINS.values())[1:]
    assert at(ax, "paper, DS-Qwen") == pytest.approx([-0.42, -0.83, -2.60])
    assert {text.get_text() for text in ax.texts} >= {"17.5%", "33.3%", "9.3%"}
    assert "full OPD, seed to seed" in legend(ax)
    (band,) = ax.patches
    assert (band.get_x(), band.get_width()) == (pytest.approx(-2), pytest.approx(4))  # type: ignore[attr-defined]


def test_distance_is_the_mean_over_seeds(root: Path) -> None:
    ax = figures.distance(masked.along("pico", root))
    assert at(ax, "all weights") == pytest.approx([0.0, 0.2, 0.4])
    assert legend(ax) == set(masked.TRAINS.values())


def test_overlap_has_a_row_for_each_regime_and_the_papers(root: Path) -> None:
    ax = figures.overlap(shared(root))
    assert rows(ax)[:3] == ["OPD, another seed", "RLVR", "SFT"]
    assert rows(ax)[3:] == ["paper: DeepScaleR RLVR", "paper: GRPO", "paper: OPD (JustRL teacher)"]
    assert at(ax, "here, other seed") == pytest.approx([84, 40, 60])
    assert at(ax, "here, same seed") == pytest.approx([44, 64])
    assert at(ax, "paper") == pytest.approx([67.20, 29.69, 80.17])
    assert at(ax, "chance, global") == pytest.approx([25, 25, 25, 22.11, 13.44, 29.57])
    assert at(ax, "chance, magnitude")[:3] == pytest.approx([33] * 3)


def test_a_regime_with_runs_of_one_seed_only(root: Path) -> None:
    table = shared(root)
    ax = figures.overlap(table[(table["arm"] != "sft") | (table["seed"] != "other seed")])
    assert at(ax, "here, other seed") == pytest.approx([84, 40])
    assert rows(ax)[:3] == ["OPD, another seed", "RLVR", "SFT"]


def test_one_seed_has_no_interval(tmp_path: Path) -> None:
    write_runs(tmp_path, ("opd", "mask-own"), 1)
    assert rows(figures.accuracy(masked.runs("pico", tmp_path))) == ["all weights", "own delta"]
    assert len(figures.difference(beside(tmp_path)).patches) == 0, "no range of one seed"


@pytest.mark.filterwarnings("error")
def test_an_empty_study_draws_what_the_paper_has(tmp_path: Path) -> None:
    assert rows(figures.accuracy(masked.runs("pico", tmp_path))) == []
    assert legend(figures.difference(beside(tmp_path))) == {"paper, DS-Qwen", "paper, Qwen2.5-VL"}
    assert legend(figures.distance(masked.along("pico", tmp_path))) == set()
    assert rows(figures.overlap(shared(tmp_path)))[0] == "paper: DeepScaleR RLVR"


@pytest.fixture(autouse=True)
def _close() -> object:
    yield
    plt.close("all")
