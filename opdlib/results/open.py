"""A results folder in the hand: its files, and what they say about themselves."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from opdlib.checkpoints.names import BLOCKS, PARTS, module_order
from opdlib.errors import RegistryError
from opdlib.files import data_root
from opdlib.registry.pairs import Pair, find_pair, registry
from opdlib.results.layout import read_provenance, read_summary, results_folder


@dataclass(frozen=True)
class Results:
    """The measured numbers of one pair in one view. Files are read when they are needed, once."""

    folder: Path
    name: str = ""
    """What tables and figures call the pair, if not what the registry or the summary says."""
    known: Pair | None = None
    """The pair of the registry, where the caller knows it."""

    @cached_property
    def summary(self) -> dict[str, Any]:
        """The summary, as `opd summary --json` prints it."""
        return read_summary(self.folder)

    @cached_property
    def provenance(self) -> dict[str, Any]:
        """What was compared, with digests, versions and reasons."""
        return read_provenance(self.folder)

    @cached_property
    def pair(self) -> Pair | None:
        """The pair of the registry that was measured: by place for committed results, else by the specs of both sides.

        None for checkpoints that the registry does not know. A name alone proves nothing, since anyone may choose it.
        """
        if self.known:
            return self.known
        committed = data_root() / "results"
        if self.folder.resolve().is_relative_to(committed.resolve()):
            return find_pair(self.folder.resolve().relative_to(committed.resolve()).parts[0])
        specs = (self.provenance["source"]["spec"], self.provenance["trained"]["spec"])
        return next((p for p in registry().values() if (p.source, p.trained) == specs), None)

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
        """The table `name` of the folder as it is stored. Raises RegistryError if it is missing."""
        file = self.folder / f"{name}.csv"
        if not file.is_file():
            raise RegistryError(f"{file}: missing, so the results are not whole; measure the pair again")
        return pd.read_csv(file)


def open_results(name: str | Path, view: str = "bf16") -> Results:
    """Results by pair key, alias or folder. Raises RegistryError, with what to run, if there are none."""
    return Results(results_folder(str(name), view))
