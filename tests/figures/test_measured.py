"""Figures draw on the axes they are given, use every row, name both axes, and look the same each time."""

from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh

from opdlib import figures, tables
from opdlib.errors import ParameterError
from opdlib.figures.theme import canvas_of, drawn
from opdlib.tables import Results, paper
from tests.conftest import pico_weights
from tests.tables.results_of import deep_pair, results_of

Draw = Callable[..., Axes]


pytestmark = [pytest.mark.usefixtures("without_a_screen"), pytest.mark.slow]


def all_tables(results: Results, stored: Results | None) -> dict[Draw, pd.DataFrame]:
    """Figure -> the table that the notebooks give it."""
    overview = tables.stacked(paper.overview(), tables.overview(results))
    blocks = tables.stacked(paper.blocks(), tables.movement(results))
    curves = [tables.curve(view) for view in (results, stored) if view is not None]
    return {
        figures.pair_sparsity: overview,
        figures.pair_norm: overview,
        figures.block_norm: blocks,
        figures.block_energy: blocks,
        figures.threshold_curve: tables.stacked(paper.sparsity().query("rule != 'relative'"), *curves),
        figures.magnitude: tables.magnitude(results, stored),
        figures.layer_module: tables.at(tables.sparsity(results, "layer and module"), "absolute", [1e-5]),
    }


@pytest.fixture(scope="module")
def drawn_from(tmp_path_factory: pytest.TempPathFactory) -> dict[Draw, pd.DataFrame]:
    weights = deep_pair(31)  # more layers than a plot that shows thirty bars would have room for
    views = [results_of(tmp_path_factory.mktemp(view), *weights, view=view) for view in ("bf16", "stored")]
    return all_tables(*views)


FIGURES = [
    figures.pair_sparsity,
    figures.pair_norm,
    figures.block_norm,
    figures.block_energy,
    figures.threshold_curve,
    figures.magnitude,
    figures.layer_module,
]
VALUES = dict.fromkeys(FIGURES, "share") | {
    figures.pair_sparsity: "sparsity",
    figures.pair_norm: "rel_norm",
    figures.block_norm: "rel_norm",
    figures.block_energy: "energy_share",
}


def values_drawn(ax: Axes) -> list[float]:
    """Every number that is on the axes, in percent."""
    found = [np.asarray(line.get_data(), dtype=float) for line in ax.lines]
    cells = [np.ma.filled(m.get_array(), np.nan).ravel() for m in ax.collections if isinstance(m, QuadMesh)]
    return [float(x) for x in np.concatenate([*(d.ravel() for d in found), *cells])]


@pytest.mark.parametrize("draw", FIGURES, ids=lambda f: f.__name__)
def test_it_draws_every_row_on_the_given_axes(draw: Draw, drawn_from: dict[Draw, pd.DataFrame]) -> None:
    table = drawn_from[draw]
    _, ax = plt.subplots()
    assert draw(table, ax) is ax
    assert ax.get_xlabel()
    assert ax.get_ylabel()
    assert not ax.get_title()
    drawn = np.array(values_drawn(ax))
    for value in 100 * table[VALUES[draw]].dropna():
        assert np.isclose(drawn, value, rtol=1e-12).any()


@pytest.mark.parametrize("draw", FIGURES, ids=lambda f: f.__name__)
def test_its_own_axes_have_the_theme(draw: Draw, drawn_from: dict[Draw, pd.DataFrame]) -> None:
    figure = draw(drawn_from[draw]).get_figure(root=True)
    assert figure is not None
    assert mpl.colors.to_rgba(figure.get_facecolor()) == (1, 1, 1, 1)
    width, height = figure.get_size_inches()
    assert width <= 6.5
    assert height >= 4
    for ax in figure.axes:
        texts = [ax.xaxis.label, ax.yaxis.label, *ax.get_xticklabels(), *ax.get_yticklabels()]
        assert all(text.get_fontsize() >= 11 for text in texts if text.get_text())


@pytest.mark.parametrize("draw", FIGURES, ids=lambda f: f.__name__)
def test_nothing_is_cut_off(draw: Draw, drawn_from: dict[Draw, pd.DataFrame]) -> None:
    ax = draw(drawn_from[draw])
    figure = ax.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()
    whole = figure.bbox
    low, high = sorted(ax.get_ylim())
    ticks = [label for label in ax.get_yticklabels() if low <= label.get_position()[1] <= high]
    for artist in [ax.xaxis.label, ax.yaxis.label, *ticks, ax.get_legend()]:
        if artist is not None and artist.get_visible():
            box = artist.get_window_extent()
            assert box.x0 >= whole.x0 - 1
            assert box.y0 >= whole.y0 - 1
            assert box.x1 <= whole.x1 + 1
            assert box.y1 <= whole.y1 + 1


@pytest.mark.parametrize("draw", FIGURES, ids=lambda f: f.__name__)
def test_the_same_table_gives_the_same_bytes(draw: Draw, drawn_from: dict[Draw, pd.DataFrame]) -> None:
    one, two = (drawn(canvas_of(draw(drawn_from[draw])), "svg") for _ in range(2))
    assert one == two


@pytest.mark.parametrize("case", ["identical", "one tensor", "zero source"])
def test_it_draws_what_is_undefined(case: str, tmp_path: Path) -> None:
    source = pico_weights()
    trained = source
    if case == "one tensor":
        name = "model.layers.0.mlp.up_proj.weight"
        source, trained = {name: source[name]}, {name: source[name] * 2}
    elif case == "zero source":
        source = {name: weight * 0 for name, weight in source.items()}
    results = results_of(tmp_path, source, trained)
    for draw, table in all_tables(results, None).items():
        figure = draw(table).get_figure(root=True)
        assert figure is not None
        figure.draw_without_rendering()


def test_every_layer_is_on_the_map_and_modules_without_one_fill_their_row(drawn_from: dict[Draw, pd.DataFrame]) -> None:
    ax = figures.layer_module(drawn_from[figures.layer_module])
    (mesh,) = (c for c in ax.collections if isinstance(c, QuadMesh))
    cells = np.ma.filled(mesh.get_array(), np.nan)
    assert cells.shape[1] == 31
    names = [label.get_text() for label in ax.get_yticklabels()]
    assert names[-2:] == ["embed_tokens (no layer)", "norm (no layer)"]
    assert len({*cells[names.index("embed_tokens (no layer)")]}) == 1
    assert not np.isnan(cells).any()


def test_panels_stand_below_each_other() -> None:
    upper, lower = figures.panels(2)
    assert upper.get_position().y0 > lower.get_position().y0
    assert upper.figure is lower.figure


def test_several_pairs_are_told_apart(drawn_from: dict[Draw, pd.DataFrame]) -> None:
    table = drawn_from[figures.magnitude]
    both = tables.stacked(*(table.assign(pair=name, expected=np.nan) for name in ("one", "two")))
    ax = figures.magnitude(both)
    labels = ax.get_legend_handles_labels()[1]
    assert {"one", "two"} <= set(labels)
    for line in ax.lines:
        assert line.get_linestyle() == "None" or (np.diff(np.asarray(line.get_xdata(), dtype=float)) >= 0).all()
    blocks = drawn_from[figures.block_norm]
    own = blocks[blocks["origin"] == "here"]
    ax = figures.block_norm(tables.stacked(blocks, own.assign(pair="another")))
    assert {str(own["pair"].iloc[0]), "another"} <= set(ax.get_legend_handles_labels()[1])
    one = drawn_from[figures.layer_module]
    wide = tables.stacked(one, one.assign(pair="another"))
    with pytest.raises(ParameterError, match="a map shows one pair"):
        figures.layer_module(wide)
