"""The runs of one scale of the study as tidy tables: opened here, written by `opdlib.results.collect`. No torch.

What a row of each is, the attributes of `StudyResults` say. A number's column has the dotted key of `opd summary
--json`; shares are fractions in [0, 1]. An empty cell is a number that was not measured or not logged; one that is
undefined is empty too, and `undefined` names it.
"""

import csv
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd

from opdlib.errors import RegistryError
from opdlib.files import data_root
from opdlib.foreign import foreign, read_text
from opdlib.registry.study import find_scale
from opdlib.results.flat import assemble, from_null_rows, is_headline

BASELINES, SHARES = ("global", "tensor", "magnitude"), ("o1", "o2", "jaccard")
MASKS = (
    *("arm", "seed", "kind", "owner", "threshold", "parameters", "inside", "owner_inside", "own_inside", "in_own"),
    *("own_energy", "moved_inside", "moved_outside"),
)
"""Columns of `masks`. Counts of coordinates: all, in the mask, in the owner's delta mask, in the mask of the delta of
full OPD (that of `mask-own`), in both this mask and that one; the share of full OPD's squared delta that lies inside;
coordinates that the run moved in view bf16, inside and outside of its mask."""
OVERLAPS = (
    *("arm_a", "seed_a", "arm_b", "seed_b", "atol", "parameters", "density_a", "density_b", *SHARES),
    *(f"{baseline}_{share}" for baseline in BASELINES for share in SHARES),
    *("cosine", "latent_cosine", "equal_signs"),
)
"""Columns of `overlaps`: o1 is the share of a's mask that lies in b's. Each baseline is what independence gives.
cosine: of the float32 deltas, where both runs' are here; latent_cosine: what the overlap in bf16 makes of it."""
ANSWERS = ("number", "problem", "evaluated")
"""First columns of `answers`: the place of a problem, from 1, its prompt, and 1 if the recipes ask it. The others are
runs, see `answered`."""
PART, REST, SIZE, ENERGY, SHORT, TURNED = "part", "rest", "size", "energy", "short", "turned"
SURGERY = (
    *("arm", "seed", "part", "kind", "rule", "complement", "restored", "draw"),
    *("energy", "rel_norm", "kept", "correct", "n", "accuracy", "low", "high"),
    *("digest.source", "digest.fp32", "command"),
)
"""Columns of `surgery`. A part is a rule of `opdlib.measurement.edit`; kind is PART, REST (what the rule does not
keep), SIZE or ENERGY (a random part of as many coordinates, or one with as much energy), SHORT (everything, with the
energy of the rest), or TURNED (the part, with the singular values of the source). rule: what was kept to make it, with
complement and restored (0 or 1), draw the seed of what was drawn. energy: share of the update's; kept: of all
coordinates; digests: of the weights it was made of."""
CURVE = (
    *("step", "loss", "grad_norm", "entropy", "reward", "num_tokens", "seconds"),
    *("gradient_norm", "update_norm", "distance", "changed", "momentum_cosine", "second_moment_cv"),
    *("accuracy", "low", "high", "n"),
)

PLACE = ("arm", "seed", "view", "step")
SIMILARITY = tuple(f"{of}.{s}" for of in ("locking", "locking_norms", "locking_spectra") for s in ("left", "right"))
ALONG = (
    *("rel_norm", "exact_zero", "stable_rank", "svd_energy.1", "svd_energy.8", "svd_energy.16"),
    *("projection.joint.0.1", "projection.left.0.1", "projection.right.0.1"),
    *("step_cosine", *SIMILARITY),
)
"""Numbers of `along`; what the end of the run decides comes last. Controls are drawn for view `stored` alone."""
KEYS = {
    "runs": PLACE[:3],
    "steps": PLACE,
    "layers": (*PLACE, "layer"),
    "modules": (*PLACE, "module"),
    "binades": (*PLACE, "magnitude"),
    "nulls": (*PLACE, "null", "key"),
    "undefined": (*PLACE, "key"),
    "along": PLACE,
    "curves": ("arm", "seed", "step"),
    "masks": ("arm", "seed"),
    "overlaps": ("arm_a", "seed_a", "arm_b", "seed_b", "atol"),
    "answers": ("number",),
    "surgery": ("arm", "seed", "part", "kind"),
    "parents": ("recipe", "seed"),
    "parent_curves": ("recipe", "seed", "step"),
}
"""Table -> the columns that name a row, which come first."""
COLUMNS = {
    "along": (*PLACE, *ALONG),
    "curves": ("arm", "seed", *CURVE),
    "parent_curves": ("recipe", "seed", *CURVE),
    "masks": MASKS,
    "overlaps": OVERLAPS,
    "surgery": SURGERY,
    "nulls": (*KEYS["nulls"], "expected", "ratio", "low", "high", "verdict"),
}
"""Table -> its columns, where they are the same for all runs."""

TEXT = {
    *("arm", "arm_a", "arm_b", "view", "key", "reason", "module", "kind", "owner", "recipe", "recipe_sha256", "task"),
    *("note", "left_out", "renamed", "skip", "metrics", "python", "platform", "device", "git.commit"),
    *("problem", "part", "rule", "command"),
    *("null", "verdict", "nulls_scale"),
}
TEXT_GROUPS = ("digest.", "packages.", "measured.", "cpu.", "kernels.", "parents.")
TRUTHS = {"git.dirty"}
COUNTS = {
    *("seed", "seed_a", "seed_b", "step", "steps", "tokens", "threads", "layer", "n", "correct", "evaluation_seed"),
    *("tensors", "parameters", "measured_2d", "format", "coordinates", "updated"),
    *("number", "evaluated", "resumed", "complement", "restored", "draw"),
    *("inside", "owner_inside", "own_inside", "in_own", "moved_inside", "moved_outside"),
}
"""Last levels of the columns that hold whole numbers."""

WHOLE = re.compile("-?[0-9]{1,18}")
DAMAGED = "restore it, or remove it and collect the study again"
READ: dict[str, Callable[[str], Any]] = {"Int64": int, "float64": float, "boolean": "True".__eq__}
"""Type of a column that is no text -> what reads a cell."""


def column_type(column: str) -> str:
    """The pandas type of a column: text, whole number (nullable), truth (nullable) or float."""
    if column in TEXT or column.startswith(TEXT_GROUPS):
        return "str"
    if column in TRUTHS:
        return "boolean"
    return "Int64" if column.rpartition(".")[2] in COUNTS or answered(column) else "float64"


def answered(column: str) -> tuple[str, int] | None:
    """Arm and seed of the run whose answers a column of `answers` holds; None of another column."""
    arm, _, seed = column.rpartition("-s")
    return (arm, int(seed)) if arm and seed.isdecimal() else None


def _lazily(table: str) -> cached_property[pd.DataFrame]:
    return cached_property(lambda study: study._read(table))


@dataclass(frozen=True)
class StudyResults:
    """The tables of one scale. Each is read when it is needed, once; one that nobody wrote yet has no rows.

    Whole numbers are int64, or Int64 where a cell is empty; an empty text is "".
    """

    scale: str
    folder: Path

    runs = _lazily("runs")
    """One row a run and view, after the last step: arm, seed, view, how it was trained and judged, headline numbers."""
    steps = _lazily("steps")
    """One row a run and step before the last whose weights were measured: arm, seed, view, step, headline numbers."""
    layers = _lazily("layers")
    """One row a layer of a measurement in `runs` or `steps`: arm, seed, view, step, layer, and its numbers."""
    modules = _lazily("modules")
    """One row a module of a measurement: rel_norm, exact_zero, energy_share, parameters."""
    binades = _lazily("binades")
    """One row a binade of abs(source), magnitude its lower end: coordinates, updated, changed (their ratio)."""
    nulls = _lazily("nulls")
    """One row a number of a null: expected; its ratio to the observed, the interval low to high, and the verdict."""
    undefined = _lazily("undefined")
    """One row a number that is undefined: key (with `layers.N.` for a layer's) and reason."""
    along = _lazily("along")
    """One row a view and step of a run that was measured often (`opdlib.results.trajectory`), to its end: `ALONG`."""
    curves = _lazily("curves")
    """One row a run and step: arm, seed, step, and what was logged (`opdlib.train.probes`)."""
    masks = _lazily("masks")
    """One row a run inside a mask: `MASKS`."""
    overlaps = _lazily("overlaps")
    """One row two runs over one source and a threshold, view bf16: `OVERLAPS`."""
    answers = _lazily("answers")
    """One row a held-out problem: `ANSWERS`, and a column `<arm>-s<seed>` for each run: 1 if it answered it, else 0."""
    surgery = _lazily("surgery")
    """One row a part of a run's update: how much was kept, how many problems it then solves, `SURGERY`."""
    parents = _lazily("parents")
    """One row a run that others started from or were taught by: recipe, seed, the facts that `runs` has."""
    parent_curves = _lazily("parent_curves")
    """One row a parent and step: recipe, seed, step, and what was logged."""

    def written(self, *tables: str) -> tuple[int, ...]:
        """When each of these tables was last written, in ns since the epoch; 0 of one that nobody wrote yet."""
        files = [self.folder / f"{table}.csv" for table in tables]
        return tuple(file.stat().st_mtime_ns if file.exists() else 0 for file in files)

    def has(self, arm: str, seed: int, view: str = "bf16") -> bool:
        """Is there a row of this run in this view?"""
        return not self._at(self.runs, {"arm": arm, "seed": seed, "view": view}).empty

    def summary(self, arm: str, seed: int, view: str = "bf16", step: int | None = None) -> dict[str, Any]:
        """The summary of a run as it was measured after `step`, by default the last.

        Raises RegistryError that says which views and steps there are.
        """
        last = self._at(self.runs, {"arm": arm, "seed": seed, "view": view})
        at = {"arm": arm, "seed": seed, "view": view, "step": int(last["steps"].iloc[0]) if len(last) else None}
        found = last
        if step not in (None, at["step"]):
            found = self._at(self.steps, at := at | {"step": step})
        if found.empty:
            raise RegistryError(f"{self._name(arm, seed)}: no row of view {view}{self._choices(arm, seed, view, step)}")
        reasons = set(self._at(self.undefined, at)["key"])
        numbers = _cells(found, 0, reasons, "")
        layers = self._at(self.layers, at).drop(columns=[*PLACE])
        rows = [_cells(layers, i, reasons, f"layers.{layer}.") for i, layer in enumerate(layers["layer"])]
        nulls = from_null_rows(self._at(self.nulls, at).to_dict("records"))
        if nulls and found["nulls_scale"].iloc[0]:
            nulls["nulls_scale"] = found["nulls_scale"].iloc[0]
        return assemble(self._name(arm, seed), view, {k: v for k, v in numbers.items() if is_headline(k)}, rows, nulls)

    def _choices(self, arm: str, seed: int, view: str, step: int | None) -> str:
        run = {"arm": arm, "seed": seed}
        views = self._at(self.runs, run)["view"]
        if step is None or view not in set(views):
            return f" in {self.folder}; it has {', '.join(views) or 'none'}"
        steps = self._at(self.steps, run | {"view": view})["step"]
        return f" after step {step} in {self.folder}; it has {', '.join(map(str, steps)) or 'the last only'}"

    def _name(self, arm: str, seed: int) -> str:
        return f"{self.scale}-{arm}-s{seed}"

    def _at(self, table: pd.DataFrame, key: dict[str, Any]) -> pd.DataFrame:
        chosen = pd.Series(True, index=table.index)
        for column, value in key.items():
            chosen &= table[column] == value
        return table[chosen]

    def _read(self, table: str) -> pd.DataFrame:
        (written,) = self.written(table)
        if not written:
            columns = COLUMNS.get(table, KEYS[table])
            return pd.DataFrame({column: pd.Series(dtype=column_type(column)) for column in columns})
        return _table(self.folder / f"{table}.csv", written).copy()


def open_study(scale: str, root: Path | None = None) -> StudyResults:
    """The tables of a scale in `root`, by default those that opdlib comes with. Raises RegistryError for no scale."""
    return StudyResults(find_scale(scale).name, (root or data_root() / "study") / scale)


@lru_cache(maxsize=32)
def _table(file: Path, _: int) -> pd.DataFrame:
    """A table as it was at a time; pages ask for the same ones again and again.

    Read by hand, because Python's float reads back to the last bit, as not every pandas does.
    """
    header, rows = cells_of(file)
    with foreign(file, RegistryError, DAMAGED):
        return pd.DataFrame({name: _typed(name, [row[at] for row in rows]) for at, name in enumerate(header)})


def cells_of(file: Path) -> tuple[list[str], list[list[str]]]:
    """The columns of a table of the study, and its rows as text. Raises RegistryError for a file that is none."""
    text = read_text(file, RegistryError, DAMAGED)
    with foreign(file, RegistryError, DAMAGED):
        lines = [*csv.reader(StringIO(text, newline=""))]
    header, rows = (lines[0], lines[1:]) if lines else ([], [])
    keys = (*KEYS.get(file.stem, ()), *(("steps",) if file.stem == "runs" else ()))
    if missing := next((key for key in keys if header.count(key) != 1), None):
        raise RegistryError(f"{file}: has {header.count(missing)} columns {missing!r}, wanted one; {DAMAGED}")
    counts = [header.index(key) for key in keys if column_type(key) == "Int64"]
    for number, row in enumerate(rows, start=2):
        if len(row) != len(header) or not all(WHOLE.fullmatch(row[at]) for at in counts):
            raise RegistryError(f"{file}: row {number} is no row of this table; {DAMAGED}")
    return header, rows


def _typed(column: str, cells: Sequence[str]) -> pd.Series:
    """The cells as what they are."""
    kind = column_type(column)
    if kind == "str":
        return pd.Series(cells, dtype="str")
    values = [READ[kind](cell) if cell else None for cell in cells]
    return pd.Series(values, dtype="int64" if kind == "Int64" and None not in values else kind)


def _cells(table: pd.DataFrame, row: int, undefined: set[str], above: str) -> dict[str, Any]:
    """The numbers of a row in plain Python types: None where one is undefined, and no key where the cell is empty."""
    found: dict[str, Any] = {}
    for column in table.columns:
        value = table[column].iloc[row]
        if f"{above}{column}" in undefined:
            found[column] = None
        elif not pd.isna(value):
            found[column] = value.item() if hasattr(value, "item") else value
    return found
