"""What `opd` does in the training laboratory: score, train, run the study."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import asdict
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING

from opdlib.errors import ParameterError, StudyError

if TYPE_CHECKING:
    from opdlib.registry.study import Scale


def evaluate(
    checkpoint: str, /, *, tasks: str = "arithmetic", seed: int = 0, answers: Path | None = None, json: bool = False
) -> None:
    """Score a checkpoint on held-out problems.

    example: opd evaluate patch:data/patches/smollm2-opd.safetensors --json

    Args:
        tasks: which problems
        seed: draws the held-out problems (default: 0)
        answers: ask every held-out problem, and write what the model says to each as CSV
    """
    from opdlib.files import write_file
    from opdlib.results.layout import csv_text
    from opdlib.train import evaluate

    if answers is None:
        found, whole = evaluate.evaluate(checkpoint, task=tasks, seed=seed), None
    else:
        said, first = evaluate.answers(checkpoint, task=tasks, seed=seed), evaluate.EVALUATED
        found, whole = (evaluate.counted(part, tasks, seed) for part in (said[:first], said))
        rows = [{"evaluated": int(i < first), **asdict(a), "correct": int(a.correct)} for i, a in enumerate(said)]
        write_file(answers, csv_text(rows))
    if json:
        print(dumps(asdict(found) | ({"all": asdict(whole)} if whole else {}), indent=1))
        return
    for each in (found, whole):
        if each is not None:
            low, high = each.interval
            readable = f"{each.accuracy:.1%} of {each.n} held-out problems, 95% interval {low:.1%} to {high:.1%}"
            print(f"{checkpoint}: {readable}")


def train(
    recipe: Path,
    /,
    *,
    out: Path | None = None,
    max_steps: int | None = None,
    seed: int | None = None,
    resume: bool = False,
    from_scratch: bool = False,
    device: str = "auto",
) -> None:
    """Train one recipe and measure what came out.

    example: opd train data/recipes/smollm2-opd.yaml

    Args:
        out: run folder (default: runs/train/NAME-sSEED)
        max_steps: stop early, for a trial
        seed: instead of the recipe's seed
        resume: go on with a run that was stopped
        from_scratch: train what it stands on again, too
        device: measures what came out: auto, cpu or cuda (default: auto)
    """
    from opdlib.registry.recipes import load_recipe
    from opdlib.train import arithmetic

    arithmetic.choose(load_recipe(recipe).kernels)  # before torch is loaded
    from opdlib.study.runner import measure_run
    from opdlib.train import run
    from opdlib.train.processes import first

    folder = run.train(recipe, out, max_steps, seed, resume, from_scratch)
    if first():
        measure_run(recipe, folder, device)
        print(f"run complete: {folder}")


def study(
    scale: str,
    /,
    *,
    arms: tuple[str, ...] = (),
    seeds: tuple[int, ...] = (),
    out: Path = Path("runs/study"),
    list: bool = False,
    collect: bool = False,
    overlaps: bool = False,
    repeat: tuple[str, ...] = (),
    from_scratch: bool = False,
    score: bool = False,
    surgery: bool = False,
    along: bool = False,
    parallel: int | None = None,
) -> None:
    """Run what is missing of the study, one run at a time or several.

    example: opd study pico --arms opd offline

    Args:
        scale: such as pico or smollm2; data/study.yaml has their arms
        arms: only these
        seeds: only these
        out: where the tables are, in a folder named like the scale
        list: say what is missing and stop
        collect: run nothing; add the measured runs in runs/train
        overlaps: run nothing; write what runs changed in common
        repeat: train these runs again; say if they end at the committed weights
        from_scratch: train what runs stand on again, too
        score: train nothing; ask the runs in runs/train every held-out problem
        surgery: train nothing; score parts of the updates of a few runs in runs/train
        along: train runs once more and measure them every 10 updates (default: opd, rlvr and offline, seed 0)
        parallel: so many runs at once, measured on the CPU, each with a log beside its folder
    """
    from opdlib.registry.study import find_scale

    chosen = find_scale(scale)
    if parallel is not None and parallel < 1:
        raise ParameterError(f"--parallel {parallel}; wanted a number of runs from 1 up")
    if parallel is not None and along:
        raise ParameterError("--along with --parallel: these runs are made one at a time; leave --parallel out")
    if collect:
        from opdlib.results.collect import collect as take_in

        print(f"{chosen.name}: {len(take_in(chosen, out))} runs in {out / chosen.name}")
        return
    if overlaps:
        from opdlib.study.overlaps import write_overlaps

        write_overlaps(chosen, out)
        print(f"{chosen.name}: overlaps and masks in {out / chosen.name}")
        return
    if repeat:
        from opdlib.study.repeat import repeat as train_again

        for line in train_again(chosen, repeat, from_scratch):
            print(line, flush=True)
        return
    if score or surgery:
        _ask(chosen, out, surgery, arms, seeds)
        return
    from opdlib.results.missing import missing, missing_along

    runs = (missing_along if along else missing)(chosen, out, arms, seeds)
    print(f"{chosen.name}: {len(runs)} runs to do", flush=True)
    if parallel and not list:
        from opdlib.study.parallel import run_parallel

        failed = []
        for ended in run_parallel(chosen, runs, out, parallel, from_scratch=from_scratch):
            print(f"{ended.name}: failed, see {ended.log}" if ended.failed else ended.name, flush=True)
            failed += [ended] if ended.failed else []
        if failed:
            raise StudyError(f"{len(failed)} runs failed, the first is {failed[0].name}: see {failed[0].log}")
        return
    for arm, seed in runs:
        if list:
            print(chosen.arms[arm].key(seed))
        else:
            _run_study_arm(chosen, arm, seed, out, from_scratch, along)


def _run_study_arm(scale: Scale, arm: str, seed: int, out: Path, from_scratch: bool, along: bool) -> None:
    """Here, or in a process of its own if this one has loaded torch and computes with other kernels."""
    from opdlib.registry.recipes import load_recipe
    from opdlib.train import arithmetic

    kernels = load_recipe(scale.arms[arm].recipe).kernels
    if "torch" in sys.modules and not arithmetic.computes_with(kernels):
        said = {"--from-scratch": from_scratch, "--along": along}
        chosen = "--arms", arm, "--seeds", str(seed), *(option for option, there in said.items() if there)
        command = [sys.executable, "-m", "opdlib.cli", "study", scale.name, *chosen, "--out", str(out)]
        if subprocess.run(command, check=False).returncode:
            raise SystemExit(2)  # it has said why
        return
    arithmetic.choose(kernels)
    from opdlib.study.along import run_along
    from opdlib.study.runner import run_arm

    make = run_along if along else run_arm
    print(make(scale, arm, seed, out, from_scratch=from_scratch), flush=True)


def _ask(scale: Scale, out: Path, surgery: bool, arms: tuple[str, ...], seeds: tuple[int, ...]) -> None:
    """Write the scale's answers or its surgery, with the kernels of full OPD, of the arms that compute with these."""
    from opdlib.registry.recipes import load_recipe
    from opdlib.registry.study import FULL
    from opdlib.train import arithmetic

    kernels = {name: load_recipe(arm.recipe).kernels for name, arm in scale.arms.items()}
    alike = {name: arm for name, arm in scale.arms.items() if kernels[name] == kernels[FULL]}
    scale = scale.model_copy(update={"arms": alike})
    arithmetic.choose(kernels[FULL])  # before torch is loaded
    if surgery:
        from opdlib.study.surgery import write_surgery

        for line in write_surgery(scale, out, arms=arms, seeds=seeds):
            print(line, flush=True)
        print(f"{scale.name}: surgery in {out / scale.name}")
        return
    from opdlib.study.answers import write_answers

    print(f"{scale.name}: {len(write_answers(scale, out))} runs asked; answers in {out / scale.name}")
