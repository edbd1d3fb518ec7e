"""Overlap of what two checkpoints changed in one source: in total, by layer, module and tensor."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from opdlib.checkpoints import open_checkpoint
from opdlib.checkpoints.checkpoint import Checkpoint
from opdlib.checkpoints.names import Param
from opdlib.errors import ParameterError
from opdlib.measurement.align import VIEWS, check_finite, view_of
from opdlib.measurement.geometry import differ
from opdlib.measurement.nulls import has_masters
from opdlib.measurement.several import align_all
from opdlib.metrics import overlap as of
from opdlib.metrics.overlap import Counts, Overlap

ATOL = 1e-5
"""The paper's Table 4."""


def check_atol(atol: float) -> None:
    """Raise ParameterError for a threshold that no difference can be compared with."""
    if not (math.isfinite(atol) and atol >= 0):
        raise ParameterError(f"atol {atol}; wanted a finite number from 0 up")


def overlap(
    source: str | Path | Checkpoint,
    a: str | Path | Checkpoint,
    b: str | Path | Checkpoint,
    *,
    atol: float = ATOL,
    view: str = "bf16",
    skip: Sequence[str] = (),
    rename: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Overlap of the update masks abs(delta) > atol of two checkpoints over one source.

    Beside each number stands what independent masks of the same densities would give: over all coordinates (`global`,
    the paper's baseline), within each tensor (`tensor`), and within each binade of abs(source) of each tensor
    (`magnitude`). `cosine` is that of the two deltas before rounding, where both checkpoints are stored in float32,
    else None; `latent_cosine` is what the overlap needs it to be (see `opdlib.metrics.overlap.latent_cosine`), from the
    rounded deltas alone. An undefined share is None; `notes` are there if tensors are compared in part. Raises
    AlignmentError if the three do not hold the same tensors, MeasureError for NaN and
    Inf, ParameterError for atol < 0 or an unknown view.

    >>> import opdlib
    >>> found = opdlib.overlap("base", "trained", "other")
    >>> f"{found['jaccard']:.2f} of what one or the other moved, both moved"
    '0.56 of what one or the other moved, both moved'
    >>> f"by chance: {found['expected']['global']['jaccard']:.2f}"
    'by chance: 0.44'
    """
    check_atol(atol)
    if view not in VIEWS:
        raise ParameterError(f"view {view!r}; wanted one of {', '.join(VIEWS)}")
    source, a, b = map(open_checkpoint, (source, a, b))
    matches, notes = align_all(source, (a, b), skip, rename)
    tensors: list[OverlapPart] = []
    for match, other in matches.values():
        places = (source, match.source), (a, match.trained), (b, other.trained)
        sides = [place.read(checkpoint) for checkpoint, place in places]
        before, after_a, after_b = seen = [view_of(tensor, view) for tensor in sides]
        for (checkpoint, place), tensor in zip(places, seen, strict=True):
            check_finite(checkpoint, place, tensor, view)
        tensors.append(OverlapPart(match.param, of.count(before, after_a, after_b, atol), _products(*sides)))
    for side in (source, a, b):
        side.check_unchanged()
    return {
        "view": view,
        "atol": atol,
        **({"notes": notes} if notes else {}),
        **together(tensors),
        "layers": _grouped(tensors, "layer", lambda p: p.layer if p.part == "language" else None),
        "modules": _grouped(tensors, "module", lambda p: p.module),
        "tensors": _grouped(tensors, "tensor", lambda p: p.name),
    }


@dataclass(frozen=True)
class OverlapPart:
    """What is counted of one tensor for two trained checkpoints."""

    param: Param
    binades: list[Counts]
    products: tuple[float, float, float] | None
    """Of the deltas before rounding: a b, a a, b b; None where they are not known."""


def _products(source: Tensor, a: Tensor, b: Tensor) -> tuple[float, float, float] | None:
    if not all(has_masters(side) or not differ(source, side) for side in (a, b)):
        return None
    first, second = (side.double().flatten() - source.double().flatten() for side in (a, b))
    return float(first @ second), float(first @ first), float(second @ second)


def _cosine(tensors: Sequence[OverlapPart]) -> float:
    known = [t.products for t in tensors if t.products]
    if len(known) < len(tensors):
        return math.nan
    product, in_a, in_b = (math.fsum(column) for column in zip(*known, strict=True))
    return product / math.sqrt(in_a * in_b) if in_a and in_b else math.nan


def together(tensors: Sequence[OverlapPart]) -> dict[str, Any]:
    """The numbers of some tensors together."""
    wholes, parts = [of.total(t.binades) for t in tensors], [c for t in tensors for c in t.binades]
    whole = of.total(wholes)
    expected = {
        "global": of.expected_globally(whole),
        "tensor": of.expected_within(wholes),
        "magnitude": of.expected_within(parts),
    }
    return {
        **_shares(of.overlap(whole)),
        "density_a": _number(whole.a / whole.size if whole.size else math.nan),
        "density_b": _number(whole.b / whole.size if whole.size else math.nan),
        "cosine": _number(_cosine(tensors)),
        "latent_cosine": _number(of.latent_cosine(parts)),
        "equal_signs": _number(of.equal_signs(whole)),
        "expected": {baseline: _shares(overlap) for baseline, overlap in expected.items()},
    }


def _grouped(tensors: Sequence[OverlapPart], name: str, key: Callable[[Param], Any]) -> list[dict[str, Any]]:
    groups: dict[Any, list[OverlapPart]] = {}
    for t in tensors:
        if key(t.param) is not None:
            groups.setdefault(key(t.param), []).append(t)
    return [{name: value, **together(groups[value])} for value in sorted(groups)]


def _shares(found: Overlap) -> dict[str, float | None]:
    return {"o1": _number(found.o1), "o2": _number(found.o2), "jaccard": _number(found.jaccard)}


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
