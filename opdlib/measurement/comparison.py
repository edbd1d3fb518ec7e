"""All pairs of several trained checkpoints over one source, in one pass over their tensors."""

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import torch
from torch import Tensor

from opdlib.checkpoints.checkpoint import Checkpoint
from opdlib.checkpoints.names import parse
from opdlib.errors import ParameterError
from opdlib.measurement.align import view_of
from opdlib.measurement.cores import workers_of
from opdlib.measurement.geometry import differ, has_geometry, solved
from opdlib.measurement.ledger import Ledger
from opdlib.measurement.nulls import has_masters
from opdlib.measurement.overlap import ATOL, OverlapPart, together
from opdlib.measurement.several import align_all, each_tensor, read_finite
from opdlib.metrics import overlap as of
from opdlib.metrics.overlap import Counts
from opdlib.metrics.subspace import update_basis
from opdlib.metrics.trajectory import DIRECTIONS, compared, locks
from opdlib.quantities import flat

CHUNK = 1 << 20
"""Coordinates of a tensor that are multiplied at a time, of all checkpoints together."""


def compare_all(
    source: Checkpoint,
    trained: Sequence[Checkpoint],
    *,
    atol: float = ATOL,
    view: str = "bf16",
    skip: Sequence[str] = (),
    rename: Mapping[str, str] | None = None,
    ledger: Ledger | None = None,
    workers: int | None = None,
    progress: bool | None = False,
) -> list[dict[str, Any]]:
    """A row for each two of `trained`, in the order of `itertools.combinations`; None where a number is undefined.

    Keys are those of `opdlib.measurement.overlap.overlap` for the whole model, dotted (`expected.magnitude.o1`), and
    `subspace.left`, `subspace.right`: similarity of the leading 16 directions of both updates (mean squared cosine of
    the principal angles), median over the matrices that determine them, beside `subspace_expected.left` and `.right`,
    what directions that are drawn have. Raises AlignmentError, MeasureError, and ParameterError for fewer than two
    checkpoints.
    """
    if len(trained) < 2:
        raise ParameterError(f"{len(trained)} trained checkpoint to compare; wanted two or more")
    pairs = [*combinations(range(len(trained)), 2)]
    matches, _ = align_all(source, trained, skip, rename)
    shapes = {name: own[0].info.shape for name, own in matches.items()}

    def one(name: str) -> dict[str, Any]:
        sides = [(side, match.trained) for side, match in zip(trained, matches[name], strict=True)]
        places = [(source, matches[name][0].source), *sides]
        stored, *others = (read_finite(side, place, "stored") for side, place in places)
        return _tensor(source.spec, name, stored, others, view, atol)

    found = each_tensor(one, shapes, ledger, workers_of(workers), progress)
    rows = []
    for place, (a, b) in enumerate(pairs):
        parts = []
        for name, kept in found.items():
            known = kept["products"]
            products = (known[a][b], known[a][a], known[b][b]) if known else None
            parts.append(OverlapPart(parse(name), [Counts(*counts) for counts in kept["counts"][place]], products))
        alike = [m for kept in found.values() for m in kept["matrices"] if not math.isnan(m["alike"][place][0])]
        rows.append(dict(flat(together(parts))) | _subspaces(alike, place))
    return rows


def _subspaces(matrices: Sequence[dict[str, Any]], place: int) -> dict[str, Any]:
    found: dict[str, Any] = {"subspace_matrices": len(matrices)}
    for side, name in enumerate(("left", "right")):
        values = [m["alike"][place][side] for m in matrices]
        chances = [DIRECTIONS / m["shape"][side] for m in matrices]
        found[f"subspace.{name}"] = float(np.median(values)) if values else None
        found[f"subspace_expected.{name}"] = float(np.median(chances)) if chances else None
    return found


def _tensor(spec: str, name: str, stored: Tensor, sides: Sequence[Tensor], view: str, atol: float) -> dict[str, Any]:
    """What is kept of one tensor, for the ledger: counts of each pair, products of all deltas, subspaces."""
    before, after = view_of(stored, view), [view_of(side, view) for side in sides]
    exact = [tensor.to(torch.float32) for tensor in (before, *after)]  # as the kernel takes them, converted once
    counts = [
        [[c.size, c.a, c.b, c.both, c.alike] for c in of.count(exact[0], exact[a + 1], exact[b + 1], atol)]
        for a, b in combinations(range(len(sides)), 2)
    ]
    del exact
    known = all(has_masters(side) or not differ(stored, side) for side in sides)
    matrices = [] if has_geometry(tuple(before.shape)) else [_matrix(spec, name, before, after)]
    return {"counts": counts, "products": _products(stored, sides) if known else None, "matrices": matrices}


def _products(source: Tensor, sides: Sequence[Tensor]) -> list[list[float]]:
    """Inner products of all deltas before rounding."""
    total = torch.zeros(len(sides), len(sides), dtype=torch.float64)
    flat_source, flat_sides = source.flatten(), [side.flatten() for side in sides]
    for start in range(0, source.numel(), CHUNK):
        here = slice(start, start + CHUNK)
        deltas = torch.stack([side[here].double() for side in flat_sides]) - flat_source[here].double()
        total += deltas @ deltas.mT
    products: list[list[float]] = total.tolist()
    return products


def _matrix(spec: str, name: str, before: Tensor, after: Sequence[Tensor]) -> dict[str, Any]:
    shape = [int(side) for side in before.shape]
    bases = []
    for side in after:
        with solved(spec, name, before):
            own = update_basis(before, side, min(DIRECTIONS, *shape))[0] if differ(before, side) else None
        bases.append((own.left, own.right) if own and locks(own) else None)
    return {"shape": shape, "alike": [compared(a, b) for a, b in combinations(bases, 2)]}
