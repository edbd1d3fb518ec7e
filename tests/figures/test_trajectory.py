"""Figures of runs measured step by step: they draw the numbers of their table, and can be drawn of nothing."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes

from opdlib.figures import trajectory as figures
from opdlib.tables import trajectory
from tests.tables.trajectory_rows import write_along

pytestmark = [pytest.mark.usefixtures("without_a_screen"), pytest.mark.slow]


def panels(ax: Axes) -> list[Axes]:
    figure = ax.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()
    return figure.axes


def drawn(ax: Axes) -> np.ndarray:
    return np.concatenate([np.asarray(line.get_ydata(), dtype=float) for line in ax.lines])


def has(ax: Axes, values: pd.Series) -> bool:
    return all(np.isclose(drawn(ax), value).any() for value in values.dropna())


def test_they_draw_every_number(tmp_path: Path) -> None:
    table = trajectory.steps("smollm2", write_along(tmp_path))
    for ax, key, scale in zip(panels(figures.size(table)), figures.DRAWN, (100, 100, 1, 100), strict=True):
        assert len(ax.lines) == 2 * 2
        assert has(ax, scale * table[key])
    *runs, cosines = panels(figures.locking(table))
    assert [ax.get_ylabel() for ax in runs] == ["opd: similarity (%)", "offline: similarity (%)"]
    for ax in runs:
        assert len(ax.lines) == 4
        for key in ("locking", "locking_norms", "locking_spectra"):
            assert has(ax, 100 * table[f"{key}.right"])
    assert has(cosines, table["step_cosine"])


def test_without_runs_they_are_empty(tmp_path: Path) -> None:
    table = trajectory.steps("smollm2", tmp_path)
    for draw in (figures.size, figures.locking):
        for ax in panels(draw(table)):
            assert ax.get_ylabel()
            assert not ax.get_title()
