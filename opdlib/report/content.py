"""All that a report shows, as plain JSON: the same for the same results, wherever they lie.

A page is made of this and of pictures alone, so that `opdlib.report.verify` can make both again and compare.
"""

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from pydantic import BaseModel, Field

import opdlib
from opdlib.checkpoints.series import step_of
from opdlib.report.findings import repeated
from opdlib.results.known import MORE, Numbers, Summary
from opdlib.results.layout import PROVENANCE, read_provenance
from opdlib.results.open import Results
from opdlib.tables import measured
from opdlib.tables.geometry import has_geometry, spread
from opdlib.tables.study import repeats

FORMAT = 1
"""Raised whenever a report of an older one can no longer be read."""
WHOLE = 3
"""Pairs up to which each has figures of its own."""
LARGEST = 12
"""Tensors that the list of the largest has."""
MAPPED = ("coverage.low.0.1", "coverage.principal.0.1", "svd_energy.16", "projection.joint.0.1")
"""Numbers of matrices that the table of layers and modules has, as medians."""
ORIGINS = (
    *("source", "trained", "identity", "tied_or_skipped", "notes", "renamed", "undefined", "device"),
    *("versions", "note"),
)

Content = dict[str, Any]


class Block(BaseModel):
    """What a page shows of a block of a summary, or of a layer."""

    model_config = MORE
    __pydantic_extra__: dict[str, Numbers]

    rel_norm: float | None
    energy_share: float | None


class Sized(Block):
    """The same of a block."""

    parameter_share: float


class Reported(Summary):
    """A summary that a page can be made of: something was compared."""

    exact_zero: float
    blocks: dict[str, Sized] = Field(min_length=1)  # type: ignore[assignment]  # narrower on purpose
    layers: list[Block]  # type: ignore[assignment]


def content_of(pairs: Sequence[Results], regime: str = "") -> Content:
    """What a report of these results shows; `regime` is what the user says of pairs that the registry does not know.

    Beyond `WHOLE` pairs the last one alone has its figures and its table of layers and modules.
    """
    anchors = [re.sub(r"\W+", "-", results.title) for results in pairs]
    entries = [entry_of(results, regime, len(pairs) <= WHOLE or results is pairs[-1]) for results in pairs]
    for number, (entry, anchor) in enumerate(zip(entries, anchors, strict=True), start=1):
        entry["anchor"] = anchor if anchors.count(anchor) == 1 else f"{anchor}-{number}"
    return {"format": FORMAT, "opdlib": opdlib.__version__, "pairs": entries}


def canonical(content: Mapping[str, Any]) -> str:
    """The content as text, without a `<`, so that no page ends in it. Rows keep the order of their columns."""
    return json.dumps(content, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def digest(text: str | bytes) -> str:
    """SHA-256 as 64 hex digits."""
    return hashlib.sha256(text.encode() if isinstance(text, str) else text).hexdigest()


def entry_of(results: Results, regime: str, whole: bool) -> Content:
    """What a report shows of one pair."""
    summary, provenance, tensors = results.summary, results.provenance, results.tensors
    known = results.pair
    keys = repeated(summary)
    return {
        "name": results.title,
        "regime": known.regime if known and known.regime else regime,
        "view": results.view,
        "step": step_of(provenance["trained"]["spec"]),
        "summary": summary,
        "provenance": {key: provenance[key] for key in ORIGINS if key in provenance} | _masters(results),
        "dtypes": {side: sorted(set(tensors[f"dtype_{side}"])) for side in ("source", "trained")},
        "no_matrix": {str(k): int(n) for k, n in tensors["no_matrix_because"].dropna().value_counts().items()},
        "repeats": {finding: [*map(float, repeats(known, key))] for finding, key in keys.items()},
        "whole": whole,
        "modules": _records(_modules(results)) if whole else [],
        "largest": _records(largest(results)),
    }


def _masters(results: Results) -> Content:
    """The float32 weights of which rounding shows a part, where their update was measured beside it and gives the null
    of rounding its scale, as in every run of `opd train`."""
    beside = results.folder and results.folder / "stored"
    if results.summary.get("nulls_scale") != "fp32" or not beside or not (beside / PROVENANCE).is_file():
        return {}
    return {"masters": read_provenance(beside)["trained"]}


def _modules(results: Results) -> pd.DataFrame:
    """A row for each layer and module: norm, energy, what is unchanged, and of its matrices what `MAPPED` names."""
    by = "layer and module"
    places = [*measured.GROUPS[by]]
    table = measured.movement(results, by)[[*places, "parameters", "exact_zero", "rel_norm", "energy_share"]]
    if not has_geometry(results):
        return table
    medians = spread(results, by=by)
    for key in MAPPED:
        own = medians[medians["quantity"] == key][[*places, "value"]]
        table = table.merge(own.rename(columns={"value": key}), on=places, how="left")
    return table


def largest(results: Results, count: int = LARGEST) -> pd.DataFrame:
    """The tensors that hold most of the update's energy: tensor, block, shape, parameters, energy_share, rel_norm,
    exact_zero."""
    table = measured.movement(results, "tensor").merge(results.tensors[["tensor", "shape"]], on="tensor")
    ordered = table.sort_values("energy_share", ascending=False, kind="stable").head(count)
    columns = ["tensor", "block", "shape", "parameters", "energy_share", "rel_norm", "exact_zero"]
    return ordered[columns]


def _records(table: pd.DataFrame) -> list[Content]:
    """Rows of plain values; None where there is none."""
    return [{str(key): _plain(value) for key, value in row.items()} for row in table.to_dict("records")]


def _plain(value: Any) -> Any:
    if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return None
    return value.item() if hasattr(value, "item") else value
