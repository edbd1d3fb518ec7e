"""The `opd` command. Thin: arguments in, library calls, one line of error out."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

import opdlib
from opdlib.errors import MeasureError, OpdError, ParameterError
from opdlib.pairs import Pair


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as every other error does."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command: 0 when everything was done, 2 with one line on stderr for bad input, 130 when interrupted."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
        sys.stdout.flush()
    except OpdError as error:
        return _complain(options, error, str(error))
    except BrokenPipeError:
        # The reader went away (opd ... | head). Python would complain once more at exit, so stdout is pointed
        # elsewhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        # What no floor below put a name to: still a matter of files and disks, so still one line.
        where = f"{error.filename}: " if error.filename else ""
        return _complain(
            options,
            error,
            f"{where}{error.strerror or error}; check the path, its permissions and free space",
        )
    except KeyboardInterrupt:
        print("opd: interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    return 0


def _complain(options: argparse.Namespace, error: Exception, message: str) -> int:
    if options.debug:
        raise error
    print(f"opd: {' '.join(message.split())}", file=sys.stderr)
    return 2


def _parser() -> argparse.ArgumentParser:
    parser = Parser("opd", description="What does post-training do to a model's weights?")
    parser.add_argument("--version", action="version", version=f"opdlib {opdlib.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)

    def command(
        name: str,
        run: Callable[[argparse.Namespace], None],
        help: str,
        example: str,
        under: object = commands,
    ) -> argparse.ArgumentParser:
        made: argparse.ArgumentParser = under.add_parser(  # type: ignore[attr-defined]
            name,
            help=help,
            description=help[0].upper() + help[1:] + ".",
            epilog=f"example: {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        made.add_argument("--debug", action="store_true", help="show the traceback of an error")
        made.set_defaults(run=run)
        return made

    command("pairs", _pairs, "list the registry of pairs", "opd pairs")

    measure = command(
        "measure",
        _measure,
        "measure pairs and write their results",
        "opd measure smollm2-opd --out runs/mine",
    )
    measure.add_argument("pairs", nargs="*", metavar="PAIR", help="keys of the registry")
    measure.add_argument(
        "--source",
        metavar="SPEC",
        help="a source checkpoint: folder, file, org/name@rev, wheel:, patch:",
    )
    measure.add_argument("--trained", metavar="SPEC", help="the checkpoint that was trained from it")
    measure.add_argument("--name", help="what to call this pair (default: the name of the trained checkpoint)")
    measure.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="results folder (default: runs/measured/NAME); one per pair below it when there are several",
    )
    measure.add_argument(
        "--view",
        default="bf16",
        choices=["bf16", "stored"],
        help="round both to bf16 first, or subtract what is stored (default: bf16)",
    )
    measure.add_argument(
        "--only",
        default="sparsity",
        choices=["sparsity"],
        help="which metrics (default: all there are)",
    )
    measure.add_argument(
        "--skip",
        nargs="+",
        default=[],
        metavar="TENSOR",
        help="tensors to leave out, by name or pattern",
    )
    measure.add_argument(
        "--device",
        default="auto",
        choices=["auto", "cpu", "cuda"],
        help="where to compute (default: auto)",
    )
    measure.add_argument("--check", action="store_true", help="fail unless the committed numbers come out, to 1e-9")
    measure.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="threads (default: one per core); changes no number",
    )

    summary = command(
        "summary",
        _summary,
        "print the numbers of the paper's tables for one pair",
        "opd summary smollm2-opd --json",
    )
    summary.add_argument("results", metavar="DIR|PAIR", help="a results folder, or a pair with committed results")
    summary.add_argument(
        "--view",
        default="bf16",
        choices=["bf16", "stored"],
        help="of a pair's committed results (default: bf16)",
    )
    summary.add_argument("--json", action="store_true", help="as JSON")

    evaluate = command(
        "evaluate",
        _evaluate,
        "accuracy on held-out problems",
        "opd evaluate patch:data/patches/smollm2-opd.safetensors --json",
    )
    evaluate.add_argument("checkpoint", metavar="SPEC")
    evaluate.add_argument("--tasks", default="arithmetic", metavar="NAME", help="which problems (default: arithmetic)")
    evaluate.add_argument("--seed", type=int, default=0, metavar="N", help="draws the held-out problems (default: 0)")
    evaluate.add_argument("--json", action="store_true", help="as JSON")

    train = command("train", _train, "train one recipe", "opd train data/recipes/smollm2-opd.yaml")
    train.add_argument("recipe", type=Path, metavar="RECIPE.yaml")
    train.add_argument("--out", type=Path, metavar="DIR", help="run folder (default: runs/train/NAME-sSEED)")
    train.add_argument("--max-steps", type=int, metavar="N", help="stop early, for a trial")
    train.add_argument("--seed", type=int, metavar="N", help="instead of the recipe's seed")
    train.add_argument("--resume", action="store_true", help="go on with a run that was stopped")

    patch = command(
        "patch",
        lambda options: patch.print_help(),
        "lossless sparse patches of a trained checkpoint",
        "opd patch verify SOURCE FILE TRAINED",
    )
    actions = patch.add_subparsers(required=True, metavar="ACTION", parser_class=Parser)
    make = command(
        "make",
        _patch_make,
        "write TRAINED as a patch over SOURCE",
        "opd patch make org/base runs/x/bf16 x.safetensors",
        actions,
    )
    make.add_argument("source", metavar="SOURCE")
    make.add_argument("trained", metavar="TRAINED")
    make.add_argument("file", type=Path, metavar="FILE")
    apply = command(
        "apply",
        _patch_apply,
        "rebuild the trained checkpoint",
        "opd patch apply org/base x.safetensors rebuilt/",
        actions,
    )
    apply.add_argument("source", metavar="SOURCE")
    apply.add_argument("file", type=Path, metavar="FILE")
    apply.add_argument("out", type=Path, metavar="OUT", help="a folder, or a file ending in .safetensors")
    verify = command(
        "verify",
        _patch_verify,
        "check that SOURCE and FILE give TRAINED bit for bit",
        "opd patch verify org/base x.safetensors runs/x/bf16",
        actions,
    )
    verify.add_argument("source", metavar="SOURCE")
    verify.add_argument("file", type=Path, metavar="FILE")
    verify.add_argument("trained", metavar="TRAINED")
    return parser


def _pairs(_: argparse.Namespace) -> None:
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


def _measure(options: argparse.Namespace) -> None:
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
            f"{pair.key}: {len(found)} numbers differ from the committed ones by more than 1e-9, the first: {found[0]}; "
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


def _summary(options: argparse.Namespace) -> None:
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


def _evaluate(options: argparse.Namespace) -> None:
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


def _train(options: argparse.Namespace) -> None:
    from opdlib.train.run import train

    folder = train(
        options.recipe,
        out=options.out,
        max_steps=options.max_steps,
        seed=options.seed,
        resume=options.resume,
    )
    print(f"run complete: {folder}")


def _patch_make(options: argparse.Namespace) -> None:
    from opdlib.checkpoints import open_checkpoint
    from opdlib.patch import make

    print(make(open_checkpoint(options.source), open_checkpoint(options.trained), options.file))


def _patch_apply(options: argparse.Namespace) -> None:
    from opdlib.checkpoints import open_checkpoint
    from opdlib.patch import apply

    print(f"rebuilt: {apply(open_checkpoint(options.source), options.file, options.out)}")


def _patch_verify(options: argparse.Namespace) -> None:
    from opdlib.checkpoints import open_checkpoint
    from opdlib.patch import verify

    verify(open_checkpoint(options.source), options.file, open_checkpoint(options.trained))
    print(f"{options.file} over {options.source} gives {options.trained} bit for bit")
