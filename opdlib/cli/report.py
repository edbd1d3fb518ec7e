"""What `opd` writes for people to read: one page about pairs, whether such a page is true, and the paper's claims."""

from json import dumps
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from opdlib.cli.measure import NULLS, View
from opdlib.cli.shares import Count, renames_of
from opdlib.errors import OutputError
from opdlib.registry.study import Regime

FIGURES = Literal["svg", "png", "pdf"]
TABLES = Literal["csv", "tex"]


def report(
    what: str,
    /,
    *trained: str,
    out: Annotated[Path, Parameter(name=["--out", "-o"])],
    name: tuple[str, ...] = (),
    regime: Regime = "",
    figures: Annotated[tuple[FIGURES, Path] | None, Parameter(consume_multiple=False)] = None,
    tables: Annotated[tuple[TABLES, Path] | None, Parameter(consume_multiple=False)] = None,
    view: View = "bf16",
    nulls: Literal["exact", "draws", "none"] = "exact",
    skip: tuple[str, ...] = (),
    rename: tuple[str, ...] = (),
    device: Literal["auto", "cpu", "cuda"] = "auto",
    workers: Count | None = None,
    json: bool = False,
) -> None:
    """Write one page about pairs, beside chance and the paper.

    example: opd report org/base runs/mine -o report.html

    What changed, how much, where and along which directions. The page is one file that needs nothing else, under 5 MB;
    `opd verify` checks it.

    Args:
        what: a source checkpoint; or results: a folder that opd measure wrote, or that has such folders in it
        trained: what was trained from it: one, several, a pattern, or a training folder; or more result folders
        out: the file
        name: what to call each pair
        regime: how it was trained, for pairs that the registry does not know
        figures: also write every figure: a format (svg, png, pdf) and a folder
        tables: also write every table: a format (csv, tex) and a folder
        view: round to bf16 first or not; of checkpoints
        nulls: exact, with draws, or none; of checkpoints
        skip: tensors to leave out, of checkpoints
        rename: FROM=TO, beginnings of tensor names or whole ones, of checkpoints
        device: where to measure checkpoints
        workers: threads; changes no number
        json: what was written as JSON
    """
    from opdlib.figures.theme import theme
    from opdlib.report.inputs import gathered
    from opdlib.report.make import make, write_figures, write_tables

    for _, folder in filter(None, (figures, tables)):
        if "\0" in str(folder) or (folder.exists() and not folder.is_dir()):
            raise OutputError(f"{folder}: is no folder; choose a new one for what goes beside the page")
    metrics = ("sparsity", "geometry", *NULLS[nulls])
    options: dict[str, Any] = {"view": view, "metrics": metrics, "device": device, "workers": workers, "progress": None}
    options |= {"skip": skip, "rename": renames_of(rename)}
    pairs = gathered((what, *trained), name, **options)
    theme()
    content = make(pairs, out, regime)
    files = [out]
    if figures:
        files += write_figures(pairs, content, *figures)
    if tables:
        files += write_tables(content, *tables)
    if json:
        print(dumps({"pairs": [pair.title for pair in pairs], "files": [*map(str, files)]}, indent=1))
        return
    print(f"{out}: {len(pairs)} pairs, {out.stat().st_size / 1e6:.1f} MB; check it with: opd verify {out}")
    if len(files) > 1:
        print(f"{len(files) - 1} figures and tables beside it")


def verify(file: Path, /, *, workers: Count | None = None, json: bool = False) -> None:
    """Check a report: its page, and its numbers from its checkpoints.

    example: opd verify report.html

    Args:
        file: what opd report wrote
        workers: threads; changes no number
        json: what was checked as JSON
    """
    from opdlib.report.verify import verify as check

    names = check(file, workers=workers, progress=None)
    if json:
        print(dumps({"file": str(file), "agrees": True, "pairs": names}, indent=1))
        return
    print(f"{file}: as it was written, and the checkpoints give every number of {', '.join(names)}")


def claims(*, json: bool = False) -> None:
    """Hold the paper's claims against everything measured here.

    example: opd claims --json

    Of each: does its number come out, does it survive its control, and who else passes?

    Args:
        json: every claim as JSON, with statement, tolerance, interval and the reason why one is not tested
    """
    from opdlib.claims import listed, passing, records

    found = records()
    if json:
        print(dumps(found, indent=1))
        return
    print(listed(found).to_string(index=False))
    print()
    print(passing(found).to_string(index=False))
