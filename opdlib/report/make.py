"""A report from results: one file, and beside it figures and tables where they are wanted."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from opdlib.errors import OutputError
from opdlib.files import write_file
from opdlib.quantities import find
from opdlib.report import pictures
from opdlib.report.content import Content, content_of
from opdlib.report.findings import sentences
from opdlib.report.page import LARGEST, Pictures, render, tables_of
from opdlib.results.flat import headline
from opdlib.results.open import Results

POINTS = 2000
"""Marks beyond which a figure is a PNG: an SVG of more is slow to scroll past."""
NO_NAME = re.compile(r"[^\w.-]+")
"""What no name of a file has."""


def make(pairs: Sequence[Results], out: Path, regime: str = "") -> Content:
    """Write the page; its content. Raises OutputError if it cannot be written or would be larger than 5 MB."""
    content = content_of(pairs, regime)
    text = render(content, _embedded(planned(pairs, content)))
    if len(text.encode()) > LARGEST:
        raise OutputError(
            f"{out}: the page would have {len(text.encode()):,} bytes, its limit is {LARGEST:,}; make it of fewer pairs"
        )
    write_file(out, text)
    return content


def planned(pairs: Sequence[Results], content: Content) -> dict[str, pictures.Draw]:
    """The figures of the page by the name that they have in it."""
    found = pictures.of_all(pairs, _steps(content))
    for results, entry in zip(pairs, content["pairs"], strict=True):
        if entry["whole"]:
            found |= {f"{entry['anchor']}.{name}": draw for name, draw in pictures.of_one(results).items()}
    return found


def write_figures(pairs: Sequence[Results], content: Content, kind: str, folder: Path) -> list[Path]:
    """Every figure of the page as a file of this kind: svg, png or pdf."""
    return _write(folder, kind, pictures.as_files(planned(pairs, content), kind))


def write_tables(content: Content, kind: str, folder: Path) -> list[Path]:
    """Every table of the page as a file of this kind: csv with all digits, or tex with those of the page."""
    made = {
        name: table.to_csv(index=False) if kind == "csv" else _tex(table) for name, table in tables_of(content).items()
    }
    return _write(folder, kind, made)


def _write(folder: Path, kind: str, files: Mapping[str, str | bytes]) -> list[Path]:
    places = {folder / f"{NO_NAME.sub('-', name)}.{kind}": content for name, content in files.items()}
    for place, content in places.items():
        write_file(place, content)
    return [*places]


def _tex(table: pd.DataFrame) -> str:
    """The table for LaTeX, with booktabs; what TeX would read as a command is escaped."""
    from opdlib.tables.overall import shown
    from opdlib.tables.written import cells

    if "question" in table:
        text = shown(table)
    else:
        text = cells(table, *table.columns, names={c: f.label for c in map(str, table.columns) if (f := find(c))})
    numbers = "r" * text.shape[1]
    return (
        text.style.format(escape="latex")
        .format_index(escape="latex")
        .format_index(escape="latex", axis=1)
        .to_latex(hrules=True, column_format=f"l{numbers}")
    )


def _embedded(figures: Mapping[str, pictures.Draw]) -> Pictures:
    found: dict[str, tuple[str, bytes, str]] = {}
    for name, draw in figures.items():
        kind, data = "svg+xml", pictures.as_files({name: draw}, "svg")[name]
        if data.count(b"<use ") + data.count(b"<path ") > POINTS:
            kind, data = "png", pictures.as_files({name: draw}, "png")[name]
        found[name] = kind, data, sentences()["figures"][name.rpartition(".")[2]]
    return found


def _steps(content: Content) -> pd.DataFrame | None:
    """A row for each checkpoint by its step, where every one has another; the columns of `tables.trajectory.steps`."""
    steps = [entry["step"] for entry in content["pairs"]]
    if len(steps) < 2 or None in steps or len(set(steps)) < len(steps):
        return None
    rows: list[dict[str, Any]] = [
        {"step": entry["step"], "view": entry["view"], "regime": entry["regime"], "arm": "here", "seed": 0}
        | {key: value for key, value in headline(entry["summary"]).items() if key in pictures.STEPPED}
        for entry in content["pairs"]
    ]
    return pd.DataFrame(rows).sort_values("step").astype({key: float for key in pictures.STEPPED if key in rows[0]})
