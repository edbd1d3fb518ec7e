"""What the nulls of a pair need beside its histogram: is the source on the bf16 grid, how large is the noise, draws."""

import zlib
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from opdlib.metrics import nulls as of
from opdlib.metrics.geometry import Chances
from opdlib.metrics.histogram import DeltaHistogram
from opdlib.metrics.spectrum import spectrum

SEED = 0
FP32, ROUNDED, OFF_GRID = "fp32", "rounded norm", "the source is not on the bf16 grid"


@dataclass(frozen=True)
class Noise:
    """The noise that stands for an update under visibility."""

    scale: float
    """Its standard deviation, in the unit of the weights; NaN where visibility does not speak about the tensor."""
    known_from: str
    """`FP32`: the root mean square of the delta before rounding. `ROUNDED`: the norm of the rounded delta. Else why
    there is none."""


def noise(source: Tensor, trained: Tensor, histogram: DeltaHistogram, known: float | None = None) -> Noise:
    """The noise for one tensor, both as they are stored; `histogram` is of their bf16 rounding.

    `known` is the root mean square of the delta before rounding, where somebody knows it; it is looked for in a trained
    tensor of float32 that is off the grid, too. A source off the grid is refused: what bf16 shows of an update then
    depends on digits that the histogram does not have.
    """
    if not _on_grid(source):
        return Noise(float("nan"), OFF_GRID)
    if known is None and has_masters(trained):
        known = float(trained.double().sub_(source).square_().mean().sqrt())
    if known is not None:
        return Noise(known, FP32)
    return Noise(of.scale_of_rounded_norm(histogram.magnitude_bins, histogram.magnitudes, histogram.energy), ROUNDED)


def has_masters(trained: Tensor) -> bool:
    """Does a trained tensor hold more than bf16 can show of it?"""
    return trained.dtype == torch.float32 and not _on_grid(trained)


def _on_grid(tensor: Tensor) -> bool:
    return tensor.dtype == torch.bfloat16 or torch.equal(tensor, tensor.to(torch.bfloat16).to(tensor.dtype))


def chances(histogram: DeltaHistogram, noise: Noise | None) -> Chances:
    """The nulls of one matrix that say P(changed) by magnitude alone; visibility where there is noise."""
    bits = histogram.magnitude_bins
    found = {"permutation": of.by_magnitude(bits, histogram.updated / histogram.magnitudes)}
    if noise and noise.scale > 0:
        found["visibility"] = of.by_magnitude(bits, of.changed_chance(bits, noise.scale))
    return found


def draws(
    name: str, expert: int | None, source: Tensor, trained: Tensor, view: str, noise: Noise | None
) -> dict[str, Tensor]:
    """A draw of every null for one matrix: what would have been trained, seen in bf16.

    `source` as the view sees it, `trained` as it is stored. In view `stored` there is a draw of `spectrum` alone, for
    master weights that are measured apart from their rounding. Seeded by the name of the tensor and the number of the
    expert, so no draw depends on the order of the work.
    """
    m, n = source.shape
    rounded = trained.to(torch.bfloat16)
    rows, columns = np.divmod(np.arange(m * n, dtype=np.int64), n)

    def rng(null: str) -> np.random.Generator:
        return np.random.default_rng([SEED, zlib.crc32(f"{null} {name} {expert}".encode())])

    found = {}
    if view == "bf16":
        found["permutation"] = of.permuted(source, rounded, rng("permutation"))
        found["permutation_row"] = of.permuted(source, rounded, rng("permutation_row"), rows)
        found["permutation_column"] = of.permuted(source, rounded, rng("permutation_column"), columns)
    if noise and noise.scale > 0:
        found["visibility"] = of.visible(source, noise.scale, rng("visibility"))
    if has_masters(trained) and _on_grid(source):
        sigma = spectrum(trained.double() - source.double()).sigma
        delta = of.with_spectrum(sigma, (m, n), rng("spectrum"))
        found["spectrum"] = (source.double() + delta).to(torch.bfloat16)
    return found
