"""Several runs at once on one machine, each in a process of its own: trained on its GPU, measured on its CPUs.

A run begins when everything that it stands on is complete (its teacher, the owner of its mask), in the order of the
study's priorities. What a process prints goes to a log beside its run folder.
"""

import os
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from opdlib.checkpoints.series import COMPLETE
from opdlib.registry.recipes import check_recipe, load_recipe
from opdlib.registry.study import RUNS, Arm, Scale
from opdlib.results.collect import collect
from opdlib.train.parents import Run, plan

Command = Callable[[Run], Sequence[str]]
"""From a run to the command line that trains and measures it, or goes on with it."""


def trained_and_measured(run: Run) -> Sequence[str]:
    """`opd train`, on the CPU where it measures."""
    return run.command("--device", "cpu")


@dataclass(frozen=True)
class Ended:
    """A run that is over."""

    name: str
    """Of its folder."""
    failed: bool
    """Its process failed, or what it stands on did, so that it could not begin."""
    log: Path
    """Of the process that says why."""


def run_parallel(
    scale: Scale,
    chosen: Sequence[tuple[str, int]],
    out: Path,
    at_once: int,
    runs: Path = RUNS,
    from_scratch: bool = False,
    command: Command = trained_and_measured,
) -> Iterator[Ended]:
    """Make these runs (arm, seed) and what they stand on, never more than `at_once` (>= 1) at a time; each as it ends.

    The rows of a chosen run are added to the tables in `out`/<scale> before it is given. When this is left early, the
    processes are ended; the same call goes on. With `from_scratch` no weights are taken that travel with opdlib.
    """
    own = {scale.arms[arm].folder(seed, runs): (arm, seed) for arm, seed in chosen}
    waiting = _with_ancestors(_planned(scale.arms[arm], seed, runs, from_scratch) for arm, seed in chosen)
    running: dict[Path, subprocess.Popen[bytes]] = {}
    failed: dict[Path, Path] = {}
    with ExitStack() as stack:
        stack.callback(_stop, running)
        while waiting or running:
            for folder in [folder for folder, process in running.items() if process.poll() is not None]:
                if running.pop(folder).returncode:
                    failed[folder] = log_of(folder)
                elif folder in own:
                    collect(scale, out, runs, [own[folder]])
                yield Ended(folder.name, folder in failed, log_of(folder))
            for folder, run in [*waiting.items()]:
                above = [ancestor.folder for ancestor in run.ancestors()]
                if broken := [failed[other] for other in above if other in failed]:
                    del waiting[folder]
                    failed[folder] = broken[0]
                    yield Ended(folder.name, True, broken[0])
                elif len(running) < at_once and all((other / COMPLETE).exists() for other in above):
                    del waiting[folder]
                    running[folder] = _start(run, command, at_once)
            time.sleep(POLL)


POLL = 0.05
"""Seconds between two looks at the processes."""


def log_of(folder: Path) -> Path:
    """Where the process of a run in `folder` writes what it prints."""
    return folder.with_name(f"{folder.name}.log")


def _planned(arm: Arm, seed: int, runs: Path, from_scratch: bool) -> Run:
    recipe = check_recipe(load_recipe(arm.recipe).model_dump(exclude_none=True) | {"seed": seed}, str(arm.recipe))
    return plan(arm.recipe, recipe, arm.folder(seed, runs), from_scratch)


def _with_ancestors(planned: Iterator[Run]) -> dict[Path, Run]:
    """By folder: what is to be run, each after all that it stands on. An ancestor that is complete is left out."""
    found: dict[Path, Run] = {}
    for run in planned:
        for each in run.ancestors():
            if not (each.folder / COMPLETE).exists():
                found.setdefault(each.folder, each)
        found.setdefault(run.folder, run)
    return found


def _start(run: Run, command: Command, at_once: int) -> subprocess.Popen[bytes]:
    """The process of a run. The cores are shared out, unless the user has said how many threads there are."""
    threads = str(max(1, (os.cpu_count() or 1) // at_once))
    environment = {"OMP_NUM_THREADS": threads, "NUMBA_NUM_THREADS": threads, "TQDM_DISABLE": "1"} | os.environ
    log_of(run.folder).parent.mkdir(parents=True, exist_ok=True)
    with log_of(run.folder).open("ab") as log:
        return subprocess.Popen(command(run), env=environment, stdout=log, stderr=subprocess.STDOUT)


def _stop(running: dict[Path, subprocess.Popen[bytes]]) -> None:
    """End what still runs when this is left early; a run goes on from its last checkpoint."""
    for process in running.values():
        process.terminate()
    for process in running.values():
        process.wait()
