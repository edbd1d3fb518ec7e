"""What `opd` says of several checkpoints over one source: how a training went, and what every two have in common."""

from __future__ import annotations

from collections.abc import Sequence
from json import dumps, loads
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opdlib.checkpoints import open_checkpoint, short_name
from opdlib.checkpoints.series import listed, names_of, step_of, training_folder
from opdlib.cli.measure import LATENT, View
from opdlib.cli.shares import Count, renames_of
from opdlib.errors import ParameterError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

PROJECTION = "projection.joint.0.1"


def trajectory(
    folder: str | None = None,
    /,
    *,
    source: str,
    trained: tuple[str, ...] = (),
    name: str | None = None,
    out: Path | None = None,
    view: View = "bf16",
    skip: tuple[str, ...] = (),
    rename: tuple[str, ...] = (),
    workers: Count | None = None,
    json: bool = False,
) -> None:
    """Follow a training through its checkpoints.

    example: opd trajectory runs/mine --source org/base --out runs/mine-trajectory

    A table and figures of size, spectrum and directions, step by step.

    Args:
        folder: a training folder with checkpoint-N in it, or a run of opd train that kept steps
        source: the checkpoint that the training started from
        trained: its checkpoints, instead of FOLDER: several, or a pattern; in the order of their steps
        name: what figures call the training (default: that of its folder)
        out: a folder for trajectory.csv and two figures (default: below runs/trajectory)
        view: as for measure
        skip: tensors to leave out
        rename: FROM=TO, beginnings of tensor names or whole ones
        workers: threads; changes no number
        json: the table as JSON, a list
    """
    from opdlib.figures import trajectory as figures
    from opdlib.results.layout import folder_name
    from opdlib.results.several import follow
    from opdlib.tables.trajectory import followed

    if (folder is None) == (not trained):
        raise ParameterError(
            "trajectory takes FOLDER, or --trained with several checkpoints; see opd trajectory --help"
        )
    series = folder is not None or (len(trained) == 1 and bool(training_folder(trained[0])))
    specs = listed([folder] if folder else trained, series)
    if len(specs) < 2:
        raise ParameterError(f"{specs[0]}: one checkpoint is no trajectory; wanted two or more")
    numbers = [step_of(spec) for spec in specs]
    if None in numbers or len(set(numbers)) < len(specs):
        numbers = list(range(1, len(specs) + 1))
    called = name or short_name(folder or str(Path(specs[-1]).parent))
    steps = [(n or 0, own, open_checkpoint(s)) for n, own, s in zip(numbers, names_of(specs), specs, strict=True)]
    place = out or Path("runs/trajectory") / folder_name(called)
    options: dict[str, Any] = {"view": view, "skip": skip, "workers": workers, "progress": None}
    options["rename"] = renames_of(rename)
    table = follow(place, open_checkpoint(source), steps, **options)
    shown = followed(table, called, view)
    _draw(place, {"size": figures.size(shown, (*figures.DRAWN, PROJECTION)), "locking": figures.locking(shown)})
    keys = ("rel_norm", "exact_zero", "stable_rank", PROJECTION, "locking.right", "locking_norms.right")
    _print(table, ["step", *keys], f"{len(table)} checkpoints; table and figures in {place}", json)


def compare(
    *trained: str,
    source: str,
    out: Path | None = None,
    atol: float = 1e-5,
    view: View = "bf16",
    skip: tuple[str, ...] = (),
    rename: tuple[str, ...] = (),
    workers: Count | None = None,
    json: bool = False,
) -> None:
    """Say what every two of several checkpoints have in common.

    example: opd compare --source org/base org/one org/other runs/mine

    A table and a figure, each number beside chance.

    Args:
        trained: the checkpoints: several, a pattern, or a training folder
        source: the checkpoint that all were trained from
        out: a folder for comparison.csv and its figure (default: below runs/compared)
        atol: updated means abs(delta) > ATOL
        view: as for measure
        skip: tensors to leave out
        rename: FROM=TO, beginnings of tensor names or whole ones
        workers: threads; changes no number
        json: the table as JSON, a list
    """
    from opdlib.figures import maps
    from opdlib.results.several import compare as compared
    from opdlib.tables.subnetwork.overlap import latent_error

    specs = listed(trained)
    if len(specs) < 2:
        raise ParameterError(f"compare takes two checkpoints or more, and got {len(specs)}; see opd compare --help")
    named = [(own, open_checkpoint(spec)) for own, spec in zip(names_of(specs), specs, strict=True)]
    place = out or Path("runs/compared") / "-".join(own for own, _ in named)[:100]
    options: dict[str, Any] = {"atol": atol, "view": view, "skip": skip, "workers": workers, "progress": None}
    options["rename"] = renames_of(rename)
    table = compared(place, open_checkpoint(source), named, **options)
    _draw(place, {"comparison": maps.matrix(table)})
    nulls = [f"expected.{parts}.o1" for parts in ("global", "tensor", "magnitude")]
    keys = ["o1", *nulls, "o2", "latent_cosine", "subspace.right", "subspace_expected.right"]
    off = f"{LATENT.format(**latent_error())}\n" if table["cosine"].isna().any() else ""
    _print(table, ["a", "b", *keys], f"{off}{len(table)} pairs; table and figure in {place}", json)


def _draw(folder: Path, figures: dict[str, Axes]) -> None:
    from matplotlib import pyplot as plt

    from opdlib.figures.theme import canvas_of, drawn
    from opdlib.files import write_file

    for name, ax in figures.items():
        write_file(folder / f"{name}.svg", drawn(canvas_of(ax), "svg"))
        plt.close(canvas_of(ax))


def _print(table: pd.DataFrame, columns: Sequence[str], last: str, json: bool) -> None:
    """The whole table as JSON, or these columns for a person."""
    from opdlib.tables.written import cells

    if json:
        print(dumps(loads(table.to_json(orient="records", double_precision=15)), indent=1))
        return
    print(cells(table, *columns).to_string())
    print(last)
