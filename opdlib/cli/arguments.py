"""The arguments of the `opd` command: one function for each of its commands, which says what it takes."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import opdlib
from opdlib.cli import commands

Run = Callable[[argparse.Namespace], None]


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as every other error does."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def parser() -> Parser:
    """The parser of the whole command. What it returns has `run`, the function to call with it, and `debug`."""
    whole = Parser("opd", description="What does post-training do to a model's weights?")
    whole.add_argument("--version", action="version", version=f"opdlib {opdlib.__version__}")
    under = whole.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)
    _command(under, "pairs", commands.pairs, "list the registry of pairs", "opd pairs")
    for add in (_measure, _summary, _overlap, _evaluate, _train, _study, _patch):
        add(under)
    return whole


def _command(under: argparse._SubParsersAction[Parser], name: str, run: Run, help: str, example: str) -> Parser:
    made = under.add_parser(
        name,
        help=help,
        description=help[0].upper() + help[1:] + ".",
        epilog=f"example: {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--debug", action="store_true", help="show the traceback of an error")
    made.set_defaults(run=run)
    return made


def _measure(under: argparse._SubParsersAction[Parser]) -> None:
    measure = _command(
        under,
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


def _summary(under: argparse._SubParsersAction[Parser]) -> None:
    summary = _command(
        under,
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


def _overlap(under: argparse._SubParsersAction[Parser]) -> None:
    overlap = _command(
        under,
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


def _evaluate(under: argparse._SubParsersAction[Parser]) -> None:
    evaluate = _command(
        under,
        "evaluate",
        commands.evaluate,
        "accuracy on held-out problems",
        "opd evaluate patch:data/patches/smollm2-opd.safetensors --json",
    )
    evaluate.add_argument("checkpoint", metavar="SPEC")
    evaluate.add_argument("--tasks", default="arithmetic", metavar="NAME", help="which problems (default: arithmetic)")
    evaluate.add_argument("--seed", type=int, default=0, metavar="N", help="draws the held-out problems (default: 0)")
    evaluate.add_argument("--json", action="store_true", help="as JSON")


def _train(under: argparse._SubParsersAction[Parser]) -> None:
    train = _command(under, "train", commands.train, "train one recipe", "opd train data/recipes/smollm2-opd.yaml")
    train.add_argument("recipe", type=Path, metavar="RECIPE.yaml")
    train.add_argument("--out", type=Path, metavar="DIR", help="run folder (default: runs/train/NAME-sSEED)")
    train.add_argument("--max-steps", type=int, metavar="N", help="stop early, for a trial")
    train.add_argument("--seed", type=int, metavar="N", help="instead of the recipe's seed")
    train.add_argument("--resume", action="store_true", help="go on with a run that was stopped")


def _study(under: argparse._SubParsersAction[Parser]) -> None:
    study = _command(
        under, "study", commands.study, "run what is missing of the study", "opd study pico --arms opd offline"
    )
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


def _patch(under: argparse._SubParsersAction[Parser]) -> None:
    patch = _command(
        under,
        "patch",
        lambda options: patch.print_help(),
        "lossless sparse patches of a trained checkpoint",
        "opd patch verify SOURCE FILE TRAINED",
    )
    actions = patch.add_subparsers(required=True, metavar="ACTION", parser_class=Parser)
    make = _command(
        actions,
        "make",
        commands.patch_make,
        "write TRAINED as a patch over SOURCE",
        "opd patch make org/base runs/x/bf16 x.safetensors",
    )
    make.add_argument("source", metavar="SOURCE")
    make.add_argument("trained", metavar="TRAINED")
    make.add_argument("file", type=Path, metavar="FILE")
    apply = _command(
        actions,
        "apply",
        commands.patch_apply,
        "rebuild the trained checkpoint",
        "opd patch apply org/base x.safetensors rebuilt/",
    )
    apply.add_argument("source", metavar="SOURCE")
    apply.add_argument("file", type=Path, metavar="FILE")
    apply.add_argument("out", type=Path, metavar="OUT", help="a folder, or a file ending in .safetensors")
    verify = _command(
        actions,
        "verify",
        commands.patch_verify,
        "check that SOURCE and FILE give TRAINED bit for bit",
        "opd patch verify org/base x.safetensors runs/x/bf16",
    )
    verify.add_argument("source", metavar="SOURCE")
    verify.add_argument("file", type=Path, metavar="FILE")
    verify.add_argument("trained", metavar="TRAINED")
