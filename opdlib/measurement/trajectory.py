"""One measured step of a training: its update since the source, and its stride since the step measured before.

Numbers of an update have the keys of `opd summary`. What the end of a run is needed for (similarity, controls) is
computed from what is kept of each step: bases of DIRECTIONS vectors a side and matrix, and its stride.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from opdlib.checkpoints.checkpoint import Checkpoint
from opdlib.measurement.align import VIEWS, align, check_finite, view_of
from opdlib.measurement.cores import over_cores, workers_of
from opdlib.measurement.cost import work
from opdlib.measurement.geometry import has_geometry, solved
from opdlib.metrics.draws import generator
from opdlib.metrics.sparsity import relative_norm
from opdlib.metrics.spectrum import Spectrum, stable_rank, top_share
from opdlib.metrics.subspace import ANGLE_SHARE, Basis, leading_basis, rank_of
from opdlib.metrics.trajectory import DIRECTIONS, Stride, compared, locks, shares_inside, walk_similarity

TOP = (1, 8, 16)
PROJECTED = ("joint", "left", "right")
NUMBERS = (
    *("stable_rank", *(f"svd_energy.{k}" for k in TOP)),
    *(f"projection.{side}.{ANGLE_SHARE:g}" for side in PROJECTED),
)
"""Keys of `numbers_of`."""
CONTROLS = ("norms", "spectra")
"""See `opdlib.metrics.trajectory`."""
KEPT = "stored"
"""The view whose strides are kept for the controls."""

Bases = tuple[Tensor, Tensor]
"""Left (m, K) and right (n, K) leading singular vectors of an update."""


@dataclass(frozen=True)
class MatrixStep:
    """What a step did to one matrix."""

    name: str
    shape: tuple[int, int]
    stride: Stride | None
    """None in every view but `stored`: controls are of what the training added, not of what rounding shows of it."""
    numbers: Mapping[str, float]
    """Of the update; none if there is no update. NaN where the source does not determine its subspace."""
    bases: Bases | None
    """float32; None where the update does not determine its leading subspace."""


@dataclass(frozen=True)
class TrainingStep:
    """What a step did to the model, in one view."""

    numbers: Mapping[str, float]
    """`rel_norm` and `exact_zero` of the update; `step_cosine` of this stride and the one before, over all coordinates.
    NaN where there is none before, or a norm is zero."""
    matrices: tuple[MatrixStep, ...]
    """By name."""


def measure_step(
    source: Checkpoint,
    trained: Checkpoint,
    last: Checkpoint,
    earlier: Checkpoint | None,
    *,
    views: Sequence[str] = VIEWS,
    skip: Sequence[str] = (),
    workers: int | None = None,
) -> dict[str, TrainingStep]:
    """Measure `trained` by view: its update since `source`, its stride since `last`, and how that turns from the one
    between `earlier` and `last`.

    At the first step of a run `last` is the source and there is no `earlier`. Views and `skip` as in
    `opdlib.measurement.schedule.measure_all`; no number depends on `workers`. Raises AlignmentError, MeasureError.
    """
    alignments = {side: align(source, side, skip) for side in (trained, last, earlier) if side is not None}
    places = {side: {m.name: m.trained for m in found.matches} for side, found in alignments.items()}
    own = {m.name: m.source for m in alignments[trained].matches}

    def one(name: str) -> dict[str, _Part]:
        stored = {side: places[side][name].read(side) for side in places}
        before, found, bases = own[name].read(source), {}, {}
        info = own[name].info
        for view in views:
            for side, tensor in stored.items():
                check_finite(side, places[side][name], view_of(tensor, view), view)
            seen = {side: view_of(tensor, view).double() for side, tensor in stored.items()}
            base = view_of(before, view).double()
            stride = seen[trained] - seen[last]
            past = torch.zeros(()) if earlier is None else seen[last] - seen[earlier]
            delta = seen.pop(trained).sub_(base)
            pairs = (delta, delta), (base, base), (stride, past), (stride, stride), (past, past)
            sums = [float((a * b).sum()) for a, b in pairs]
            matrices = []
            if not has_geometry(info.shape):
                # Both views of a source that is stored in bf16 are one.
                at = "" if info.dtype == "BF16" else view
                if at not in bases and delta.any():
                    bases[at] = _decomposed(source.spec, name, base, rank_of(ANGLE_SHARE, _shape(base)))
                matrices.append(_matrix(source.spec, name, bases.get(at), delta, stride if view == KEPT else None))
            found[view] = _Part(int((delta == 0).sum()), delta.numel(), sums, matrices)
        return found

    sizes = {name: work((1, *place.info.shape)) for name, place in own.items()}  # vectors have a size too
    parts = [*over_cores(one, sizes, workers_of(workers))]
    return {view: _whole([part[view] for part in parts]) for view in views}


@dataclass(frozen=True)
class _Part:
    """One tensor in one view."""

    unchanged: int
    size: int
    sums: Sequence[float]
    """Of squares of the update and of the source; of products and squares of this stride and the one before."""
    matrices: Sequence[MatrixStep]


def _whole(parts: Sequence[_Part]) -> TrainingStep:
    delta, source, product, stride, past = map(math.fsum, zip(*(part.sums for part in parts), strict=True))
    numbers = {
        "rel_norm": relative_norm(delta, source),
        "exact_zero": sum(part.unchanged for part in parts) / sum(part.size for part in parts),
        "step_cosine": product / math.sqrt(stride * past) if stride * past else math.nan,
    }
    matrices = (matrix for part in parts for matrix in part.matrices)
    return TrainingStep(numbers, tuple(sorted(matrices, key=lambda matrix: matrix.name)))


def _matrix(spec: str, name: str, source: Basis | None, delta: Tensor, stride: Tensor | None) -> MatrixStep:
    shape = _shape(delta)
    kept = None
    if stride is not None:
        kept = Stride(float(stride.norm()), tuple(_decomposed(spec, name, stride, 1).sigma[:DIRECTIONS].tolist()))
    if source is None:
        return MatrixStep(name, shape, kept, {}, None)
    own = _decomposed(spec, name, delta, min(DIRECTIONS, *shape))
    known = source.rank >= rank_of(ANGLE_SHARE, shape)
    shares = shares_inside(source, delta) if known else (math.nan,) * len(PROJECTED)
    bases = (own.left.float(), own.right.float()) if locks(own) else None
    return MatrixStep(name, shape, kept, numbers_of(own, shares), bases)


def numbers_of(update: Basis, inside: Sequence[float]) -> dict[str, float]:
    """The numbers of an update: of its spectrum, and the share of its energy inside the source's leading subspaces."""
    values = Spectrum(update.sigma, update.route)
    energies = (top_share(values, k) for k in TOP)
    return dict(zip(NUMBERS, (stable_rank(values), *energies, *inside), strict=True))


def _decomposed(spec: str, name: str, matrix: Tensor, count: int) -> Basis:
    with solved(spec, name, matrix):
        return leading_basis(matrix, count)


def _shape(matrix: Tensor) -> tuple[int, int]:
    return int(matrix.shape[0]), int(matrix.shape[1])


def similarities(
    steps: Sequence[Mapping[str, Bases]], last: Mapping[str, Bases]
) -> list[dict[str, tuple[float, float]]]:
    """For each step, and each matrix that has bases in `last`: similarity of its subspaces to those, left and right."""
    return [{name: compared(own.get(name), end) for name, end in last.items()} for own in steps]


def control(
    name: str, kind: str, shape: tuple[int, int], strides: Sequence[Stride], seed: int = 0
) -> list[tuple[float, float]]:
    """Similarity to the end of a walk of unrelated strides, left and right, after each: one draw for the matrix `name`.
    `kind` is one of CONTROLS."""
    kept = strides if kind == "spectra" else [Stride(stride.norm, ()) for stride in strides]
    return walk_similarity(shape, kept, generator(seed, name, CONTROLS.index(kind)))


def controls(
    strides: Mapping[str, Sequence[Stride]],
    shapes: Mapping[str, tuple[int, int]],
    kind: str,
    workers: int | None = None,
) -> dict[str, list[tuple[float, float]]]:
    """`control` of every matrix that has strides, by name."""

    def one(name: str) -> tuple[str, list[tuple[float, float]]]:
        return name, control(name, kind, shapes[name], strides[name])

    return dict(over_cores(one, {name: work(shapes[name]) for name in strides}, workers_of(workers)))
