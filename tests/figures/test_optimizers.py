"""Figures on optimizers: they draw the numbers of their tables, and can be drawn of nothing."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from opdlib.figures import optimizers as figures
from opdlib.tables.optimizers import sweep
from opdlib.tables.optimizers.state import published_state, unrelated_cosine
from tests.tables.optimizer_page import Page, page

pytestmark = [pytest.mark.usefixtures("without_a_screen"), pytest.mark.slow]


@pytest.fixture(scope="module")
def some(tmp_path_factory: pytest.TempPathFactory) -> Page:
    return page(tmp_path_factory.mktemp("some"), 3)


@pytest.fixture(scope="module")
def none(tmp_path_factory: pytest.TempPathFactory) -> Page:
    return Page(tmp_path_factory.mktemp("none"))


def learning(of: Page, quantity: str) -> pd.DataFrame:
    return sweep.learning(of.curves, quantity)


def everything(of: Page) -> dict[str, Axes]:
    return {
        "rates": figures.rates(sweep.wide(of.runs, ["accuracy", "source_accuracy"])),
        "cosine": figures.state(learning(of, "momentum_cosine")),
        "variation": figures.state(learning(of, "second_moment_cv")),
        "path": figures.path(sweep.path_means(of.paths, "exact_zero")),
    }


def has(ax: Axes, values: pd.Series | list[float]) -> bool:
    """Are all values among the heights of the lines?"""
    heights = np.concatenate([np.ravel(np.asarray(line.get_ydata(), dtype=float)) for line in ax.lines])
    return all(np.isclose(heights, value, rtol=1e-12).any() for value in values)


def test_the_sweep_draws_every_mean_the_source_and_the_paper(some: Page) -> None:
    table = sweep.wide(some.runs, ["accuracy", "source_accuracy"])
    ax = figures.rates(table)
    assert has(ax, 100 * table["value"])
    assert has(ax, [42.40, 37.92, 25.0])
    names = {text.get_text() for text in ax.texts}
    assert names == {"AdamW", "RMSProp", "SGD", "SGD, momentum", "paper", "source"}


def test_the_state_has_the_paper_and_the_null_beside_it(some: Page) -> None:
    for quantity in ("momentum_cosine", "second_moment_cv"):
        table = learning(some, quantity)
        ax = figures.state(table)
        own, paper = table[table["optimizer"] == "adamw"], published_state(quantity)
        assert has(ax, own["value"])
        assert len(ax.collections) == own["learning_rate"].nunique(), "a band for each rate"
        assert has(ax, [paper["first"], paper["mean"], paper["last"]])
        assert has(ax, [unrelated_cosine(5)]) == (quantity == "momentum_cosine")


@pytest.mark.parametrize("quantity", ["accuracy", "exact_zero"])
def test_the_path_draws_every_measured_step(some: Page, quantity: str) -> None:
    means = sweep.path_means(some.paths, quantity)
    assert has(figures.path(means), 100 * means["value"])


def test_figures_of_nothing_and_of_one_seed(none: Page, tmp_path: Path) -> None:
    one = page(tmp_path, 1)
    for of in (none, one):
        for name, ax in everything(of).items():
            canvas = ax.get_figure()
            assert isinstance(canvas, Figure), name
            canvas.draw_without_rendering()
