"""What each subcommand of `opd` does: arguments in, library calls, a few lines out.

Libraries are imported inside the functions, so that `opd --help` and a mistyped option answer at once.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from opdlib.errors import MeasureError, ParameterError
from opdlib.pairs import Pair


def pairs(_: argparse.Namespace) -> None:
    from opdlib.locations import data_root
    from opdlib.pairs import registry
    from opdlib.results import SUMMARY

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
    from opdlib.pairs import find_pair

    given = options.source is not None or options.trained is not None
    if bool(options.pairs) == given or (given and not (options.source and options.trained)):
        raise ParameterError("measure takes PAIR..., or --source and --trained together; see opd measure --help")
    if options.name and not given:
        raise ParameterError("--name goes with --source and --trained; a pair of the registry has its key")
    _check_device(options.device)
    if options.check and given:
        raise ParameterError("--check compares with committed results, so it takes PAIR...")
    if given:
        name = options.name or Path(options.trained.partition("@")[0]).name or "unnamed"
        pairs = [Pair(name, name, options.source, options.trained, regime="")]
    else:
        pairs = [find_pair(name) for name in options.pairs]
    for pair in pairs:
        out = options.out or Path("runs/measured") / f"{pair.key}{'' if options.view == 'bf16' else f'-{options.view}'}"
        folder = out / pair.key if options.out and len(pairs) > 1 else out
        _measure_one(pair, folder, options)


def _measure_one(pair: Pair, folder: Path, options: argparse.Namespace) -> None:
    from opdlib.checkpoints import open_checkpoint
    from opdlib.recording import measure_into

    if pair.trained is None:
        raise ParameterError(f"pair {pair.key!r}: {pair.why}; give the checkpoint yourself with --source and --trained")
    done = measure_into(
        folder,
        open_checkpoint(pair.source),
        open_checkpoint(pair.trained),
        name=pair.key,
        view=options.view,
        skip=[*pair.skip, *options.skip],
        workers=options.workers,
        progress=None,
    )
    for tensor, reason in done.alignment.left_out.items():
        print(f"{tensor}: {reason}")
    share = done.histogram.changed / max(done.histogram.size, 1)
    print(
        f"{pair.key}: {len(done.tensors)} tensors, {share:.2%} of weights changed in view {options.view}; "
        f"results in {folder}"
    )
    if options.check:
        _check_against_committed(pair, folder, options.view)


def _check_against_committed(pair: Pair, folder: Path, view: str) -> None:
    from opdlib.results import differences, read_summary, results_folder

    found = differences(read_summary(folder), read_summary(results_folder(pair.key, view)), rtol=1e-9)
    if found:
        raise MeasureError(
            f"{pair.key}: {len(found)} numbers differ from the committed ones by more than 1e-9, first {found[0]}; "
            "if the change is meant, commit the new results and say why in CHANGELOG.md"
        )
    print(f"{pair.key}: equal to the committed numbers to 1e-9")


def _check_device(device: str) -> None:
    """Histograms are made on the CPU, wherever the models came from; a device that is not there is refused all the
    same."""
    if device == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise ParameterError("--device cuda: no CUDA device on this machine; use --device auto or cpu")


def summary(options: argparse.Namespace) -> None:
    from opdlib.results import read_summary, results_folder

    summary = read_summary(results_folder(options.results, options.view))
    print(json.dumps(summary, indent=1) if options.json else _readable(summary))


def _readable(summary: dict[str, Any]) -> str:
    """The whole-model numbers, a line each."""
    lines = []
    for key, value in summary.items():
        if isinstance(value, dict) and key != "blocks":
            lines.append(f"{key:18}" + "  ".join(f"{at}: {_number(v)}" for at, v in value.items()))
        elif not isinstance(value, dict | list):
            lines.append(f"{key:18}{_number(value)}")
    for block, numbers in summary["blocks"].items():
        lines.append(f"{block:18}" + "  ".join(f"{at}: {_number(v)}" for at, v in numbers.items()))
    return "\n".join([*lines, f"{'layers':18}{len(summary['layers'])}, see --json"])


def _number(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, float) else "undefined" if value is None else str(value)


def evaluate(options: argparse.Namespace) -> None:
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
    from opdlib.train.run import train

    folder = train(
        options.recipe,
        out=options.out,
        max_steps=options.max_steps,
        seed=options.seed,
        resume=options.resume,
    )
    print(f"run complete: {folder}")


def patch_make(options: argparse.Namespace) -> None:
    from opdlib.checkpoints import open_checkpoint
    from opdlib.patch import make

    print(make(open_checkpoint(options.source), open_checkpoint(options.trained), options.file))


def patch_apply(options: argparse.Namespace) -> None:
    from opdlib.checkpoints import open_checkpoint
    from opdlib.patch import apply

    print(f"rebuilt: {apply(open_checkpoint(options.source), options.file, options.out)}")


def patch_verify(options: argparse.Namespace) -> None:
    from opdlib.checkpoints import open_checkpoint
    from opdlib.patch import verify

    verify(open_checkpoint(options.source), options.file, open_checkpoint(options.trained))
    print(f"{options.file} over {options.source} gives {options.trained} bit for bit")
