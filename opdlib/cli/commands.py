"""What each subcommand of `opd` does: arguments in, library calls, a few lines out.

Libraries are imported inside the functions, so that `opd --help` and a mistyped option answer at once.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from opdlib.errors import MeasureError, ParameterError
from opdlib.registry.pairs import Pair


def pairs(_: argparse.Namespace) -> None:
    """The registry as a table, and what stands in the way of measuring each pair here."""
    from opdlib.files import data_root
    from opdlib.registry.pairs import registry
    from opdlib.results.layout import SUMMARY

    rows = [("pair", "regime", "source", "trained", "here")]
    for pair in registry().values():
        results = (data_root() / "results" / pair.key / SUMMARY).is_file()
        state = pair.obstacle() or "measurable"
        rows.append(
            (
                pair.key,
                pair.regime,
                pair.source,
                pair.trained or "-",
                f"{state}, results committed" if results else state,
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def measure(options: argparse.Namespace) -> None:
    """Measure pairs of the registry, or two checkpoints, and write their results."""
    from opdlib.registry.pairs import find_pair

    given = options.source is not None or options.trained is not None
    if bool(options.pairs) == given or (given and not (options.source and options.trained)):
        raise ParameterError("measure takes PAIR..., or --source and --trained together; see opd measure --help")
    if options.name and not given:
        raise ParameterError("--name goes with --source and --trained; a pair of the registry has its key")
    if options.check and given:
        raise ParameterError("--check compares with committed results, so it takes PAIR...")
    if given:
        name = options.name or Path(options.trained.partition("@")[0]).name or "unnamed"
        pairs = [Pair(name, name, options.source, options.trained, regime="")]
    else:
        pairs = [find_pair(name) for name in options.pairs]
    folders = [_folder(pair, options, alone=len(pairs) == 1) for pair in pairs]
    for source in dict.fromkeys(pair.source for pair in pairs):
        _measure_over(source, [(p, f) for p, f in zip(pairs, folders, strict=True) if p.source == source], options)


def _folder(pair: Pair, options: argparse.Namespace, alone: bool) -> Path:
    if options.out is None:
        return Path("runs/measured") / f"{pair.key}{'' if options.view == 'bf16' else f'-{options.view}'}"
    out: Path = options.out
    return out if alone else out / pair.key


def _measure_over(source: str, pairs: list[tuple[Pair, Path]], options: argparse.Namespace) -> None:
    """Measure all pairs over one source together."""
    from opdlib.checkpoints import open_checkpoint
    from opdlib.measurement.schedule import METRICS
    from opdlib.results.measure import Order, measure_together

    orders = []
    for pair, folder in pairs:
        if pair.trained is None:
            raise ParameterError(
                f"pair {pair.key!r}: {pair.why}; give the checkpoint yourself with --source, --trained"
            )
        orders.append(Order(folder, pair.key, open_checkpoint(pair.trained), (*pair.skip, *options.skip)))
    done = measure_together(
        open_checkpoint(source),
        orders,
        view=options.view,
        metrics=(options.only,) if options.only else METRICS,
        device=options.device,
        workers=options.workers,
        progress=None,
    )
    for (pair, folder), measurement in zip(pairs, done, strict=True):
        for line in _left_out(measurement.alignment.left_out):
            print(line)
        share = measurement.histogram.changed / max(measurement.histogram.size, 1)
        print(
            f"{pair.key}: {len(measurement.tensors)} tensors, {share:.2%} of weights changed in view {options.view}; "
            f"results in {folder}"
        )
        if options.check:
            _check_against_committed(pair, folder, options.view, options.only)


def _left_out(left_out: Mapping[str, str]) -> Iterator[str]:
    """A line for every reason why tensors are not compared, with the tensor or their number."""
    for reason in dict.fromkeys(left_out.values()):
        names = [name for name, why in left_out.items() if why == reason]
        yield f"{names[0] if len(names) == 1 else f'{len(names)} tensors'}: {reason}"


def _check_against_committed(pair: Pair, folder: Path, view: str, only: str | None) -> None:
    from opdlib.results.layout import disagreements, read_summary, results_folder

    found = disagreements(read_summary(folder), read_summary(results_folder(pair.key, view)), only)
    if found:
        raise MeasureError(
            f"{pair.key}: {len(found)} numbers differ from the committed ones, the first: {found[0]}; "
            "if the change is meant, commit the new results and say why in CHANGELOG.md"
        )
    print(f"{pair.key}: equal to the committed numbers")


def summary(options: argparse.Namespace) -> None:
    from opdlib.results.layout import read_summary, results_folder

    summary = read_summary(results_folder(options.results, options.view))
    print(json.dumps(summary, indent=1) if options.json else _readable(summary))


def _readable(summary: dict[str, Any]) -> str:
    """Every number but the layers', a line for each key."""
    lines = []
    for key, value in summary.items():
        if isinstance(value, dict) and all(isinstance(inner, dict) for inner in value.values()):
            lines += [f"{f'{key} {name}':32}{_listed(inner)}" for name, inner in value.items()]
        elif not isinstance(value, list):
            lines.append(f"{key:32}{_listed(value) if isinstance(value, dict) else _number(value)}")
    return "\n".join([*lines, f"{'layers':32}{len(summary['layers'])}, see --json"])


def _listed(numbers: dict[str, Any]) -> str:
    return "  ".join(f"{at}: {_number(value)}" for at, value in numbers.items())


def _number(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, float) else "undefined" if value is None else str(value)


def overlap(options: argparse.Namespace) -> None:
    """Overlap of two checkpoints over one source, beside what chance gives."""
    from opdlib.checkpoints import open_checkpoint
    from opdlib.measurement.overlap import measure_overlap

    source, a, b = map(open_checkpoint, (options.source, options.a, options.b))
    found = measure_overlap(source, a, b, atol=options.atol, view=options.view, skip=options.skip)
    if options.json:
        print(json.dumps(found, indent=1))
        return
    for name in ("o1", "o2", "jaccard"):
        chance = {kind: expected[name] for kind, expected in found["expected"].items()}
        print(f"{name:8}{_number(found[name])}   if independent: {_listed(chance)}")


def evaluate(options: argparse.Namespace) -> None:
    """Accuracy of a checkpoint on held-out problems."""
    from opdlib.train.evaluate import evaluate

    result = evaluate(options.checkpoint, task=options.tasks, seed=options.seed)
    low, high = result.interval
    if options.json:
        print(json.dumps(asdict(result), indent=1))
    else:
        print(
            f"{options.checkpoint}: {result.accuracy:.1%} of {result.n} held-out problems, "
            f"95% interval {low:.1%} to {high:.1%}"
        )


def train(options: argparse.Namespace) -> None:
    """Train a recipe and measure what came out."""
    from opdlib.registry.recipes import load_recipe
    from opdlib.train import arithmetic

    arithmetic.choose(load_recipe(options.recipe).kernels)
    from opdlib.study.runner import measure_run
    from opdlib.train.processes import first
    from opdlib.train.run import train

    folder = train(
        options.recipe,
        out=options.out,
        max_steps=options.max_steps,
        seed=options.seed,
        resume=options.resume,
    )
    if first():
        measure_run(options.recipe, folder)
        print(f"run complete: {folder}")


def study(options: argparse.Namespace) -> None:
    """Run what is missing of the study, one run at a time; or lay the runs that are here over each other."""
    from opdlib.registry.study import find_scale
    from opdlib.study.runner import missing, run_arm

    scale = find_scale(options.scale)
    if options.overlaps:
        from opdlib.study.overlaps import write_overlaps

        for file in write_overlaps(scale, options.out):
            print(file)
        return
    runs = list(missing(scale, options.out, options.arms, options.seeds))
    print(f"{scale.name}: {len(runs)} runs to do")
    if options.list:
        for arm, seed in runs:
            print(scale.arms[arm].key(seed))
        return
    for arm, seed in runs:
        print(f"{run_arm(scale, arm, seed, options.out)}", flush=True)


def _bar(names: Iterable[str]) -> Iterable[str]:
    """A progress bar over tensors, on a terminal only."""
    from tqdm import tqdm

    return tqdm(names, unit="tensor", disable=None)


def patch_make(options: argparse.Namespace) -> None:
    from opdlib.checkpoints import open_checkpoint
    from opdlib.checkpoints.patch import make

    print(make(open_checkpoint(options.source), open_checkpoint(options.trained), options.file, _bar))


def patch_apply(options: argparse.Namespace) -> None:
    from opdlib.checkpoints import open_checkpoint
    from opdlib.checkpoints.patch import apply

    print(f"rebuilt: {apply(open_checkpoint(options.source), options.file, options.out, _bar)}")


def patch_verify(options: argparse.Namespace) -> None:
    from opdlib.checkpoints import open_checkpoint
    from opdlib.checkpoints.patch import verify

    verify(open_checkpoint(options.source), options.file, open_checkpoint(options.trained), _bar)
    print(f"{options.file} over {options.source} gives {options.trained} bit for bit")
