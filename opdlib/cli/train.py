"""What `opd` does in the training laboratory: score, train, run the study."""

from __future__ import annotations

from dataclasses import asdict
from json import dumps
from pathlib import Path


def evaluate(checkpoint: str, /, *, tasks: str = "arithmetic", seed: int = 0, json: bool = False) -> None:
    """Score a checkpoint on held-out problems.

    example: opd evaluate patch:data/patches/smollm2-opd.safetensors --json

    Args:
        tasks: which problems
        seed: draws the held-out problems (default: 0)
    """
    from opdlib.train import evaluate

    found = evaluate.evaluate(checkpoint, task=tasks, seed=seed)
    low, high = found.interval
    readable = f"{found.accuracy:.1%} of {found.n} held-out problems, 95% interval {low:.1%} to {high:.1%}"
    print(dumps(asdict(found), indent=1) if json else f"{checkpoint}: {readable}")


def train(
    recipe: Path,
    /,
    *,
    out: Path | None = None,
    max_steps: int | None = None,
    seed: int | None = None,
    resume: bool = False,
) -> None:
    """Train one recipe and measure what came out.

    example: opd train data/recipes/smollm2-opd.yaml

    Args:
        out: run folder (default: runs/train/NAME-sSEED)
        max_steps: stop early, for a trial
        seed: instead of the recipe's seed
        resume: go on with a run that was stopped
    """
    from opdlib.registry.recipes import load_recipe
    from opdlib.train import arithmetic

    arithmetic.choose(load_recipe(recipe).kernels)  # before torch is loaded
    from opdlib.study.runner import measure_run
    from opdlib.train import run
    from opdlib.train.processes import first

    folder = run.train(recipe, out=out, max_steps=max_steps, seed=seed, resume=resume)
    if first():
        measure_run(recipe, folder)
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
) -> None:
    """Run what is missing of the study, one run at a time.

    example: opd study pico --arms opd offline

    Args:
        scale: such as pico or smollm2; data/study.yaml has their arms
        arms: only these
        seeds: only these
        out: where the tables are, in a folder named like the scale
        list: say what is missing and stop
        collect: run nothing; add the measured runs in runs/train
        overlaps: run nothing; write what runs changed in common
    """
    from opdlib.registry.study import find_scale

    chosen = find_scale(scale)
    if collect:
        from opdlib.results.collect import collect as take_in

        print(f"{chosen.name}: {len(take_in(chosen, out))} runs in {out / chosen.name}")
        return
    if overlaps:
        from opdlib.study.overlaps import write_overlaps

        write_overlaps(chosen, out)
        print(f"{chosen.name}: overlaps and masks in {out / chosen.name}")
        return
    from opdlib.study.runner import missing, run_arm

    runs = missing(chosen, out, arms, seeds)
    print(f"{chosen.name}: {len(runs)} runs to do")
    for arm, seed in runs:
        print(chosen.arms[arm].key(seed) if list else run_arm(chosen, arm, seed, out), flush=True)
