"""The numbers of the paper's tables for one pair, as one nested dictionary: what `opd summary --json` prints."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from opdlib.checkpoints.names import BLOCKS
from opdlib.measurement.geometry import MatrixResult
from opdlib.measurement.schedule import Measurement
from opdlib.measurement.sparsity import TensorResult
from opdlib.metrics.kernels import ETA
from opdlib.metrics.sparsity import ABSOLUTE, RELATIVE, TOP_SHARES, relative_norm
from opdlib.metrics.spectrum import RANK_SHARES, RANK_TOLERANCES, TOP
from opdlib.metrics.subspace import ANGLE_SHARE, SHARES
from opdlib.results.nulls import summarize_nulls

Summary = dict[str, Any]
Key = tuple[str, str, float | None, float | None]


OUTER = ("embedding", "lm_head")
"""Blocks whose many weights hide how the others share an update."""


def threshold_key(eps: float) -> str:
    """How a threshold is written as a key: 1e-05."""
    return f"{eps:.0e}"


def share_key(share: float) -> str:
    """How a share is written as a key: 0.01."""
    return f"{share:g}"


def summarize(measurement: Measurement) -> Summary:
    """Weighted over coordinates throughout; a ratio that is undefined (nothing changed, zero source) is None."""
    tensors = measurement.tensors
    size, energy = _size(tensors), _energy(tensors)
    groups = [(block, [t for t in tensors if t.match.param.summary_block == block]) for block in BLOCKS]
    stack: dict[int, list[TensorResult]] = {}
    for t in tensors:
        if t.match.param.part == "language" and t.match.param.layer is not None:
            stack.setdefault(t.match.param.layer, []).append(t)
    first = {
        "pair": measurement.name,
        "view": measurement.view,
        "tensors": len(tensors),
        "parameters": size,
        "measured_2d": sum(t.changed_matrices for t in tensors),
        **_stored(tensors),
        "rel_norm": _rel_norm(tensors),
        "exact_zero": _unchanged(tensors),
        "sparsity": _absolute(tensors),
        "sparsity_rms": {
            threshold_key(tau): _share(sum(t.sparsity.relative[tau] for t in tensors), size) for tau in RELATIVE
        },
        "sparsity_ulp": {threshold_key(ETA): _share(sum(t.sparsity.ulp for t in tensors), size)},
        "top_energy": {share_key(p): _share(math.fsum(t.sparsity.top[p] for t in tensors), energy) for p in TOP_SHARES},
        "top_energy_global": {share_key(p): _share(measurement.top[p], energy) for p in TOP_SHARES},
        "delta_abs": {"mean": _share(measurement.histogram.summed, size), "max": measurement.histogram.largest},
        "blocks": {block: _block(members, tensors) for block, members in groups if members},
        "layers": [
            {
                "layer": number,
                "exact_zero": _unchanged(members),
                "sparsity": _absolute(members),
                "rel_norm": _rel_norm(members),
                "energy_share": _share(_energy(members), energy),
            }
            for number, members in sorted(stack.items())
        ],
    }
    sizes = {t.match.name: t.sparsity.size for t in tensors}
    second = {} if measurement.matrices is None else _geometry(measurement.matrices, sizes)
    return first | second | summarize_nulls(measurement)


def _stored(tensors: Sequence[TensorResult]) -> Summary:
    """How many changed matrices there are as the source stores them, an expert counting as one: where that differs."""
    places = [t.match.source for t in tensors if t.changed_matrices]
    stored = {(place.stored, place.cut.expert if place.cut else None) for place in places}
    return {"measured_2d_stored": len(stored)} if len(stored) != len(places) else {}


def _block(members: Sequence[TensorResult], tensors: Sequence[TensorResult]) -> Summary:
    """The numbers of a block; those called inner are shares of what lies between embedding and head."""
    size, energy = _size(members), _energy(members)
    block: Summary = {
        "rel_norm": _rel_norm(members),
        "energy_share": _share(energy, _energy(tensors)),
        "exact_zero": _unchanged(members),
        "parameters": size,
        "parameter_share": _share(size, _size(tensors)),
    }
    inner = [t for t in tensors if t.match.param.summary_block not in OUTER]
    if members[0] not in inner:
        return block
    shares = {"energy": _share(energy, _energy(inner)), "parameter": _share(size, _size(inner))}
    return block | {f"inner_{of}_share": share for of, share in shares.items()}


def _geometry(matrices: Sequence[MatrixResult], sizes: Mapping[str, int]) -> Summary:
    """The second block: the median over the measured matrices of every number that is defined there. Pooled coverages
    are of all their updates together; `sizes` has the coordinates of each matrix."""
    values: dict[Key, list[float]] = {}
    expected: dict[Key, list[float]] = {}
    for matrix in matrices:
        for n in matrix.numbers:
            key = (n.metric, n.side, n.at, n.atol)
            values.setdefault(key, []).append(n.value)
            if n.expected is not None:
                expected.setdefault(key, []).append(n.expected)

    def median(metric: str, side: str = "", at: float | None = None, atol: float | None = None) -> float | None:
        return _median(values.get((metric, side, at, atol), []))

    def by_share(metric: str, side: str, atol: float | None = None) -> dict[str, float | None]:
        return {share_key(s): median(metric, side, s, atol) for s in SHARES}

    def chance(metric: str, side: str, atol: float | None = None) -> dict[str, float | None]:
        return {share_key(s): _median(expected.get((metric, side, s, atol), [])) for s in SHARES}

    def over_chance(metric: str, side: str, at: float | None = None, atol: float | None = None) -> float | None:
        key = metric, side, at, atol
        return _median([v / e for v, e in zip(values.get(key, []), expected.get(key, []), strict=True) if e])

    def pooled(mask: str, share: float) -> float | None:
        covered = values.get(("coverage", mask, share, 0.0), [])
        return _share(math.fsum(n * c for n, c in zip(updates, covered, strict=True)), math.fsum(updates))

    updates = [n.value * sizes[m.tensor] for m in matrices for n in m.numbers if (n.metric, n.atol) == ("density", 0.0)]
    sides, composites = ("joint", "left", "right"), ("principal_not_low", "nonprincipal_or_low")
    masks = ("principal", "low", *composites)
    return {
        "svd_energy": {str(k): median("energy_top", at=k) for k in TOP},
        "svd_energy_rank": {share_key(s): median("energy_rank", at=s) for s in RANK_SHARES},
        "stable_rank": median("stable_rank"),
        "effective_rank": median("effective_rank"),
        "rank_share": {threshold_key(t): median("rank_share", at=t) for t in RANK_TOLERANCES},
        "hill_exponent": median("hill_exponent"),
        "projection": {side: by_share("projection", side) for side in sides},
        "projection_expected": {side: chance("projection", side) for side in sides},
        "rotation": by_share("rotation", ""),
        "sines": {
            side: {what: median(f"sine_{what}", side, ANGLE_SHARE) for what in ("mean", "max")}
            for side in ("left", "right")
        },
        "spectral_drift": median("spectral_drift", "source"),
        "spectral_drift_delta": median("spectral_drift", "delta"),
        "kappa": over_chance("spectral_drift", "delta"),
        "coverage": {mask: by_share("coverage", mask, 0.0) for mask in masks},
        "coverage_1e-05": {mask: by_share("coverage", mask, 1e-5) for mask in masks},
        "coverage_pooled": {mask: {share_key(s): pooled(mask, s) for s in SHARES} for mask in masks},
        "coverage_expected": {mask: chance("coverage", mask, 0.0) for mask in composites},
        "enrichment": {
            mask: {share_key(s): over_chance("coverage", mask, s, 0.0) for s in SHARES} for mask in composites
        },
        "coverage_ceiling": {mask: by_share("coverage_ceiling", "", 0.0) for mask in ("principal", "low")},
        "changed_in": {mask: by_share("changed_in", mask, 0.0) for mask in ("principal", "low")},
    }


def _median(values: Sequence[float]) -> float | None:
    defined = [v for v in values if not math.isnan(v)]
    return float(np.median(defined)) if defined else None


def _size(tensors: Sequence[TensorResult]) -> int:
    return sum(t.sparsity.size for t in tensors)


def _energy(tensors: Sequence[TensorResult]) -> float:
    return math.fsum(t.sparsity.energy for t in tensors)


def _unchanged(tensors: Sequence[TensorResult]) -> float | None:
    return _share(sum(t.sparsity.exact_zero for t in tensors), _size(tensors))


def _absolute(tensors: Sequence[TensorResult]) -> dict[str, float | None]:
    size = _size(tensors)
    return {threshold_key(eps): _share(sum(t.sparsity.absolute[eps] for t in tensors), size) for eps in ABSOLUTE}


def _rel_norm(tensors: Sequence[TensorResult]) -> float | None:
    norm = relative_norm(_energy(tensors), math.fsum(t.sparsity.source_energy for t in tensors))
    return None if math.isnan(norm) else norm


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole else None
