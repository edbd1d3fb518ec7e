"""Results in the hand: their files, and what they say about themselves."""

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from opdlib.checkpoints.names import BLOCKS, PARTS, module_order
from opdlib.errors import RegistryError
from opdlib.files import data_root, locked, write_together
from opdlib.foreign import foreign
from opdlib.registry.pairs import Pair, find_pair, registry
from opdlib.results import layout
from opdlib.results.flat import headline
from opdlib.results.known import NAMED, TABLES, TEXT


@dataclass(frozen=True)
class Results:
    """The measured numbers of one pair in one view. Files are read when they are needed, once.

    Every table of `opdlib.tables` takes one, whether it was opened or has just been measured.
    """

    folder: Path | None
    """Where the files lie; None for what was measured and is in memory."""
    name: str = ""
    """What tables and figures call the pair, if not what the registry or the summary says."""
    known: Pair | None = None
    """The pair of the registry, where the caller knows it."""
    files: Mapping[str, str] = field(default_factory=dict, repr=False, hash=False)
    """What is in memory, by the name of the file that it would be in."""

    @cached_property
    def summary(self) -> dict[str, Any]:
        """The summary, as `opd summary --json` prints it."""
        return layout.read_summary(self.folder) if self.folder else dict(json.loads(self.files[layout.SUMMARY]))

    @cached_property
    def numbers(self) -> dict[str, Any]:
        """The numbers of the summary under their dotted keys, without those of its layers; None: undefined."""
        return headline(self.summary)

    @cached_property
    def provenance(self) -> dict[str, Any]:
        """What was compared, with digests, versions and reasons."""
        return layout.read_provenance(self.folder) if self.folder else dict(json.loads(self.files[layout.PROVENANCE]))

    @cached_property
    def pair(self) -> Pair | None:
        """The pair of the registry that was measured: by place for committed results, else by the specs of both sides.

        None for checkpoints that the registry does not know. A name alone proves nothing, since anyone may choose it.
        """
        if self.known:
            return self.known
        committed = data_root() / "results"
        if self.folder and self.folder.resolve().is_relative_to(committed.resolve()):
            return find_pair(self.folder.resolve().relative_to(committed.resolve()).parts[0])
        specs = (self.provenance["source"]["spec"], self.provenance["trained"]["spec"])
        return next((p for p in registry().values() if (p.source, p.trained) == specs), None)

    def verdict(self, null: str, key: str) -> str:
        """Whether this null explains a number (`opdlib.stats`); empty where it says nothing about it, or was not
        measured."""
        return str(self.summary.get("explained", {}).get(null, {}).get(key, {}).get("verdict", ""))

    @property
    def title(self) -> str:
        """What tables and figures call the pair."""
        return self.name or (self.pair.title if self.pair else str(self.summary["pair"]))

    @property
    def view(self) -> str:
        """bf16 or stored."""
        return str(self.summary["view"])

    @cached_property
    def tensors(self) -> pd.DataFrame:
        """One row a parameter; `layer` is a nullable integer, `part`, `block` and `module` are ordered categories."""
        frame = self.read("tensors").astype({"layer": "Int64"})
        orders = {"part": PARTS, "block": BLOCKS, "module": module_order(frame["module"])}
        for column, order in orders.items():
            frame[column] = pd.Categorical(frame[column], categories=list(order), ordered=True)
        return frame

    @cached_property
    def layers(self) -> pd.DataFrame:
        """One row a layer: the numbers of the summary's layers, under their dotted keys."""
        return pd.json_normalize(self.summary["layers"])

    @cached_property
    def matrices(self) -> pd.DataFrame:
        """One row a number of a matrix that changed: tensor, expert, route, metric, side ("" where there is none), at,
        atol, value, expected (what chance alone would give). Raises RegistryError if only sparsity was measured."""
        if "geometry" not in self.provenance["identity"]["metrics"]:
            raise RegistryError(f"{self.title}: only its sparsity was measured; measure it again without --only")
        floats = dict.fromkeys(("expert", "at", "atol", "value", "expected"), float)
        return self.read("geometry").astype({"side": object, **floats}).fillna({"side": ""})

    def labelled(self, table: pd.DataFrame) -> pd.DataFrame:
        """The table with the first columns of every table: pair, regime (empty if unknown), origin `here`, view."""
        labels = {
            "pair": self.title,
            "regime": self.pair.regime if self.pair else "",
            "origin": "here",
            "view": self.view,
        }
        return pd.DataFrame(labels, index=table.index).join(table)

    def read(self, name: str) -> pd.DataFrame:
        """The table `name` of the folder as it is stored. Raises RegistryError if it is missing or is none."""
        content, place = io.BytesIO(self._content(f"{name}.csv")), f"{self.folder or self.title}: {name}.csv"
        with foreign(place, RegistryError, layout.AGAIN):
            table = pd.read_csv(content, dtype=dict.fromkeys(TEXT, "str"), keep_default_na=False, na_values=[""])
        wanted = TABLES.get(name, ())
        lacking = [column for column in wanted if column not in table]
        numbers = (
            [c for c in wanted if c in table and c not in TEXT] if len(table) else []
        )  # of no rows pandas does not know the type
        words = [c for c in numbers if not pd.api.types.is_numeric_dtype(table[c])]
        named = [c for c in NAMED if name == "tensors" and c in table and table[c].isna().any()]
        if lacking or words or named:
            found = f"has no column {lacking[0]}" if lacking else f"has words in its column {words[0]}" if words else ""
            found = found or f"has an empty cell in its column {named[0]}"
            raise RegistryError(f"{place}: {found}; {layout.AGAIN}")
        return table

    def save(self, folder: str | Path) -> Path:
        """Write all files into `folder`, whole or not at all, as `opd measure --out` does, and return it.

        Raises OutputError if it cannot be written, or holds other results.
        """
        names = {*self.files, *(self.provenance[layout.DIGESTS] if self.folder else ())}
        files = {name: self._content(name) for name in sorted(names)}
        with locked(Path(folder), f"results of {self.title}") as place:
            layout.refuse_other(place, self.provenance["identity"])
            write_together(place, files, layout.FILES)
        return Path(folder)

    def _content(self, file: str) -> bytes:
        """What a file holds, in memory or as the provenance knows it. Raises RegistryError for any other."""
        if file in self.files:
            return self.files[file].encode()
        if self.folder is None:
            raise RegistryError(f"{self.title}: {file}: missing; the results are not whole, {layout.AGAIN}")
        if file == layout.PROVENANCE:
            return (self.folder / file).read_bytes()
        return layout.read_file(self.folder, file, self.provenance)


def open_results(name: str | Path, view: str = "bf16") -> Results:
    """Results by pair key, alias or folder. Raises RegistryError, with what to run, if there are none.

    >>> import opdlib
    >>> results = opdlib.open_results("smollm2-opd")
    >>> results.title, results.summary["parameters"], len(results.layers)
    ('SmolLM2 OPD', 134515008, 30)
    """
    return Results(layout.results_folder(str(name), view))
