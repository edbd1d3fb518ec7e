"""Data of the book's interactive parts, made from results, and the pictures that stand in for them without JavaScript.

python book/interactive.py data ROOT   writes {slider,map,pair}_data.js, slider.svg and map.svg into ROOT/book/_static
python book/interactive.py source      writes book/source_histogram.json: the weights of the embedded source by size
"""

import json
import math
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from opdlib.checkpoints import names, open_checkpoint
from opdlib.figures.theme import REGIMES, STYLE, legend_above
from opdlib.measurement.align import view_of
from opdlib.metrics.kernels import raw_bits
from opdlib.metrics.nulls import changed_chance
from opdlib.quantities import quantity
from opdlib.registry.pairs import DEFAULT, find_pair
from opdlib.registry.recipes import load_recipe
from opdlib.registry.study import Arm, Scale, find_run, study
from opdlib.results.study import open_study
from opdlib.tables import magnitude, open_results, paper

HISTOGRAM = Path(__file__).with_name("source_histogram.json")
LOW = 0.1
"""The share of the smallest weights whose coverage is told."""
NORMS = np.geomspace(1e-5, 3, 60)
"""Relative norms at which the curve of the null is drawn."""

AXES = {
    **dict.fromkeys(("rel_norm", "stable_rank", "effective_rank", "spectral_drift", "learning_rate", "steps"), True),
    **dict.fromkeys(("exact_zero", "sparsity.1e-05", "top_energy.0.01", "svd_energy.16", "accuracy"), False),
    **dict.fromkeys(("projection.joint.0.1", "coverage.principal.0.1", "coverage.low.0.1", "rotation.0.1"), False),
}
"""Number of the map -> whether its axis is logarithmic. Those that are no quantities are facts of the training."""
FACTS = {
    "accuracy": {"label": "problems solved after training", "percent": True},
    "learning_rate": {"label": "learning rate", "percent": False},
    "steps": {"label": "updates", "percent": False},
}
SHAPES = ("circle", "square", "triangle", "diamond")
PAPER = "paper"


# The null of visibility, from the source's histogram.


@cache
def tensors() -> pd.DataFrame:
    """One row a tensor of the embedded pair: bits and counts of its weights, scale (RMS of the fp32 update), matrix.

    Inside a binade all weights have the same chance, except those at its lower end, below which the grid is finer: so
    two magnitudes a binade stand for all.
    """
    rows = open_results(DEFAULT, "stored").tensors.set_index("tensor")
    histogram = json.loads(HISTOGRAM.read_text(encoding="utf8"))
    found = []
    for name, row in rows.iterrows():
        binade, end, others = np.array(histogram[str(name)], np.int64).reshape(-1, 3).T
        bits, counts = np.stack([binade << 7, binade << 7 | 1], axis=1).ravel(), np.stack([end, others], axis=1).ravel()
        scale, matrix = math.sqrt(row["energy"] / row["size"]), bool(row["matrices"] > 0)
        found.append([histogram[str(name)], bits[counts > 0], counts[counts > 0], scale, matrix])
    columns = ["binades", "bits", "counts", "scale", "matrix"]
    return pd.DataFrame(found, index=rows.index, columns=columns)


def visibility(factor: float) -> tuple[float, float]:
    """Unchanged share, and median coverage of the smallest tenth, if every tensor's update were noise of `factor` times
    its own size, rounded to bf16."""
    size = expected = 0.0
    lows = []
    for bits, counts, scale, matrix in tensors()[["bits", "counts", "scale", "matrix"]].itertuples(index=False):
        chance = changed_chance(bits, factor * scale)
        size, expected = size + counts.sum(), expected + counts @ chance
        if matrix:
            taken = np.clip(math.ceil(round(LOW * counts.sum(), 9)) - (np.cumsum(counts) - counts), 0, counts)
            lows.append((taken @ chance) / (counts @ chance))
    return 1 - expected / size, float(np.median(lows))


def norm() -> float:
    """The relative norm of the embedded pair's fp32 update."""
    return float(open_results(DEFAULT, "stored").summary["rel_norm"])


@cache
def curve() -> dict[str, list[float]]:
    """The null along `NORMS`, by key of the map."""
    own = norm()
    shares = [visibility(at / own) for at in NORMS]
    return {"rel_norm": [*NORMS], "exact_zero": [a for a, _ in shares], "coverage.low.0.1": [b for _, b in shares]}


# The data.


def slider() -> dict[str, Any]:
    """What the rounding slider needs: the source's histogram, and the runs over that source."""
    rows = tensors()
    listed = rows[["scale", "matrix", "binades"]].itertuples(index=False)
    run = find_run(find_pair(DEFAULT).key)
    assert run is not None
    runs = []
    for scale in study().values():
        if scale.source == run[0].source:
            norms = {(arm.name, seed): float(row["rel_norm"]) for arm, seed, row in _runs(scale, "stored")}
            for arm, seed, row in _runs(scale):
                if (arm.name, seed) in norms:
                    at = {"norm": norms[arm.name, seed], "unchanged": float(row["exact_zero"])}
                    runs.append({"name": arm.key(seed), "regime": arm.regime, **at})
    binades = magnitude(open_results(DEFAULT)).query("magnitude > 0")
    powers = np.log2(binades["magnitude"]).round().astype(int)
    return {
        "own": {"norm": norm(), "name": run[1].key(run[2])},
        "names": {"own": run[1].key(run[2])},
        "tensors": [[*row] for row in listed],
        "runs": runs,
        "measured": [*zip(powers, binades["coordinate_share"], binades["share"], strict=True)],
        "colours": _colours(run["regime"] for run in runs),
    }


def _runs(scale: Scale, view: str = "bf16") -> list[tuple[Arm, int, dict[str, Any]]]:
    table = open_study(scale.name).runs
    rows = table[(table["view"] == view) & table["arm"].isin([*scale.arms])].to_dict("records")
    return [(scale.arms[row["arm"]], int(row["seed"]), row) for row in rows]


def points() -> list[dict[str, Any]]:
    """Every run of the study and every pair of the paper: name, regime, set, recipe, and the numbers of `AXES`."""
    found = []
    for scale in study().values():
        for arm, seed, row in _runs(scale):
            recipe = load_recipe(arm.recipe)
            facts = {"accuracy": row.get("student.accuracy"), "learning_rate": recipe.learning_rate}
            said = f"{recipe.objective}, {recipe.optimizer} at {recipe.learning_rate}, {row['steps']} updates"
            labels = {"name": arm.key(seed), "regime": arm.regime, "set": scale.name, "recipe": said}
            found.append({**labels, **_numbers({**row, **facts})})
    keys = [key for key in AXES if key not in FACTS]
    for _, row in paper.wide(keys).iterrows():
        found.append({"name": row["pair"], "regime": row["regime"], "set": PAPER, "recipe": "", **_numbers(row)})
    return found


def _numbers(row: Mapping[str, Any]) -> dict[str, float]:
    values = {key: row.get(key) for key in AXES}
    return {key: float(v) for key, v in values.items() if v is not None and not pd.isna(v)}


def _colours(regimes: Any) -> dict[str, str]:
    used = set(regimes)
    return {regime: colour for regime, (colour, _) in REGIMES.items() if regime in used}


def map_() -> dict[str, Any]:
    """What the map needs: its points, its axes, and what noise or chance would give."""
    axes = {}
    for key, log in AXES.items():
        known = FACTS.get(key)
        if known is None:
            of = quantity(key)
            chance = of.chance and not of.chance[0].isalpha()
            known = {"label": of.label, "percent": of.scale > 1} | ({"chance": float(of.chance)} if chance else {})
        axes[key] = known | {"log": log}
    rows = points()
    sets = [*dict.fromkeys(row["set"] for row in rows)]
    shapes = {name: SHAPES[i % len(SHAPES)] for i, name in enumerate(s for s in sets if s != PAPER)}
    found = {"quantities": axes, "points": rows, "curve": curve(), "shapes": shapes | {PAPER: "diamond"}}
    return found | {"colours": _colours(row["regime"] for row in rows)}


def pair() -> dict[str, Any]:
    """What the comparison in the page needs: the words of tensor names, and the paper's rows."""
    keys = ["rel_norm", "exact_zero", "sparsity.1e-06", "sparsity.1e-05", "sparsity.1e-04", "sparsity_rms.1e-03"]
    rows = [{k: v for k, v in row.items() if not pd.isna(v)} for row in paper.wide(keys).to_dict("records")]
    words = {
        "prefixes": names.PREFIXES,
        "parents": names.PARENTS,
        "layers": names.LAYER_WORDS,
        "vision": names.VISION_WORDS,
        "order": names.BLOCKS,
        "blocks": {word: block for block, of in names.MODULES.items() for word in of},
    }
    return {"names": words, "paper": rows}


# The pictures that stand in.


def draw_slider(data: Mapping[str, Any], file: Path) -> None:
    """The unchanged share against the norm: the null as a curve, the runs as points."""
    with plt.style.context(STYLE):
        figure, ax = plt.subplots()
        ax.plot(100 * NORMS, 100 * np.array(curve()["exact_zero"]), "--", color="black", lw=1.4, label="noise, rounded")
        for regime, colour in data["colours"].items():
            own = [run for run in data["runs"] if run["regime"] == regime]
            x, y = ([100 * run[key] for run in own] for key in ("norm", "unchanged"))
            ax.plot(x, y, REGIMES[regime][1], color=colour, mec="white", label=regime)
        _finish(figure, ax, file, "relative norm of the update, fp32 (%)", "unchanged weights, bf16 (%)")


def draw_map(data: Mapping[str, Any], file: Path) -> None:
    """The unchanged share against the norm of every point."""
    with plt.style.context(STYLE):
        figure, ax = plt.subplots()
        ax.plot(100 * NORMS, 100 * np.array(curve()["exact_zero"]), "--", color="black", lw=1.4, label="noise, rounded")
        for regime, colour in data["colours"].items():
            for published in (False, True):
                own = [p for p in data["points"] if p["regime"] == regime and (p["set"] == PAPER) == published]
                x, y = ([100 * p[key] for p in own] for key in ("rel_norm", "exact_zero"))
                marker, size, edge = ("D", 8, "black") if published else ("o", 5, "white")
                label = "" if published else regime
                ax.plot(x, y, marker, ms=size, mec=edge, color=colour, label=label)
        _finish(figure, ax, file, quantity("rel_norm").axis, quantity("exact_zero").axis)


def _finish(figure: Any, ax: Any, file: Path, x: str, y: str) -> None:
    ax.set(xscale="log", xlim=(1e-3, 300), ylim=(-2, 102), xlabel=x, ylabel=y)
    legend_above(ax)
    with plt.rc_context({"svg.fonttype": "none", "svg.hashsalt": "opdlib"}):
        figure.savefig(file, metadata={"Date": None, "Creator": None})
    plt.close(figure)


# The commands.


def write_source() -> None:
    """Count the weights of the embedded source: tensor -> by binade, one after the other, its exponent bits, how many
    lie at its lower end, and how many others it has."""
    source = open_checkpoint(find_pair(DEFAULT).source)
    found = {}
    for name in open_results(DEFAULT).tensors["tensor"]:
        bits = raw_bits(view_of(source.read(name), "bf16")) & 0x7FFF
        counts = np.bincount(bits, minlength=1 << 15).reshape(-1, 128)
        held = np.flatnonzero(counts.sum(axis=1))
        found[name] = np.stack([held, counts[held, 0], counts[held, 1:].sum(axis=1)], axis=1).ravel().tolist()
    lines = (f"{json.dumps(name)}: {json.dumps(row, separators=(',', ':'))}" for name, row in found.items())
    HISTOGRAM.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf8")


def write_data(folder: Path) -> None:
    """Every part's data as a script, because a page that is a file may not fetch, and its picture."""
    made = {"slider": slider(), "map": map_(), "pair": pair()}
    for name, data in made.items():
        text = json.dumps(data, separators=(",", ":"), allow_nan=False)
        script = f"window.opdlib = window.opdlib || {{}};\nopdlib.{name}Data = {text};\n"
        (folder / f"{name}_data.js").write_text(script, encoding="utf8")
    draw_slider(made["slider"], folder / "slider.svg")
    draw_map(made["map"], folder / "map.svg")


def main(arguments: Sequence[str]) -> None:
    """Run one command."""
    match arguments:
        case ["data", root]:
            write_data(Path(root) / "book" / "_static")
        case ["source"]:
            write_source()
        case _:
            raise SystemExit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
