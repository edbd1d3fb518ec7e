"""From run folders to the study's tables, `opdlib.results.study`: what is new is added, what contradicts refused."""

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from opdlib.checkpoints.series import COMPLETE
from opdlib.errors import RegistryError
from opdlib.files import locked, write_together
from opdlib.quantities import flat
from opdlib.registry.recipes import PARENT, Recipe, load_recipe
from opdlib.registry.study import RUNS, Scale
from opdlib.results.compare import GEOMETRY_TOLERANCE
from opdlib.results.flat import headline, null_rows, undefined, without_nulls
from opdlib.results.layout import SUMMARY, check, csv_text, read_summary
from opdlib.results.study import COLUMNS, KEYS, PLACE, cells_of
from opdlib.results.trained import Row, curve_of, facts_of, recipe_in, words

CHECKED = ("runs", "steps", "undefined")
HOW = (
    *("training_seconds", "resumed", "seconds", "python", "platform", "device", "threads"),
    *("git.", "packages.", "cpu.", "kernels.", "parents.", "measured."),
)
"""What the columns begin with that say how long, when, where and with what a run was trained and measured."""
WHAT = ("measured.source", "measured.trained")
"""Columns that begin so and are digests of weights."""

Cells = dict[str, str]
Tables = dict[str, list[Row]]


def collect(scale: Scale, out: Path, runs: Path = RUNS, chosen: Collection[tuple[str, int]] | None = None) -> list[str]:
    """Add every measured run of the scale (of `chosen`) that lies in `runs` to the tables in `out`/<scale>; their keys.

    A run that has rows already may add cells and rows that they lack; how one that was trained again to the same
    weights was made is not asked, and its numbers may differ as two machines' do (`opdlib.results.compare`). Raises
    RegistryError, with nothing written, for a number that is another than the one in the tables.
    """
    found: Tables = {}
    collected, parents = [], set()
    for arm, seed in scale.planned:
        folder = arm.folder(seed, runs)
        measured = (folder / COMPLETE).is_file() and (folder / "results" / SUMMARY).is_file()
        if measured and (chosen is None or (arm.name, seed) in chosen):
            _extend(found, _of_run(arm.name, seed, folder))
            parents |= _parents(recipe_in(folder), arm.recipe, folder.parent)
            collected.append(arm.key(seed))
    for folder in sorted(parents):
        _extend(found, _of_parent(folder))
    add_rows(scale, out / scale.name, found)
    return collected


def add_rows(scale: Scale, folder: Path, new: Tables, order: Callable[[Cells], Any] | None = None) -> None:
    """Merge rows into the tables in `folder` and write them together, sorted by `order`: by default that of the scale's
    arms, then seed, view and step. Raises RegistryError for a contradiction, with nothing written."""
    if not any(new.values()):
        return
    with locked(folder, wait=True) as place:  # another process may add rows of its own
        old = {table: _stored(place / f"{table}.csv") for table in (*CHECKED, *new)}
        again = {who for table in ("runs", "parents") for who in _trained_again(table, old, new)}
        merged = {
            table: _merge(f"{scale.name}: {table}", KEYS[table], rows, _without(again, table, rows, new.get(table, ())))
            for table, rows in old.items()
        }
        _refuse_defined(scale, merged)
        files = {}
        for table in sorted(table for table, rows in new.items() if rows):
            rows = sorted(merged[table], key=order or partial(_place, [*scale.arms]))
            files[f"{table}.csv"] = csv_text(rows, COLUMNS.get(table))
        write_together(place, files)


def _of_run(arm: str, seed: int, folder: Path) -> Tables:
    """The rows of one run, from its folder as `opdlib.study.runner.measure_run` leaves it."""
    found: Tables = {table: [] for table in KEYS}
    run = {"arm": arm, "seed": seed}
    facts, results = facts_of(folder), folder / "results"
    for summary in sorted(results.rglob(SUMMARY)):
        parts = summary.parent.relative_to(results).parts
        if any(part.startswith(".") for part in parts):
            continue  # what a killed process left
        kept = parts[:1] == ("steps",)
        if kept and not summary.parent.name.isdecimal():
            raise RegistryError(f"{summary.parent}: its name is no step; wanted the number of one")
        numbers, known = read_summary(summary.parent), check(summary.parent)
        step = int(summary.parent.name) if kept else facts["steps"]
        place = dict(zip(PLACE, (arm, seed, numbers["view"], step), strict=True))
        measured = _measured(known) | headline(without_nulls(numbers))
        if kept:
            found["steps"].append(place | measured)
        else:
            scale = {"nulls_scale": numbers["nulls_scale"]} if "nulls_scale" in numbers else {}
            found["runs"].append({**run, "view": numbers["view"], **facts, **measured, **scale})
            found["nulls"] += [place | row for row in null_rows(numbers)]
        found["layers"] += [place | dict(flat(layer)) for layer in numbers["layers"]]
        found["undefined"] += [place | {"key": key, "reason": why} for key, why in known["undefined"].items()]
        if (summary.parent / "tensors.csv").is_file():
            modules = [*_modules(pd.read_csv(summary.parent / "tensors.csv", dtype=str))]
            reasons = undefined({f"modules.{row['module']}.{key}": row[key] for row in modules for key in row})
            found["modules"] += [place | row for row in modules]
            found["undefined"] += [place | {"key": key, "reason": why} for key, why in reasons.items()]
            found["binades"] += [place | row for row in _binades(pd.read_csv(summary.parent / "magnitude.csv"))]
    found["curves"] = [run | row for row in curve_of(folder)]
    return found


def _of_parent(folder: Path) -> Tables:
    recipe = recipe_in(folder)
    run = {"recipe": recipe.name, "seed": recipe.seed}
    return {"parents": [run | facts_of(folder)], "parent_curves": [run | row for row in curve_of(folder)]}


def _parents(recipe: Recipe, path: Path, runs: Path) -> set[Path]:
    """The folders of the complete runs that this one, of the recipe at `path`, started from or was taught by, where
    they are here. A parent is run with the seed of its own recipe, which lies beside."""
    specs = [str(getattr(recipe, role, "")) for role in ("student", "teacher")]
    named = [path.with_name(f"{spec.removeprefix(PARENT)}.yaml") for spec in specs if spec.startswith(PARENT)]
    theirs = [load_recipe(place) for place in named if place.is_file()]
    folders = {runs / f"{parent.name}-s{parent.seed}" for parent in theirs}
    return {folder for folder in folders if (folder / COMPLETE).is_file()}


def _measured(known: Mapping[str, Any]) -> Row:
    """What was measured and with what, from the provenance of a measurement."""
    identity = known["identity"]
    return {
        "note": known.get("note", ""),
        "measured.source": identity["source"],
        "measured.trained": identity["trained"],
        "format": identity["format"],
        "metrics": words(identity["metrics"]),
        "skip": words(identity["skip"]),
        "left_out": "; ".join(f"{name}: {reason}" for name, reason in known["tied_or_skipped"].items()),
        "renamed": "; ".join(f"{before} -> {after}" for before, after in known["renamed"].items()),
        "measured.device": known["device"],
        **{f"measured.{name}": version for name, version in known["versions"].items()},
    }


def _modules(tensors: pd.DataFrame) -> Iterator[Row]:
    """A row for every module, over all layers: relative norm, share unchanged, share of the delta's energy, size."""
    energy = math.fsum(map(float, tensors["energy"]))
    for module, own in tensors.groupby("module", sort=False):
        part, source = (math.fsum(map(float, own[column])) for column in ("energy", "source_energy"))
        unchanged, size = (sum(map(int, own[column])) for column in ("exact_zero", "size"))
        yield {
            "module": module,
            "rel_norm": math.sqrt(part / source) if source else None,
            "exact_zero": unchanged / size,
            "energy_share": part / energy if energy else None,
            "parameters": size,
        }


def _binades(magnitude: pd.DataFrame) -> Iterator[Row]:
    for low, coordinates, updated in magnitude[["magnitude", "coordinates", "updated"]].itertuples(index=False):
        counts = {"coordinates": int(coordinates), "updated": int(updated)}
        yield {"magnitude": float(low), **counts, "changed": int(updated) / int(coordinates)}


def _trained_again(table: str, old: Mapping[str, Sequence[Cells]], new: Tables) -> Iterator[tuple[str, ...]]:
    """Who of a table was trained anew, later or elsewhere, and ended at the weights that are known."""
    known = {_who(table, row): row for row in old.get(table, ())}
    for row in new.get(table, ()):
        before, digests = known.get(_who(table, row), {}), [column for column in row if column.startswith("digest.")]
        alike = bool(digests) and all(before.get(column) == row[column] for column in digests)
        if alike and before["training_seconds"] != str(row["training_seconds"]):
            yield _who(table, row)


def _without(
    again: Collection[tuple[str, ...]], table: str, old: Sequence[Cells], rows: Iterable[Row]
) -> Iterator[Row]:
    """The rows; of who was trained again without `HOW`, and without numbers that are those of the old row but for
    another machine's last digits."""
    known = {tuple(row[column] for column in KEYS[table]): row for row in old} if again else {}
    for row in rows:
        if _who(table, row) not in again:
            yield row
            continue
        before = known.get(tuple(str(row[column]) for column in KEYS[table]), {})
        told = {column: cell for column, cell in row.items() if column in WHAT or not column.startswith(HOW)}
        kept = (column for column, cell in told.items() if not _alike(cell, before.get(column, "")))
        yield {column: told[column] for column in dict.fromkeys((*KEYS[table], *kept))}


def _alike(cell: object, known: str) -> bool:
    return isinstance(cell, float) and known != "" and math.isclose(cell, float(known), rel_tol=GEOMETRY_TOLERANCE)


def _who(table: str, row: Row) -> tuple[str, ...]:
    """Arm or recipe, and seed; of a table that has no runs, whatever its rows are told apart by."""
    return tuple(str(row[column]) for column in KEYS[table][:2])


def _merge(name: str, key: Sequence[str], old: Sequence[Cells], new: Iterable[Row]) -> list[Cells]:
    """The rows of both, all with all columns; a new row may fill cells that are empty in the old one of its key."""
    columns = [*old[0]] if old else [*key]
    merged = {tuple(row[column] for column in key): row for row in old}
    for row in new:
        cells = {column: "" if value is None else str(value) for column, value in row.items()}
        place = tuple(cells[column] for column in key)
        known = merged.get(place, {})
        for column, cell in cells.items():
            if cell and known.get(column, cell) not in ("", cell):
                raise _contradiction(
                    f"{name}: {' '.join(place)}: {column} is {known[column]} in the tables and {cell} in the run folder"
                )
        merged[place] = {**known, **{column: cell or known.get(column, "") for column, cell in cells.items()}}
        columns = _joined(columns, [*cells])
    return [{column: row.get(column, "") for column in columns} for row in merged.values()]


def _contradiction(what: str) -> RegistryError:
    return RegistryError(f"{what}; nothing was written. If the run was made anew on purpose, remove its rows first")


def _joined(columns: list[str], more: Sequence[str]) -> list[str]:
    """All columns; a new one stands after the one that it follows in its own table."""
    if set(more) <= set(columns):
        return columns
    joined = [*columns]
    for before, column in zip(["", *more], more, strict=False):
        if column not in joined:
            joined.insert(joined.index(before) + 1 if before in joined else len(joined), column)
    return joined


def _refuse_defined(scale: Scale, tables: Mapping[str, Sequence[Cells]]) -> None:
    """No number may be undefined on one side and defined on the other."""
    rows = [*tables["steps"], *({**row, "step": row["steps"]} for row in tables["runs"])]
    numbers = {tuple(row[column] for column in PLACE): row for row in rows}
    for row in tables["undefined"]:
        place = tuple(row[column] for column in PLACE)
        number = numbers.get(place, {}).get(row["key"], "")
        if number:
            raise _contradiction(
                f"{scale.name}: {' '.join(place)}: {row['key']} is undefined, and {number}: "
                "one in the tables, the other in the run folder"
            )


def _place(arms: Sequence[str], row: Cells) -> tuple[int, str, int, int, int]:
    """Where a row stands: by arm (one that the plan no longer has is last), parent, seed, view and step; rows of one
    measurement stay as they came."""
    arm, parent = [*arms, row["arm"]].index(row["arm"]) if "arm" in row else 0, row.get("recipe", "")
    return arm, parent, int(row["seed"]), int(row.get("view") == "stored"), int(row.get("step", 0))


def _stored(file: Path) -> list[dict[str, str]]:
    if not file.exists():
        return []
    header, rows = cells_of(file)
    return [dict(zip(header, row, strict=True)) for row in rows]


def _extend(tables: Tables, more: Tables) -> None:
    for table, rows in more.items():
        tables.setdefault(table, []).extend(rows)
