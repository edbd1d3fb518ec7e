"""From two checkpoints to numbers: the only place where names, checkpoints and metrics meet."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from opdlib.checkpoints import Checkpoint
from opdlib.delta import VIEWS, Alignment, Delta, Match, align, read_delta
from opdlib.errors import MeasureError, ParameterError
from opdlib.ledger import Ledger
from opdlib.metrics.histogram import DeltaHistogram, NonFiniteError, Scan, scan, total
from opdlib.metrics.sparsity import Sparsity, sparsity, top_energies

FORMAT = 1
"""Raised whenever a stored number changes its meaning; results of another format are measured again."""

GROUP = 1 << 25
"""Coordinates after which a group of tensors is written to the ledger."""


@dataclass(frozen=True)
class TensorResult:
    """What was measured of one parameter."""

    match: Match
    sparsity: Sparsity
    changed_matrices: int
    """Matrices with a nonzero delta: 0 or 1 for a 2-D tensor, the number of changed experts for fused ones (3-D), else
    0."""


@dataclass(frozen=True)
class Measurement:
    """Everything measured of one pair, in one view."""

    name: str
    view: str
    origins: dict[str, dict[str, str]]
    """'source' and 'trained' -> spec, content digest and, from the Hub, commit."""
    skip: tuple[str, ...]
    alignment: Alignment
    tensors: tuple[TensorResult, ...]
    histogram: DeltaHistogram
    """Of all compared coordinates together."""
    top: Mapping[float, float]
    """p -> energy of the largest coordinates in one ranking over the whole model."""

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What the numbers depend on; two measurements with equal identity have equal numbers."""
        return identity(
            self.origins["source"]["digest"],
            self.origins["trained"]["digest"],
            self.view,
            self.skip,
        )


def identity(source_digest: str, trained_digest: str, view: str, skip: Sequence[str]) -> dict[str, Any]:
    """The identity of a measurement, from the digests of its checkpoints and its options."""
    return {
        "source": source_digest,
        "trained": trained_digest,
        "view": view,
        "skip": sorted(skip),
        "metrics": ["sparsity"],
        "format": FORMAT,
    }


def measure(
    source: Checkpoint,
    trained: Checkpoint,
    *,
    name: str,
    view: str = "bf16",
    skip: Sequence[str] = (),
    workers: int | None = None,
    ledger: Path | None = None,
    progress: bool | None = False,
) -> Measurement:
    """Measure a pair: align strictly, then one pass over each tensor.

    `workers` threads share a tensor (default: the machine's cores); the numbers do not depend on it. With `ledger`, a
    folder, finished groups of tensors are kept there and a later call goes on from them. `progress` True shows a bar,
    None only on a terminal. Raises AlignmentError, MeasureError (NaN, Inf, dtype), ParameterError, OutputError.
    """
    if view not in VIEWS:
        raise ParameterError(f"view {view!r}; wanted one of {', '.join(VIEWS)}")
    if workers is not None and workers < 1:
        raise ParameterError(f"workers {workers}; wanted a number from 1 up")
    alignment = align(source, trained, skip)
    origins = {"source": source.origin(), "trained": trained.origin()}
    book = (
        Ledger(ledger, identity(origins["source"]["digest"], origins["trained"]["digest"], view, skip))
        if ledger
        else None
    )
    bar = tqdm(
        total=alignment.parameters,
        unit=" weights",
        unit_scale=True,
        desc=name,
        disable=_no_bar(progress),
    )
    results: list[TensorResult] = []
    histogram = total([])
    with bar, ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        for number, matches in enumerate(_groups(alignment)):
            known = book.load(number) if book else None
            if known is None:
                measured, part = _measure_group(source, trained, matches, view, pool)
                if book:
                    book.store(number, [_to_json(r) for r in measured], _to_arrays(part))
            else:
                measured = [_from_json(m, row) for m, row in zip(matches, known[0], strict=True)]
                part = _from_arrays(known[1])
            results += measured
            histogram = total([histogram, part])
            bar.update(part.size)
        top = top_energies(histogram, lambda bins: _members(source, trained, alignment, view, bins, pool))
    return Measurement(name, view, origins, tuple(skip), alignment, tuple(results), histogram, top)


def _no_bar(progress: bool | None) -> bool | None:
    return None if progress is None else not progress


def _groups(alignment: Alignment) -> Iterator[list[Match]]:
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


def _measure_group(
    source: Checkpoint, trained: Checkpoint, matches: list[Match], view: str, pool: Executor
) -> tuple[list[TensorResult], DeltaHistogram]:
    results, histograms = [], []
    for match in matches:
        delta = read_delta(source, trained, match, view)
        seen = _scan(source, trained, delta, pool)
        numbers = sparsity(seen.histogram, seen.members)
        results.append(TensorResult(match, numbers, _changed_matrices(delta, seen.histogram)))
        histograms.append(seen.histogram)
    return results, total(histograms)


def _scan(source: Checkpoint, trained: Checkpoint, delta: Delta, pool: Executor) -> Scan:
    try:
        return scan(delta.source, delta.trained, pool)
    except NonFiniteError as error:
        checkpoint, name = (source, delta.match.source) if error.side == "source" else (trained, delta.match.trained)
        place = [int(i) for i in np.unravel_index(error.index, delta.match.info.shape)]
        raise MeasureError(
            f"{checkpoint.spec}: {name} holds {error.count} NaN or Inf, the first {error.value} at {place}; "
            "wanted finite weights. Copy or save the checkpoint again, or leave the tensor out under skip (--skip NAME)"
        ) from error


def _changed_matrices(delta: Delta, histogram: DeltaHistogram) -> int:
    shape = delta.match.info.shape
    if len(shape) == 2:
        return int(histogram.changed > 0)
    if len(shape) == 3 and "experts" in delta.match.source.split("."):
        return int((delta.source != delta.trained).flatten(1).any(1).sum())
    return 0


def _members(
    source: Checkpoint,
    trained: Checkpoint,
    alignment: Alignment,
    view: str,
    bins: Sequence[int],
    pool: Executor,
) -> dict[int, NDArray[np.float64]]:
    """A second pass over the whole model: only when a cut of the model's ranking falls among inexact differences."""
    found: dict[int, list[NDArray[np.float64]]] = {b: [] for b in bins}
    for match in alignment.matches:
        seen = _scan(source, trained, read_delta(source, trained, match, view), pool)
        for b, values in seen.members(bins).items():
            found[b].append(values)
    return {b: np.sort(np.concatenate(values))[::-1] for b, values in found.items()}


def _to_json(result: TensorResult) -> dict[str, Any]:
    row = asdict(result.sparsity)
    for key in ("absolute", "relative", "top"):  # JSON has no float keys
        row[key] = list(row[key].items())
    return row | {"changed_matrices": result.changed_matrices, "name": result.match.source}


def _from_json(match: Match, row: dict[str, Any]) -> TensorResult:
    numbers = {f.name: row[f.name] for f in fields(Sparsity)}
    for key in ("absolute", "relative", "top"):
        numbers[key] = {float(at): value for at, value in numbers[key]}
    return TensorResult(match, Sparsity(**numbers), row["changed_matrices"])


def _to_arrays(histogram: DeltaHistogram) -> dict[str, NDArray[Any]]:
    return {f.name: np.asarray(getattr(histogram, f.name)) for f in fields(DeltaHistogram)}


def _from_arrays(arrays: Any) -> DeltaHistogram:
    values = {f.name: arrays[f.name] for f in fields(DeltaHistogram)}
    return DeltaHistogram(**{name: v.item() if v.ndim == 0 else v for name, v in values.items()})
