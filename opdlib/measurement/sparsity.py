"""The sparsity pass: one look at every tensor of a pair, and sums that are added in the same order every time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from opdlib.checkpoints.checkpoint import Checkpoint
from opdlib.measurement.align import Alignment, Delta, Match, delta_of, not_finite, read_delta
from opdlib.measurement.ledger import Arrays
from opdlib.measurement.nulls import Noise, noise
from opdlib.metrics.histogram import DeltaHistogram, Finer, Members, NonFiniteError, Scan, scan, total
from opdlib.metrics.nulls import Visibility, visibility
from opdlib.metrics.sparsity import ABSOLUTE, Sparsity, sparsity, top_energies

GROUP = 1 << 25
"""Coordinates after which a group of tensors is a part of its own."""


@dataclass(frozen=True)
class TensorResult:
    """What was measured of one parameter."""

    match: Match
    sparsity: Sparsity
    changed_matrices: int
    """1 for a matrix with a nonzero delta, else 0."""
    noise: Noise | None = None
    """What visibility puts in the place of the update; None where it was not asked for."""
    visible: Visibility | None = None
    """What would be seen of that; None too where the noise has no scale."""


@dataclass(frozen=True)
class Pass:
    """What one sparsity pass over a pair gives; `opdlib.measurement.schedule.Measurement` has the same fields."""

    tensors: tuple[TensorResult, ...]
    histogram: DeltaHistogram
    top: Mapping[float, float]


def whole(
    source: Checkpoint, trained: Checkpoint, alignment: Alignment, view: str, parts: Sequence[tuple[Any, Arrays]]
) -> Pass:
    """Put together what `to_ledger` kept of every group, in their order."""
    results = [
        _from_json(match, row)
        for matches, (rows, _) in zip(groups(alignment), parts, strict=True)
        for match, row in zip(matches, rows, strict=True)
    ]
    histogram = total([])
    for _, arrays in parts:
        histogram = total([histogram, _from_arrays(arrays)])
    top = top_energies(histogram, lambda bins: _members(source, trained, alignment, view, bins))
    return Pass(tuple(results), histogram, top)


def sparsity_key(number: int) -> str:
    """The name of a group in a ledger."""
    return f"sparsity-{number:05d}"


def groups(alignment: Alignment) -> Iterator[list[Match]]:
    """Consecutive tensors of at least GROUP coordinates: fixed, so that sums are added in the same order every time."""
    group: list[Match] = []
    size = 0
    for match in alignment.matches:
        group.append(match)
        size += match.info.numel
        if size >= GROUP:
            yield group
            group, size = [], 0
    if group:
        yield group


def measure_group(
    source: Checkpoint, trained: Checkpoint, matches: Sequence[Match], view: str, scales: Mapping[str, float] | None
) -> tuple[list[TensorResult], DeltaHistogram]:
    """One part of the pass: a result for each tensor, and the histogram of all.

    With `scales` (name -> root mean square of the delta before rounding, where somebody knows it) comes what visibility
    expects. Raises MeasureError for NaN and Inf.
    """
    results, histograms = [], []
    for match in matches:
        stored = match.source.read(source), match.trained.read(trained)
        seen = _scan(source, trained, delta_of(match, *stored, view), view)
        numbers = sparsity(seen.histogram, seen.members)
        own, visible = None, None
        if scales is not None and view == "bf16":
            own = noise(*stored, seen.histogram, scales.get(match.name))
            if not math.isnan(own.scale):
                visible = visibility(seen.histogram.magnitude_bins, seen.histogram.magnitudes, own.scale, ABSOLUTE)
        changed = int(len(match.info.shape) == 2 and seen.histogram.changed > 0)
        results.append(TensorResult(match, numbers, changed, own, visible))
        histograms.append(seen.histogram)
    return results, total(histograms)


def _scan(source: Checkpoint, trained: Checkpoint, delta: Delta, view: str) -> Scan:
    try:
        return scan(delta.source, delta.trained)
    except NonFiniteError as error:
        checkpoint, place = (source, delta.match.source) if error.side == "source" else (trained, delta.match.trained)
        raise not_finite(checkpoint, place, view) from error


def _members(
    source: Checkpoint, trained: Checkpoint, alignment: Alignment, view: str, bins: Sequence[int]
) -> dict[int, Members]:
    """A second pass over the whole model: only when a cut of the model's ranking falls among inexact differences."""
    finer = Finer(bins)
    for match in alignment.matches:
        delta = read_delta(source, trained, match, view)
        finer.add(delta.source, delta.trained)
    return finer.members()


def to_ledger(results: Sequence[TensorResult], histogram: DeltaHistogram) -> tuple[Any, Arrays]:
    """What a ledger keeps of a group: records and arrays."""
    return [_to_json(r) for r in results], _to_arrays(histogram)


def _to_json(result: TensorResult) -> dict[str, Any]:
    row = asdict(result.sparsity)
    for key in ("absolute", "relative", "top"):  # JSON has no float keys
        row[key] = list(row[key].items())
    seen = result.visible
    visible = [seen.scale, seen.exact_zero, *(list(m.items()) for m in (seen.absolute, seen.changed))] if seen else None
    noise = [result.noise.scale, result.noise.known_from] if result.noise else None
    more = {"changed_matrices": result.changed_matrices, "name": result.match.name, "noise": noise}
    return row | more | {"visible": visible}


def _from_json(match: Match, row: dict[str, Any]) -> TensorResult:
    numbers = {f.name: row[f.name] for f in fields(Sparsity)}
    for key in ("absolute", "relative", "top"):
        numbers[key] = {float(at): value for at, value in numbers[key]}
    visible = None
    if row["visible"]:
        scale, exact_zero, absolute, changed = row["visible"]
        visible = Visibility(scale, exact_zero, dict(absolute), dict(changed))
    known = Noise(*row["noise"]) if row["noise"] else None
    return TensorResult(match, Sparsity(**numbers), row["changed_matrices"], known, visible)


def _to_arrays(histogram: DeltaHistogram) -> dict[str, NDArray[Any]]:
    return {f.name: np.asarray(getattr(histogram, f.name)) for f in fields(DeltaHistogram)}


def _from_arrays(arrays: Any) -> DeltaHistogram:
    values = {f.name: arrays[f.name] for f in fields(DeltaHistogram)}
    return DeltaHistogram(**{name: v.item() if v.ndim == 0 else v for name, v in values.items()})
