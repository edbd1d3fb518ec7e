"""The `opd` command. Thin: arguments in, library calls, one line of error out."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import opdlib
from opdlib import commands
from opdlib.errors import OpdError
from opdlib.process import prepare


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as every other error does."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command: 0 when everything was done, 2 with one line on stderr for bad input, 130 when interrupted."""
    options = _parser().parse_args(arguments)
    prepare()
    try:
        options.run(options)
        sys.stdout.flush()
    except OpdError as error:
        return _complain(options, error, str(error))
    except ModuleNotFoundError as error:
        return _complain(options, error, f"{error.name} is not installed; run: pip install 'opdlib[train]'")
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
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)

    def command(
        name: str,
        run: Callable[[argparse.Namespace], None],
        help: str,
        example: str,
        under: object = subparsers,
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

    command("pairs", commands.pairs, "list the registry of pairs", "opd pairs")

    measure = command(
        "measure",
        commands.measure,
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
    measure.add_argument("--check", action="store_true", help="fail unless the committed numbers come out")
    measure.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="threads (default: one per core); changes no number",
    )

    summary = command(
        "summary",
        commands.summary,
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

    overlap = command(
        "overlap",
        commands.overlap,
        "how far the changes of two checkpoints over one source coincide",
        "opd overlap --source org/base --a org/one --b org/other --json",
    )
    overlap.add_argument("--source", required=True, metavar="SPEC")
    overlap.add_argument("--a", required=True, metavar="SPEC", help="the first trained checkpoint")
    overlap.add_argument("--b", required=True, metavar="SPEC", help="the second")
    overlap.add_argument("--atol", type=float, default=1e-5, help="updated means abs(delta) > ATOL (default: 1e-5)")
    overlap.add_argument("--view", default="bf16", choices=["bf16", "stored"], help="as for measure (default: bf16)")
    overlap.add_argument("--skip", nargs="+", default=[], metavar="TENSOR", help="tensors to leave out")
    overlap.add_argument("--json", action="store_true", help="everything as JSON, by layer, module and tensor too")

    evaluate = command(
        "evaluate",
        commands.evaluate,
        "accuracy on held-out problems",
        "opd evaluate patch:data/patches/smollm2-opd.safetensors --json",
    )
    evaluate.add_argument("checkpoint", metavar="SPEC")
    evaluate.add_argument("--tasks", default="arithmetic", metavar="NAME", help="which problems (default: arithmetic)")
    evaluate.add_argument("--seed", type=int, default=0, metavar="N", help="draws the held-out problems (default: 0)")
    evaluate.add_argument("--json", action="store_true", help="as JSON")

    train = command("train", commands.train, "train one recipe", "opd train data/recipes/smollm2-opd.yaml")
    train.add_argument("recipe", type=Path, metavar="RECIPE.yaml")
    train.add_argument("--out", type=Path, metavar="DIR", help="run folder (default: runs/train/NAME-sSEED)")
    train.add_argument("--max-steps", type=int, metavar="N", help="stop early, for a trial")
    train.add_argument("--seed", type=int, metavar="N", help="instead of the recipe's seed")
    train.add_argument("--resume", action="store_true", help="go on with a run that was stopped")

    study = command("study", commands.study, "run what is missing of the study", "opd study pico --arms opd offline")
    study.add_argument("scale", metavar="SCALE", help="pico or smollm2; data/study.yaml has their arms")
    study.add_argument("--arms", nargs="+", default=[], metavar="ARM", help="only these")
    study.add_argument("--seeds", nargs="+", type=int, default=[], metavar="N", help="only these")
    study.add_argument(
        "--out",
        type=Path,
        default=Path("runs/study"),
        metavar="DIR",
        help="where small results are kept; weights stay in runs/train (default: runs/study)",
    )
    study.add_argument("--list", action="store_true", help="say what is missing and stop")
    study.add_argument(
        "--overlaps",
        action="store_true",
        help="run nothing; write what the runs in runs/train changed in common, and how full their masks were",
    )

    patch = command(
        "patch",
        lambda options: patch.print_help(),
        "lossless sparse patches of a trained checkpoint",
        "opd patch verify SOURCE FILE TRAINED",
    )
    actions = patch.add_subparsers(required=True, metavar="ACTION", parser_class=Parser)
    make = command(
        "make",
        commands.patch_make,
        "write TRAINED as a patch over SOURCE",
        "opd patch make org/base runs/x/bf16 x.safetensors",
        actions,
    )
    make.add_argument("source", metavar="SOURCE")
    make.add_argument("trained", metavar="TRAINED")
    make.add_argument("file", type=Path, metavar="FILE")
    apply = command(
        "apply",
        commands.patch_apply,
        "rebuild the trained checkpoint",
        "opd patch apply org/base x.safetensors rebuilt/",
        actions,
    )
    apply.add_argument("source", metavar="SOURCE")
    apply.add_argument("file", type=Path, metavar="FILE")
    apply.add_argument("out", type=Path, metavar="OUT", help="a folder, or a file ending in .safetensors")
    verify = command(
        "verify",
        commands.patch_verify,
        "check that SOURCE and FILE give TRAINED bit for bit",
        "opd patch verify org/base x.safetensors runs/x/bf16",
        actions,
    )
    verify.add_argument("source", metavar="SOURCE")
    verify.add_argument("file", type=Path, metavar="FILE")
    verify.add_argument("trained", metavar="TRAINED")
    return parser


if __name__ == "__main__":
    sys.exit(main())
