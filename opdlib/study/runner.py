"""Where training and measuring meet: a run is trained, measured in its own folder, and its numbers are collected."""

from pathlib import Path
from typing import Any

from opdlib.checkpoints import open_checkpoint
from opdlib.checkpoints.series import COMPLETE
from opdlib.errors import RegistryError
from opdlib.foreign import read_value
from opdlib.registry.recipes import load_recipe
from opdlib.registry.study import RUNS, Scale
from opdlib.results.collect import collect
from opdlib.results.layout import is_whole
from opdlib.results.measure import Order, measure_into, measure_together, scales_of, settle
from opdlib.train.parents import Run, plan
from opdlib.train.run import source_of, train
from opdlib.train.run_folder import AGAIN

MASTERS = "float32 master weights of our own run: not re-measurable from the patch"


def measure_run(recipe_path: Path, folder: Path, device: str = "auto") -> None:
    """Measure the complete run in `folder` against its source, whatever is not measured yet, on a device of
    `opdlib.measurement.schedule.measure_all`. Raises RegistryError if the source is not what it was trained from.

    | folder in it | what is measured |
    | --- | --- |
    | `results/` | the rounded checkpoint, view bf16 |
    | `results/stored/` | the float32 master weights, as they are stored |
    | `results/steps/N/` | the weights kept after step N, view bf16 |
    """
    run = planned_run(recipe_path, folder)
    source, name = source_of(run), f"{run.recipe.name}-s{run.recipe.seed}"
    began = read_value(folder / COMPLETE, RegistryError, AGAIN, "digests", "source")
    if (found := source.digest()) != began:
        raise RegistryError(
            f"{folder}: was trained from weights {began[:12]}, and {source.spec} has {found[:12]}; put the former "
            "back, or train the run again"
        )
    options: dict[str, Any] = {"device": device, "progress": None}
    if not is_whole(folder / "results" / "stored"):
        masters = open_checkpoint(str(folder / "fp32"))
        measure_into(folder / "results/stored", source, masters, name=name, view="stored", note=MASTERS, **options)
    rounded = open_checkpoint(str(folder / "bf16"))
    kept = sorted(folder.glob("steps/[0-9]*"), key=lambda path: int(path.name))
    orders = [
        *(Order(name, open_checkpoint(str(path)), folder=folder / "results/steps" / path.name) for path in kept),
        Order(name, rounded, scales=scales_of(folder / "results/stored"), folder=folder / "results"),
    ]
    unmeasured = [order for order in orders if not is_whole(order.folder)]
    if unmeasured:
        measure_together(source, unmeasured, view="bf16", **options)
    for place in (folder / "results/stored", *(order.folder for order in orders)):
        settle(place)


def run_arm(scale: Scale, arm: str, seed: int, out: Path, runs: Path = RUNS, from_scratch: bool = False) -> str:
    """Train one run (or go on with it), measure it in its folder and add its rows to the tables in `out`; its key."""
    chosen = scale.arms[arm]
    folder = chosen.folder(seed, runs)
    train(chosen.recipe, out=folder, seed=seed, resume=True, from_scratch=from_scratch)
    measure_run(chosen.recipe, folder)
    collect(scale, out, runs, [(arm, seed)])
    return chosen.key(seed)


def planned_run(recipe_path: Path, folder: Path) -> Run:
    """The run that the folder holds, as it was planned."""
    return plan(recipe_path, load_recipe(folder / "recipe.yaml"), folder)
