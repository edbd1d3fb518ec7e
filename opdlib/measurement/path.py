"""The checkpoints of one training in one pass: tensors outside, steps inside, each source matrix decomposed once.

What `opdlib.measurement.trajectory` measures of a training that is under way, a step at a time, is measured here of one
whose checkpoints are all there. The control is cheaper: one walk for each shape of matrix, of strides whose norm is the
root mean square over the matrices of that shape, instead of one for each matrix.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from opdlib.checkpoints.checkpoint import Checkpoint
from opdlib.measurement.cores import workers_of
from opdlib.measurement.geometry import differ, has_geometry, solved
from opdlib.measurement.ledger import Ledger
from opdlib.measurement.several import align_all, each_tensor, read_finite
from opdlib.measurement.trajectory import NUMBERS, PROJECTED, control, numbers_of
from opdlib.metrics.eigen import one_blas_thread
from opdlib.metrics.gram import blocks
from opdlib.metrics.sparsity import relative_norm
from opdlib.metrics.subspace import ANGLE_SHARE, Basis, leading_basis, rank_of, update_basis
from opdlib.metrics.trajectory import DIRECTIONS, Stride, compared, locks
from opdlib.stats import median

SIDES = ("left", "right")
LARGEST_WALK = 1 << 26
"""Coordinates of a matrix beyond which its shape has no control: a walk is held whole."""

Row = dict[str, float]


def measure_path(
    source: Checkpoint,
    steps: Sequence[Checkpoint],
    *,
    view: str = "bf16",
    skip: Sequence[str] = (),
    rename: Mapping[str, str] | None = None,
    ledger: Ledger | None = None,
    workers: int | None = None,
    progress: bool | None = False,
) -> list[Row]:
    """A row for every checkpoint of `steps`, which are in the order of the training.

    | keys | what |
    | --- | --- |
    | `rel_norm`, `exact_zero` | of the update since the source, as in `opd summary` |
    | `stable_rank`, `svd_energy.*`, `projection.*` | medians over the matrices that changed by then |
    | `step_cosine` | of what was added since the checkpoint before and what was added before that |
    | `locking.*` | similarity of the leading subspace of the update to that of the last one, median over matrices |
    | `locking_norms.*` | the same of a running sum of unrelated strides that have the norms of these |

    NaN where a number is undefined. Options as for `measure_all`. Raises AlignmentError, MeasureError.
    """
    matches, _ = align_all(source, steps, skip, rename)
    shapes = {name: own[0].info.shape for name, own in matches.items()}

    def one(name: str) -> dict[str, Any]:
        seen = (read_finite(step, match.trained, view) for step, match in zip(steps, matches[name], strict=True))
        return _tensor(source.spec, name, read_finite(source, matches[name][0].source, view), seen)

    found = each_tensor(one, shapes, ledger, workers_of(workers), progress)
    matrices = [matrix for tensor in found.values() for matrix in tensor["matrices"]]
    walks = _walks(matrices, len(steps))
    return [_row(found, matrices, walks, step) for step in range(len(steps))]


def _tensor(spec: str, name: str, before: Tensor, steps: Iterator[Tensor]) -> dict[str, Any]:
    """What is kept of one tensor, for the ledger: sums of each step, and if it is a matrix its numbers step by step."""
    whole = bool(has_geometry(tuple(before.shape)))

    def rows(tensor: Tensor) -> Tensor:
        return tensor.reshape(1, tensor.numel()) if tensor.ndim < 2 else tensor.flatten(0, -2)

    found = _Matrix(spec, name, rows(before), whole)
    sums = [found.add(rows(step)) for step in steps]
    matrices = [] if whole else [found.kept()]
    energy = math.fsum(float(block.square().sum()) for _, block in blocks(rows(before)))
    return {"size": before.numel(), "source": energy, "sums": sums, "matrices": matrices}


class _Matrix:
    """One matrix on its way; of the checkpoints before only the last two are held."""

    def __init__(self, spec: str, name: str, source: Tensor, whole: bool):
        self._spec, self._name, self._source, self._whole = spec, name, source, whole
        self._last, self._earlier = source, source
        self._basis: Basis | None = None
        self._numbers: list[Row] = []
        self._bases: list[tuple[Tensor, Tensor] | None] = []
        self._norms: list[float] = []

    def add(self, now: Tensor) -> list[float]:
        """Take the next checkpoint: its unchanged coordinates, and sums of products, of the update with itself, of the
        stride with the one before, of each of these two with itself."""
        sums = np.zeros(5)
        rows = zip(*(blocks(side) for side in (self._source, self._earlier, self._last, now)), strict=True)
        for (_, before), (_, earlier), (_, last), (_, own) in rows:
            delta, stride, past = own - before, own - last, last - earlier
            sums[0] += int((delta == 0).sum())
            sums[1:] += [
                float((a * b).sum()) for a, b in ((delta, delta), (stride, past), (stride, stride), (past, past))
            ]
        self._norms.append(math.sqrt(sums[3]))
        if not self._whole:
            self._look(now)
        self._earlier, self._last = self._last, now
        return [float(number) for number in sums]

    def _look(self, now: Tensor) -> None:
        if not differ(self._source, now):
            self._numbers.append({})
            self._bases.append(None)
            return
        shape = (int(now.shape[0]), int(now.shape[1]))
        with solved(self._spec, self._name, now):
            self._basis = self._basis or leading_basis(self._source, rank_of(ANGLE_SHARE, shape))
            own, inside = update_basis(self._source, now, min(DIRECTIONS, *shape), self._basis)
        self._numbers.append(numbers_of(own, [getattr(inside, side)[ANGLE_SHARE] for side in PROJECTED]))
        self._bases.append((own.left.float(), own.right.float()) if locks(own) else None)

    def kept(self) -> dict[str, Any]:
        """After the last checkpoint: what the rows are made of."""
        alike = [compared(own, self._bases[-1]) for own in self._bases]
        shape = [int(side) for side in self._source.shape]
        return {"shape": shape, "norms": self._norms, "numbers": self._numbers, "alike": alike}


def _walks(matrices: Sequence[Mapping[str, Any]], steps: int) -> dict[tuple[int, int], list[tuple[float, float]]]:
    """Shape -> similarity to the end of a walk of unrelated strides, left and right, after each of them."""
    norms: dict[tuple[int, int], list[list[float]]] = {}
    for matrix in matrices:
        shape = (int(matrix["shape"][0]), int(matrix["shape"][1]))
        norms.setdefault(shape, []).append(matrix["norms"])
    found = {}
    for shape, own in sorted(norms.items()):
        strides = [Stride(float(norm), ()) for norm in np.sqrt(np.square(own).mean(axis=0))]
        walked = min(shape) > DIRECTIONS and math.prod(shape) <= LARGEST_WALK
        with one_blas_thread():
            found[shape] = control(str(shape), "norms", shape, strides) if walked else [(math.nan, math.nan)] * steps
    return found


def _row(
    tensors: Mapping[str, Mapping[str, Any]],
    matrices: Sequence[Mapping[str, Any]],
    walks: Mapping[tuple[int, int], Sequence[tuple[float, float]]],
    step: int,
) -> Row:
    sums = [tensor["sums"][step] for tensor in tensors.values()]
    unchanged, delta, product, stride, past = map(math.fsum, zip(*sums, strict=True))
    source, size = (math.fsum(tensor[what] for tensor in tensors.values()) for what in ("source", "size"))
    numbers = [matrix["numbers"][step] for matrix in matrices if matrix["numbers"][step]]
    locking = [matrix["alike"][step] for matrix in matrices]
    walked = [walks[matrix["shape"][0], matrix["shape"][1]][step] for matrix in matrices]
    return {
        "rel_norm": relative_norm(delta, source),
        "exact_zero": unchanged / size if size else math.nan,
        **{key: median([own[key] for own in numbers]) for key in NUMBERS},
        "step_cosine": product / math.sqrt(stride * past) if stride * past else math.nan,
        **{f"locking.{side}": median([own[place] for own in locking]) for place, side in enumerate(SIDES)},
        **{f"locking_norms.{side}": median([own[place] for own in walked]) for place, side in enumerate(SIDES)},
    }
