"""Figures on matched arms: they draw the numbers of their tables, fit their frame, and can be drawn of nothing."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection

from opdlib.figures import matched as figures
from opdlib.tables import study
from opdlib.tables.matched import arms, norm, paper
from tests.tables.matched_runs import write_runs

pytestmark = [pytest.mark.usefixtures("without_a_screen"), pytest.mark.slow]


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_runs(tmp_path_factory.mktemp("three"), 3)


def everything(results: Path) -> dict[str, tuple[Axes, pd.DataFrame]]:
    """Every figure of the page with its table."""
    runs, along = study.runs("pico", root=results), study.along("pico", root=results)
    factors = paper.factors(runs, arms.DRAWN)
    tables = {"near": norm.drawn(along, "stable_rank"), "together": norm.drawn_together(along, "sparsity.1e-05")}
    found = {name: (figures.against_norm(table), table) for name, table in tables.items()}
    found["contrast"] = figures.contrast(factors, figures.rows(len(arms.DRAWN))), factors
    return found


def points(ax: Axes) -> np.ndarray:
    return np.concatenate([np.ravel(np.asarray(line.get_data(), dtype=float)) for line in ax.lines])


def has(ax: Axes, values: pd.Series) -> bool:
    return all(np.isclose(points(ax), value, rtol=1e-9).any() for value in values.dropna())


def test_they_draw_every_number(three: Path) -> None:
    found = everything(three)
    ax, table = found["near"]
    assert len(table) == 4 * 3 * 3
    assert has(ax, table["value"])
    assert has(ax, 100 * table["rel_norm"])
    ax, table = found["together"]
    assert set(table["group"]) == {
        "OPD, any rate",
        "opd-ce",
        "offline-rkl",
        "offline",
        "offline-long",
        "other regimes",
        "paper",
    }
    assert len(table[table["group"] == "paper"]) == 10
    assert has(ax, 100 * table["value"])
    ax, table = found["contrast"]
    assert has(ax, table["value"])
    ends = [
        np.concatenate([s.ravel() for s in c.get_segments()]) for c in ax.collections if isinstance(c, LineCollection)
    ]
    assert np.isclose(np.concatenate(ends), table[table["change"] == "paper"]["high"].max()).any()


@pytest.mark.parametrize("seeds", [0, 1, 3])
def test_both_axes_are_named_and_nothing_is_cut_off(seeds: int, tmp_path: Path) -> None:
    for ax, _ in everything(write_runs(tmp_path, seeds)).values():
        assert ax.get_xlabel()
        assert ax.get_ylabel()
        assert not ax.get_title()
        figure = ax.get_figure(root=True)
        assert figure is not None
        assert figure.get_size_inches()[0] <= 6.5
        figure.draw_without_rendering()
        legend = ax.get_legend()
        texts = [ax.xaxis.label, ax.yaxis.label, *ax.get_yticklabels(), *(legend.get_texts() if legend else [])]
        assert all(text.get_fontsize() >= 11 for text in texts if text.get_text())
        for text in texts:
            if text.get_text() and text.get_visible():
                box = text.get_window_extent()
                assert box.x0 >= -1, text
                assert box.x1 <= figure.bbox.x1 + 1, text
