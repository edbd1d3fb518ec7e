"""A run of the study once more, its weights measured every few steps and then dropped: table `along`.

Measuring changes no bit of the training. The run lies beside that of the study, in `along-<name>`:

| folder in it | what is in it |
| --- | --- |
| `steps/N/` | float32 weights of the last two measured steps, which the next is compared with |
| `along/N/` | what was measured of step N (`opdlib.results.trajectory`) |
"""

import math
import shutil
from collections.abc import Sequence
from pathlib import Path

from opdlib.checkpoints import open_checkpoint
from opdlib.checkpoints.checkpoint import Checkpoint
from opdlib.checkpoints.series import COMPLETE
from opdlib.errors import RegistryError
from opdlib.foreign import read_object
from opdlib.measurement.align import VIEWS
from opdlib.registry.study import RUNS, Scale
from opdlib.results.collect import add_rows
from opdlib.results.study import PLACE, StudyResults
from opdlib.results.trajectory import is_measured, measure_last, trajectory
from opdlib.study.runner import planned_run
from opdlib.train.run import source_of, threads, train

EVERY = 10
"""Updates between two measured steps."""


def run_along(
    scale: Scale,
    arm: str,
    seed: int,
    out: Path,
    runs: Path = RUNS,
    *,
    every: int = EVERY,
    max_steps: int | None = None,
    from_scratch: bool = False,
) -> str:
    """Train and measure one run on its way, or go on with it, and add its rows to `along` in `out`/<scale>; the name of
    its folder.

    A kill costs the updates since the last checkpoint, and the measures of one step. Raises RegistryError, with nothing
    written, if the run ends at other weights than those of the same arm and seed in the tables.
    """
    chosen = scale.arms[arm]
    folder = chosen.folder(seed, runs)
    folder = folder.with_name(f"along-{folder.name}")
    train(chosen.recipe, folder, max_steps, seed, resume=True, from_scratch=from_scratch, keep=(every, _measure))
    done = read_object(folder / COMPLETE, RegistryError, "train it again")
    _check_same(StudyResults(scale.name, out / scale.name), arm, seed, done["steps"], done["digests"]["fp32"])
    if not is_measured(folder / "along", done["steps"]):
        source, last = source_of(planned_run(chosen.recipe, folder)), open_checkpoint(str(folder / "fp32"))
        measure_last(source, [*_kept(folder), (done["steps"], last)], folder / "along")
    rows = []
    for view in VIEWS:
        for row in trajectory(folder / "along", view):
            place = dict(zip(PLACE, (arm, seed, view, row.pop("step")), strict=True))
            rows.append(place | {key: None if math.isnan(value) else f"{value:.8g}" for key, value in row.items()})
    add_rows(scale, out / scale.name, {"along": rows})
    shutil.rmtree(folder / "steps", ignore_errors=True)
    return folder.name


def _measure(source: Checkpoint, weights: Path) -> None:
    """Measure the weights of a step, and drop those that no later step is compared with."""
    run, step = weights.parents[1], int(weights.name)
    for later in (number for number, _ in _kept(run) if number > step):  # of a run that was killed, and goes on before
        shutil.rmtree(run / "steps" / str(later))
    if not is_measured(run / "along", step):
        with threads(None):  # measuring leaves torch with one
            measure_last(source, _kept(run), run / "along")
    for old, _ in _kept(run)[:-2]:
        shutil.rmtree(run / "steps" / str(old))


def _kept(run: Path) -> Sequence[tuple[int, Checkpoint]]:
    """The steps whose weights are here, ascending."""
    numbers = sorted(int(folder.name) for folder in run.glob("steps/[0-9]*"))
    return [(number, open_checkpoint(str(run / "steps" / str(number)))) for number in numbers]


def _check_same(known: StudyResults, arm: str, seed: int, steps: int, digest: str) -> None:
    rows = known.runs
    same = rows[(rows["arm"] == arm) & (rows["seed"] == seed) & (rows["steps"] == steps)] if len(rows) else rows
    for other in same["digest.fp32"] if len(same) else ():
        if other != digest:
            raise RegistryError(
                f"{known.scale}-{arm}-s{seed}: ended at float32 weights {digest[:12]}, the run in {known.folder} at "
                f"{other[:12]}; it is another training, so nothing was written. Make both on one machine, with one code"
            )
