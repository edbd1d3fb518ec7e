"""What `opd` does in the training laboratory: score, train, run the study."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from opdlib.cli.process import left_to_the_child
from opdlib.cli.shares import Whole, Wholes
from opdlib.errors import OutputError, ParameterError, StudyError

if TYPE_CHECKING:
    from opdlib.registry.study import Scale


ANSWERS = b"evaluated,"
"""How a table of answers begins."""


def evaluate(
    checkpoint: str, /, *, tasks: str = "arithmetic", seed: Whole = 0, answers: Path | None = None, json: bool = False
) -> None:
    """Score a checkpoint on held-out problems.

    example: opd evaluate runs/train/pico-opd-s0/bf16 --json

    Args:
        tasks: which problems; a recipe's, if it is a YAML file
        seed: draws the held-out problems (default: 0)
        answers: ask every held-out problem, and write what the model says to each as CSV
    """
    if answers is not None and answers.exists() and not _holds_answers(answers):
        raise OutputError(f"{answers}: is in the way, it holds no answers; give a new file")
    from opdlib.files import write_file
    from opdlib.results.layout import csv_text
    from opdlib.train import evaluate

    if answers is None:
        found, whole = evaluate.evaluate(checkpoint, task=tasks, seed=seed), None
    else:
        said, first = evaluate.answers(checkpoint, task=tasks, seed=seed), evaluate.EVALUATED
        found, whole = (evaluate.counted(part, evaluate.asked_task(tasks).name, seed) for part in (said[:first], said))
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


def _holds_answers(file: Path) -> bool:
    if not file.is_file():
        return False
    with file.open("rb") as stream:
        return stream.read(len(ANSWERS)) == ANSWERS


def train(
    recipe: str,
    /,
    *,
    out: Path | None = None,
    max_steps: Whole | None = None,
    seed: Whole | None = None,
    resume: bool = False,
    from_scratch: bool = False,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    json: bool = False,
) -> None:
    """Train one recipe and measure what came out.

    example: opd train pico-opd

    Args:
        recipe: a YAML file, or the name of one that opdlib has
        out: run folder (default: runs/train/NAME-sSEED, below runs/train as the recipe lies below data/recipes)
        max_steps: stop early, for a trial
        seed: instead of the recipe's seed
        resume: go on with a run that was stopped
        from_scratch: train what it stands on again, too
        device: measures what came out: auto, cpu or cuda (default: auto)
        json: where the run and its results are, as JSON
    """
    from opdlib.train import arithmetic
    from opdlib.train.parents import prepared

    # Before torch is loaded: most of what is wrong is told at once, and torch reads only then how to compute.
    asked = prepared(recipe, out, {"steps": max_steps, "seed": seed}, resume, from_scratch)
    arithmetic.choose(asked.recipe.kernels)
    from opdlib.measurement.cores import device_of
    from opdlib.study.runner import measure_run
    from opdlib.train import run
    from opdlib.train.processes import first

    device_of(device)
    folder = run.train(asked.path, out, max_steps, seed, resume, from_scratch)
    if first():
        measure_run(asked.path, folder, device)
        facts = {"run": str(folder), "results": str(folder / "results")}
        print(dumps(facts, indent=1) if json else f"run complete: {folder}")


def study(
    scale: str,
    /,
    *,
    arms: tuple[str, ...] = (),
    seeds: Wholes = (),
    out: Path = Path("runs/study"),
    list: bool = False,
    collect: bool = False,
    overlaps: bool = False,
    repeat: tuple[str, ...] = (),
    from_scratch: bool = False,
    score: bool = False,
    surgery: bool = False,
    along: bool = False,
    parallel: Whole | None = None,
    json: bool = False,
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
        json: the lines that are printed as JSON, once all is done
    """
    from opdlib.registry.study import find_scale

    chosen = find_scale(scale)
    if parallel is not None and parallel < 1:
        raise ParameterError(f"--parallel {parallel}; wanted a number of runs from 1 up")
    if parallel is not None and along:
        raise ParameterError("--along with --parallel: these runs are made one at a time; leave --parallel out")
    asked = {"--collect": collect, "--overlaps": overlaps, "--repeat": repeat, "--score": score, "--surgery": surgery}
    made = {"--list": list, "--along": along, "--parallel": parallel, "--from-scratch": from_scratch and not repeat}
    _one_thing([option for option, on in asked.items() if on], [option for option, on in made.items() if on])
    if (overlaps or repeat) and (arms or seeds):
        raise ParameterError(
            f"{'--overlaps' if overlaps else '--repeat'} takes no --arms and no --seeds; leave them out"
        )
    if collect or overlaps:
        said = _collected(chosen, out, overlaps, arms, seeds)
    elif repeat:
        from opdlib.study import repeat as repeating

        said = repeating.repeat(chosen, repeat, from_scratch)
    elif score or surgery:
        said = _asked(chosen, out, surgery, arms, seeds)
    else:
        said = _made(chosen, out, arms, seeds, list, from_scratch, along, parallel)
    if json:
        print(dumps({"scale": chosen.name, "said": [*said]}, indent=1))
        return
    for line in said:
        print(line, flush=True)


def _one_thing(asked: Sequence[str], made: Sequence[str]) -> None:
    """Raises ParameterError for options that exclude each other."""
    if len(asked) > 1 or (asked and made):
        first, second = (*asked, *made)[:2]
        raise ParameterError(f"{first} with {second}: a command does one of them; leave one out")


def _collected(scale: Scale, out: Path, overlaps: bool, arms: tuple[str, ...], seeds: tuple[int, ...]) -> Iterator[str]:
    """Take in what was measured, or write what runs have in common."""
    if overlaps:
        from opdlib.study.overlaps import write_overlaps

        write_overlaps(scale, out)
        yield f"{scale.name}: overlaps and masks in {out / scale.name}"
    else:
        from opdlib.results.collect import collect
        from opdlib.results.missing import chosen

        taken = collect(scale, out, chosen=chosen(scale, arms, seeds))
        yield f"{scale.name}: {len(taken)} runs in {out / scale.name}"


def _made(
    scale: Scale,
    out: Path,
    arms: tuple[str, ...],
    seeds: tuple[int, ...],
    only_list: bool,
    from_scratch: bool,
    along: bool,
    parallel: int | None,
) -> Iterator[str]:
    """Train and measure what is missing. Raises StudyError if a run of several at once failed."""
    from opdlib.results.missing import missing, missing_along

    runs = (missing_along if along else missing)(scale, out, arms, seeds)
    yield f"{scale.name}: {len(runs)} runs to do"
    if only_list:
        yield from (scale.arms[arm].key(seed) for arm, seed in runs)
    elif parallel:
        from opdlib.study.parallel import run_parallel

        failed = []
        for ended in run_parallel(scale, runs, out, parallel, from_scratch=from_scratch):
            yield f"{ended.name}: failed, see {ended.log}" if ended.failed else ended.name
            failed += [ended] if ended.failed else []
        if failed:
            raise StudyError(f"{len(failed)} runs failed, the first is {failed[0].name}: see {failed[0].log}")
    else:
        for arm, seed in runs:
            yield from _run_study_arm(scale, arm, seed, out, from_scratch, along)


def _run_study_arm(scale: Scale, arm: str, seed: int, out: Path, from_scratch: bool, along: bool) -> Iterator[str]:
    """Here, or in a process of its own if this one has loaded torch and computes with other kernels."""
    from opdlib.registry.recipes import load_recipe
    from opdlib.train import arithmetic

    kernels = load_recipe(scale.arms[arm].recipe).kernels
    if "torch" in sys.modules and not arithmetic.computes_with(kernels):
        said = {"--from-scratch": from_scratch, "--along": along}
        chosen = "--arms", arm, "--seeds", str(seed), *(option for option, there in said.items() if there)
        command = [sys.executable, "-m", "opdlib", "study", scale.name, *chosen, "--out", str(out)]
        with left_to_the_child():
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        if code := done.returncode:
            raise SystemExit(code if code in (130, 143) else 2)  # it has said why
        yield from done.stdout.splitlines()[-1:]
        return
    arithmetic.choose(kernels)
    from opdlib.study.along import run_along
    from opdlib.study.runner import run_arm

    make = run_along if along else run_arm
    yield make(scale, arm, seed, out, from_scratch=from_scratch)


def _asked(scale: Scale, out: Path, surgery: bool, arms: tuple[str, ...], seeds: tuple[int, ...]) -> Iterator[str]:
    """Write the scale's answers or its surgery, with the kernels of full OPD, of the arms that compute with these."""
    from opdlib.registry.recipes import load_recipe
    from opdlib.registry.study import FULL
    from opdlib.results.missing import chosen
    from opdlib.train import arithmetic

    runs = chosen(scale, arms, seeds)
    kernels = {name: load_recipe(arm.recipe).kernels for name, arm in scale.arms.items()}
    alike = {name: arm for name, arm in scale.arms.items() if kernels[name] == kernels[FULL]}
    if others := [*dict.fromkeys(arm for arm, _ in runs if arm not in alike)]:
        yield f"{scale.name}: left out, with other kernels than {FULL}: {', '.join(others)}"
    scale = scale.model_copy(update={"arms": alike})
    arithmetic.choose(kernels[FULL])  # before torch is loaded
    if surgery:
        from opdlib.study.surgery import write_surgery

        yield from write_surgery(scale, out, arms=arms, seeds=seeds)
        yield f"{scale.name}: surgery in {out / scale.name}"
    else:
        from opdlib.study.answers import write_answers

        done = write_answers(scale, out, chosen=[run for run in runs if run[0] in alike])
        yield f"{scale.name}: {len(done)} runs asked; answers in {out / scale.name}"
