"""One measured step of a training: its update since the source, and its stride since the step measured before.

Numbers of an update have the keys of `opd summary`. What the end of a run is needed for (similarity, controls) is
computed from what is kept of each step: bases of DIRECTIONS vectors a side and matrix, and its stride.
"""

from __future__ import annotations

import math
import os
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from opdlib.checkpoints.checkpoint import Checkpoint
from opdlib.errors import MeasureError
from opdlib.measurement.align import align, view_of
from opdlib.measurement.geometry import by_size, has_geometry
from opdlib.metrics.eigen import LinAlgError
from opdlib.metrics.spectrum import Spectrum, spectrum, stable_rank, top_share
from opdlib.metrics.subspace import ANGLE_SHARE, leading_basis, rank_of
from opdlib.metrics.trajectory import DIRECTIONS, Stride, compared, locks, shares_inside, walk_similarity

TOP = (1, 8, 16)
SIDES = ("joint", "left", "right")
CONTROLS = ("norms", "spectra")
"""See `opdlib.metrics.trajectory`."""

Bases = tuple[Tensor, Tensor]
"""Left (m, K) and right (n, K) leading singular vectors of an update."""


@dataclass(frozen=True)
class MatrixStep:
    """What a step did to one matrix: a 2-D tensor, or one expert (after a #) of a fused tensor."""

    name: str
    shape: tuple[int, int]
    stride: Stride
    numbers: Mapping[str, float]
    """Of the update; none if there is no update. NaN where the source does not determine its subspace."""
    bases: Bases | None
    """float32; None where the update does not determine its leading subspace."""


@dataclass(frozen=True)
class TrainingStep:
    """What a step did to the model, in one view."""

    cosine: float
    """Of this stride and the one before, over all coordinates; NaN where there is none before or one is zero."""
    matrices: tuple[MatrixStep, ...]
    """By name."""


def measure_step(
    source: Checkpoint,
    trained: Checkpoint,
    last: Checkpoint,
    earlier: Checkpoint | None,
    *,
    view: str,
    skip: Sequence[str] = (),
    workers: int | None = None,
) -> TrainingStep:
    """Measure `trained`: its update since `source`, its stride since `last`, and how that turns from the one between
    `earlier` and `last`.

    At the first step of a run `last` is the source and there is no `earlier`. `view` and `skip` as in
    `opdlib.measurement.schedule.measure_all`; no number depends on `workers`. Raises AlignmentError, MeasureError.
    """
    alignments = {side: align(source, side, skip) for side in (trained, last, earlier) if side is not None}
    names = {side: {m.source: m.trained for m in found.matches} for side, found in alignments.items()}
    shapes = {m.source: m.info.shape for m in alignments[trained].matches}

    def read(side: Checkpoint, name: str) -> Tensor:
        return view_of(side.read(names[side][name]), view)

    def one(name: str) -> tuple[float, float, float, list[MatrixStep]]:
        now, before = read(trained, name).double(), view_of(source.read(name), view).double()
        stride = now - read(last, name)
        delta = now.sub_(before)
        past = torch.zeros(()) if earlier is None else read(last, name).double().sub_(read(earlier, name))
        products = float((stride * past).sum()), float(stride.square().sum()), float(past.square().sum())
        if has_geometry(shapes[name], name):
            return *products, []
        if delta.ndim == 2:
            return *products, [_matrix(source.spec, name, before, delta, stride)]
        experts = enumerate(zip(before, delta, stride, strict=True))
        return *products, [_matrix(source.spec, f"{name}#{n}", *parts) for n, parts in experts]

    sizes = {name: (1, *shape) for name, shape in shapes.items()}  # vectors too
    dots, squares, pasts, matrices = zip(*by_size(one, sizes, workers or os.cpu_count() or 1), strict=True)
    lengths = math.sqrt(math.fsum(squares) * math.fsum(pasts))
    return TrainingStep(
        math.fsum(dots) / lengths if lengths else math.nan,
        tuple(sorted((matrix for found in matrices for matrix in found), key=lambda matrix: matrix.name)),
    )


def _matrix(spec: str, name: str, source: Tensor, delta: Tensor, stride: Tensor) -> MatrixStep:
    shape = (int(delta.shape[0]), int(delta.shape[1]))
    try:
        kept = Stride(float(stride.norm()), tuple(spectrum(stride).sigma[:DIRECTIONS].tolist()))
        if not delta.any():
            return MatrixStep(name, shape, kept, {}, None)
        basis, own = leading_basis(source, rank_of(ANGLE_SHARE, shape)), leading_basis(delta, min(DIRECTIONS, *shape))
    except LinAlgError as error:
        raise MeasureError(
            f"{spec}: {name}: no solver could decompose this {shape} matrix ({error}); leave the tensor out under skip"
        ) from error
    known = basis.rank >= rank_of(ANGLE_SHARE, shape)
    shares = shares_inside(basis, delta) if known else (math.nan,) * len(SIDES)
    values = Spectrum(own.sigma, own.route)
    return MatrixStep(
        name,
        shape,
        kept,
        {"stable_rank": stable_rank(values)}
        | {f"svd_energy.{k}": top_share(values, k) for k in TOP}
        | {f"projection.{side}.{ANGLE_SHARE:g}": share for side, share in zip(SIDES, shares, strict=True)},
        (own.left.float(), own.right.float()) if locks(own) else None,
    )


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
    entropy = np.random.SeedSequence(seed, spawn_key=(zlib.crc32(name.encode()), CONTROLS.index(kind)))
    kept = strides if kind == "spectra" else [Stride(stride.norm, ()) for stride in strides]
    return walk_similarity(shape, kept, np.random.default_rng(entropy))


def controls(
    strides: Mapping[str, Sequence[Stride]],
    shapes: Mapping[str, tuple[int, int]],
    kind: str,
    workers: int | None = None,
) -> dict[str, list[tuple[float, float]]]:
    """`control` of every matrix by name."""

    def one(name: str) -> tuple[str, list[tuple[float, float]]]:
        return name, control(name, kind, shapes[name], strides[name])

    return dict(by_size(one, shapes, workers or os.cpu_count() or 1))
