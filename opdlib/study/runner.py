"""Where training and measuring meet: a run is trained, measured into its own folder, and what is small is kept."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from opdlib.checkpoints import open_checkpoint
from opdlib.errors import RegistryError
from opdlib.files import write_together
from opdlib.registry.recipes import load_recipe
from opdlib.registry.study import RUNS, Scale
from opdlib.results.layout import PROVENANCE, SUMMARY
from opdlib.results.measure import Order, measure_into, measure_together
from opdlib.train.parents import Run, plan
from opdlib.train.run import source_of, train

MASTERS = "float32 master weights of our own run: not re-measurable from the patch"
CURVE = (
    *("step", "loss", "grad_norm", "entropy", "reward", "num_tokens", "seconds"),
    *("gradient_norm", "update_norm", "distance", "changed", "momentum_cosine", "second_moment_cv"),
    *("accuracy", "low", "high", "n"),
)
"""Columns of training/curve.csv: one row a step, empty where nothing was logged. See `opdlib.train.probes`."""
TRAINING = ("recipe.yaml", "environment.json", "evaluation.json", "complete.json")
DONE = Path("training") / "complete.json"
"""Written last of a run's results."""


def measure_run(recipe_path: Path, folder: Path) -> None:
    """Measure the complete run in `folder` against its source, whatever is not measured yet.

    | folder in it | what is measured |
    | --- | --- |
    | `results/` | the rounded checkpoint, view bf16 |
    | `results/stored/` | the float32 master weights, as they are stored |
    | `results/steps/N/` | the weights kept after step N, view bf16 |
    """
    run = _run(recipe_path, folder)
    source, name = source_of(run), f"{run.recipe.name}-s{run.recipe.seed}"
    if not (folder / "results" / "stored" / SUMMARY).is_file():
        masters = open_checkpoint(str(folder / "fp32"))
        measure_into(folder / "results/stored", source, masters, name=name, view="stored", note=MASTERS, progress=None)
    kept = sorted(folder.glob("steps/[0-9]*"), key=lambda path: int(path.name))
    orders = [
        *(Order(folder / "results/steps" / path.name, name, open_checkpoint(str(path))) for path in kept),
        Order(folder / "results", name, open_checkpoint(str(folder / "bf16"))),
    ]
    unmeasured = [order for order in orders if not (order.folder / SUMMARY).is_file()]
    if unmeasured:
        measure_together(source, unmeasured, view="bf16", progress=None)


def keep(folder: Path, destination: Path) -> None:
    """Copy what is small and cannot be had again without training from a measured run into `destination`.

    Of every measurement the summary and the provenance; of the training its recipe, environment, scores, digests and
    the curve of every step.
    """
    results = folder / "results"
    for summary in sorted(results.rglob(SUMMARY)):
        place = destination / summary.parent.relative_to(results)
        place.mkdir(parents=True, exist_ok=True)
        for name in (PROVENANCE, SUMMARY):
            shutil.copyfile(summary.with_name(name), place / name)
    files: dict[str, str | bytes] = {name: (folder / name).read_bytes() for name in TRAINING}
    write_together(destination / "training", files | {"curve.csv": _curve(folder)}, last="complete.json")


def missing(
    scale: Scale, results: Path, arms: Sequence[str] = (), seeds: Sequence[int] = ()
) -> Iterator[tuple[str, int]]:
    """Arm and seed of every run without results in `results`, seed by seed, so that every arm has its first early.

    `arms` and `seeds` choose; empty: all. Raises RegistryError for an arm that the scale does not have.
    """
    unknown = set(arms) - set(scale.arms)
    if unknown:
        raise RegistryError(f"scale {scale.name}: no arm {min(unknown)!r}; choose among: {', '.join(scale.arms)}")
    for seed in range(max(arm.seeds for arm in scale.arms.values())):
        for arm in scale.arms.values():
            wanted = (not arms or arm.name in arms) and (not seeds or seed in seeds)
            if wanted and seed < arm.seeds and not (results / arm.key(seed) / DONE).is_file():
                yield arm.name, seed


def run_arm(scale: Scale, arm: str, seed: int, results: Path, runs: Path = RUNS) -> Path:
    """Train one run (or go on with it), measure it and keep its small results in `results`/<key>; that folder."""
    chosen = scale.arms[arm]
    folder = runs / chosen.key(seed)
    train(chosen.recipe, out=folder, seed=seed, resume=True)
    measure_run(chosen.recipe, folder)
    keep(folder, results / chosen.key(seed))
    return results / chosen.key(seed)


def _run(recipe_path: Path, folder: Path) -> Run:
    return plan(recipe_path, load_recipe(folder / "recipe.yaml"), folder)


def _curve(folder: Path) -> str:
    rows = {row["step"]: row for row in _lines(folder / "metrics.jsonl")}
    for row in _lines(folder / "probes.jsonl"):
        low, high = row.pop("interval", (None, None))
        rows[row["step"]] |= {**row, "low": low, "high": high}
    stream = io.StringIO()
    writer = csv.DictWriter(stream, fieldnames=CURVE, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows.values())
    return stream.getvalue()


def _lines(file: Path) -> list[dict[str, Any]]:
    if not file.is_file():
        return []
    return [json.loads(line) for line in file.read_text(encoding="utf8").splitlines()]
