"""The figures of a report: those of the book, of all its pairs together and of one."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from opdlib.figures import dots, maps, rank, subspace, trajectory
from opdlib.figures import nulls as null_figures
from opdlib.figures.curves import magnitude, threshold_curve
from opdlib.figures.theme import canvas_of, drawn, panels
from opdlib.results.open import Results
from opdlib.tables import geometry, measured, nulls, paper, paper_geometry, paper_nulls
from opdlib.tables.measured import stacked
from opdlib.tables.subspace import joint

STEPPED = ("rel_norm", "exact_zero", "stable_rank", "svd_energy.16", "projection.joint.0.1")
"""What is drawn of several checkpoints of a training."""

Draw = Callable[[], Axes]


def of_all(pairs: Sequence[Results], steps: pd.DataFrame | None) -> dict[str, Draw]:
    """Figures that all pairs share, drawn when called; `steps` has a row a checkpoint where all are of one training."""
    found: dict[str, Draw] = {"pairs": partial(_pairs, pairs)}
    if steps is not None:
        keys = [key for key in STEPPED if key in steps and steps[key].notna().any()]
        found["steps"] = partial(trajectory.size, steps, keys)
    with_geometry = [results for results in pairs if geometry.has_geometry(results)]
    if any(results.summary["measured_2d"] for results in with_geometry):
        found |= {"projection": partial(_projection, with_geometry), "low": partial(_low, with_geometry)}
    return found


def of_one(results: Results) -> dict[str, Draw]:
    """Figures of one pair, drawn when called."""
    found: dict[str, Draw] = {
        "threshold": partial(_threshold, results),
        "binades": lambda: magnitude(nulls.binades(results)),
        "map": partial(_map, results, "exact_zero", "unchanged weights (%)", most=100),
        "norms": partial(_map, results, "rel_norm", "relative norm (%)", logarithmic=True),
        "blocks": partial(_blocks, results),
    }
    if geometry.has_geometry(results) and results.summary["measured_2d"]:
        found["spectrum"] = partial(_spectrum, results)
    return found


def as_files(figures: Mapping[str, Draw], kind: str) -> dict[str, bytes]:
    """The content of a file for each figure; svg, png or pdf."""
    found = {}
    for name, draw in figures.items():
        canvas = canvas_of(draw())
        found[name] = drawn(canvas, kind)
        plt.close(canvas)
    return found


def _pairs(pairs: Sequence[Results]) -> Axes:
    table = stacked(paper.overview(), *map(measured.overview, pairs))
    upper, lower = panels(2, 8 + 0.5 * len(pairs))
    dots.pair_sparsity(table, upper)
    dots.pair_norm(table, lower)
    return upper


def _projection(pairs: Sequence[Results]) -> Axes:
    (ax,) = panels(1, 3.8 + 0.25 * len(pairs))
    return subspace.pair_projection(stacked(paper_geometry.projection(), *map(joint, pairs)), ax)


def _low(pairs: Sequence[Results]) -> Axes:
    ours = [geometry.overview(results, ["density", "coverage.low.0.1"]) for results in pairs]
    noise = paper_nulls.curve().assign(origin="noise")
    return null_figures.low_coverage(stacked(paper_nulls.coverage(), *ours, noise))


def _threshold(results: Results) -> Axes:
    published = paper.sparsity().query("rule in ('exact', 'absolute')")
    return threshold_curve(stacked(published, measured.curve(results)))


def _map(results: Results, column: str, label: str, **look: Any) -> Axes:
    (ax,) = panels(1, 1.6 + 0.3 * max(8, results.tensors["module"].nunique()))
    maps.draw_map(ax, measured.movement(results, "layer and module"), column, label, **look)
    ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    return ax


def _blocks(results: Results) -> Axes:
    table = stacked(paper.blocks(), measured.movement(results))
    upper, lower = panels(2)
    dots.block_norm(table, upper)
    dots.block_energy(table, lower)
    return upper


def _spectrum(results: Results) -> Axes:
    upper, lower = panels(2)
    rank.spectrum(geometry.spectrum(results), upper)
    rank.leading(stacked(paper.numbers(), geometry.spread(results)), lower)
    return upper
