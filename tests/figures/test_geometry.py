"""Figures on rank and subspaces: the same promises as those of tests/test_figures.py."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_hex

from opdlib.figures import rank, subspace
from opdlib.figures.theme import canvas_of, drawn
from opdlib.tables import Results, geometry, paper, paper_geometry, stacked
from opdlib.tables import subspace as of_subspace
from tests.conftest import pico_weights
from tests.tables.results_of import deep_pair, results_of

Draw = Callable[..., Axes]
SHARES = (0.01, 0.05, 0.1, 0.2)
MASKS = ("coverage.principal.0.1", "coverage.low.0.1", "coverage_ceiling.0.1")


pytestmark = [pytest.mark.usefixtures("without_a_screen"), pytest.mark.slow]


def all_tables(views: list[Results]) -> dict[Draw, pd.DataFrame]:
    """Figure -> the table that the notebooks give it."""
    spectrum = paper_geometry.SPECTRUM
    pairs = stacked(paper.wide(spectrum), *(geometry.overview(v, spectrum) for v in views))
    covered = stacked(paper_geometry.coverage(), *(geometry.overview(v, MASKS) for v in views))
    coverages = stacked(*(of_subspace.coverage(v, SHARES) for v in views))
    return {
        rank.spectrum: stacked(*(geometry.spectrum(v) for v in views)),
        rank.leading: stacked(paper.numbers(), *(geometry.spread(v) for v in views)),
        rank.pair_top: pairs,
        rank.pair_stable_rank: pairs,
        subspace.pair_projection: stacked(paper_geometry.projection(), *(of_subspace.joint(v) for v in views)),
        subspace.projection_ratio: stacked(*(of_subspace.projection(v, SHARES) for v in views)),
        subspace.coverage: coverages[coverages["atol"] == 0],
        subspace.pair_principal: covered,
        subspace.pair_low: covered,
        subspace.changed_by_size: stacked(paper_geometry.changed(), *(of_subspace.changed(v) for v in views)),
    }


@pytest.fixture(scope="module")
def drawn_from(tmp_path_factory: pytest.TempPathFactory) -> dict[Draw, pd.DataFrame]:
    weights = deep_pair(2)
    return all_tables([results_of(tmp_path_factory.mktemp(view), *weights, view=view) for view in ("bf16", "stored")])


DRAWN: dict[Draw, tuple[list[str], float]] = {
    rank.spectrum: (["value"], 100),
    rank.pair_top: (["svd_energy.16"], 100),
    rank.pair_stable_rank: (["stable_rank"], 1),
    subspace.pair_projection: (["value", "expected"], 100),
    subspace.projection_ratio: (["ratio"], 1),
    subspace.coverage: (["coverage", "ceiling"], 100),
    subspace.pair_principal: (["coverage.principal.0.1"], 100),
    subspace.pair_low: (["coverage.low.0.1"], 100),
    subspace.changed_by_size: (
        ["changed_in.low.0.01", "changed_in.low.0.2", "changed_above.0.2", "changed_in.principal.0.1"],
        100,
    ),
}
"""Figure -> the columns that it draws in full, and the factor that they are drawn with."""
FIGURES = [*DRAWN, rank.leading]
each = pytest.mark.parametrize("draw", FIGURES, ids=lambda f: f.__name__)


def values_drawn(ax: Axes) -> np.ndarray:
    return np.concatenate([np.ravel(np.asarray(line.get_data(), dtype=float)) for line in ax.lines])


@pytest.mark.parametrize("draw", DRAWN, ids=lambda f: f.__name__)
def test_it_draws_every_row_on_the_given_axes(draw: Draw, drawn_from: dict[Draw, pd.DataFrame]) -> None:
    _, ax = plt.subplots()
    assert draw(drawn_from[draw], ax) is ax
    columns, scale = DRAWN[draw]
    drawn = values_drawn(ax)
    for value in scale * drawn_from[draw][columns].melt(value_name="number")["number"].dropna():
        assert np.isclose(drawn, value, rtol=1e-12).any(), value


def test_leading_values_are_those_of_here_and_the_span_of_the_paper(drawn_from: dict[Draw, pd.DataFrame]) -> None:
    table = drawn_from[rank.leading]
    drawn = values_drawn(rank.leading(table))
    tops = table[table["quantity"].isin([f"svd_energy.{k}" for k in (1, 2, 4, 8, 16, 32, 64)])]
    own = tops[tops["origin"] == "here"]["value"]
    assert len(own) == 14
    rows = tops[tops["regime"].isin(["OPD", "OPSD"])].groupby("quantity")["value"]
    span = pd.concat([rows.min(), rows.max()])
    assert len(span) == 6
    for value in 100 * pd.concat([own, span]):
        assert np.isclose(drawn, value, rtol=1e-12).any()


@each
def test_both_axes_are_named_and_the_look_is_the_theme(draw: Draw, drawn_from: dict[Draw, pd.DataFrame]) -> None:
    ax = draw(drawn_from[draw])
    assert ax.get_xlabel()
    assert ax.get_ylabel()
    assert not ax.get_title()
    figure = ax.get_figure(root=True)
    assert figure is not None
    width, height = figure.get_size_inches()
    assert width <= 6.5
    assert height >= 4
    texts = [ax.xaxis.label, ax.yaxis.label, *ax.get_xticklabels(), *ax.get_yticklabels()]
    assert all(text.get_fontsize() >= 11 for text in texts if text.get_text())


@each
def test_nothing_is_cut_off_and_no_labels_overlap(draw: Draw, drawn_from: dict[Draw, pd.DataFrame]) -> None:
    ax = draw(drawn_from[draw])
    figure = ax.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()
    whole, (left, right), (low, high) = figure.bbox, sorted(ax.get_xlim()), sorted(ax.get_ylim())
    below = [t for t in ax.get_xticklabels() if t.get_text() and left <= t.get_position()[0] <= right]
    beside = [t for t in ax.get_yticklabels() if t.get_text() and low <= t.get_position()[1] <= high]
    for artist in [ax.xaxis.label, ax.yaxis.label, *below, *beside, ax.get_legend()]:
        if artist is not None and artist.get_visible():
            box = artist.get_window_extent()
            assert box.x0 >= whole.x0 - 1
            assert box.y0 >= whole.y0 - 1
            assert box.x1 <= whole.x1 + 1
            assert box.y1 <= whole.y1 + 1
    boxes = sorted((t.get_window_extent() for t in below), key=lambda box: box.x0)
    assert all(a.x1 <= b.x0 for a, b in pairwise(boxes))


@each
def test_the_same_table_gives_the_same_bytes(draw: Draw, drawn_from: dict[Draw, pd.DataFrame]) -> None:
    one, two = (drawn(canvas_of(draw(drawn_from[draw])), "svg") for _ in range(2))
    assert one == two


@pytest.mark.parametrize("case", ["identical", "one weight", "rank one", "zero source"])
def test_it_draws_what_is_undefined(case: str, tmp_path: Path) -> None:
    source = pico_weights()
    name = "model.layers.0.mlp.up_proj.weight"
    trained = dict(source)
    if case == "one weight":
        source, trained = {name: torch.ones(1, 1).bfloat16()}, {name: torch.full((1, 1), 2.0).bfloat16()}
    elif case == "rank one":
        trained[name] = source[name] + torch.outer(torch.arange(24.0), torch.ones(16)).bfloat16()
    elif case == "zero source":
        source = {n: weight * 0 for n, weight in source.items()}
    for draw, table in all_tables([results_of(tmp_path, source, trained)]).items():
        figure = draw(table).get_figure(root=True)
        assert figure is not None
        figure.draw_without_rendering()


def test_the_finer_view_is_hollow(drawn_from: dict[Draw, pd.DataFrame]) -> None:
    ax = rank.pair_top(drawn_from[rank.pair_top])
    faces = {str(line.get_label()): line.get_markerfacecolor() for line in ax.lines}
    assert faces["measured here"] == "black"
    assert faces["here, stored"] == "white"


SEVERAL = [rank.spectrum, rank.leading, subspace.projection_ratio, subspace.coverage, subspace.changed_by_size]


@pytest.mark.parametrize("draw", SEVERAL, ids=lambda f: f.__name__)
@pytest.mark.parametrize("count", [2, 5])
def test_several_pairs_have_lines_colours_and_names_of_their_own(
    draw: Draw, drawn_from: dict[Draw, pd.DataFrame], count: int
) -> None:
    table, names = drawn_from[draw], "vwxyz"[:count]
    here = table[(table["origin"] == "here") & (table["view"] == "bf16")]
    ax = draw(stacked(table[table["origin"] != "here"], *(here.assign(pair=f"pair {name}") for name in names)))
    colours: dict[str, set[str]] = {}
    for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
        if named := [name for name in names if f"pair {name}" in label and "ceiling" not in label]:
            line = handle.lines[0] if hasattr(handle, "lines") else handle
            colours.setdefault(named[0], set()).add(str(to_hex(line.get_color())))
    assert sorted(colours) == list(names)
    assert len({colour for own in colours.values() for colour in own}) == count, "a colour each"
    for line in ax.lines:
        at = np.asarray(line.get_xdata(), dtype=float)
        assert line.get_linestyle() == "None" or (np.diff(at) >= 0).all(), "no line goes from one pair to the next"
