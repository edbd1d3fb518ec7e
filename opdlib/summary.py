"""The numbers of the paper's tables for one pair, as one nested dictionary: what `opd summary --json` prints."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from opdlib.measure import Measurement, TensorResult
from opdlib.metrics.histogram import ETA
from opdlib.metrics.sparsity import ABSOLUTE, RELATIVE, TOP_SHARES, relative_norm
from opdlib.names import BLOCKS

Summary = dict[str, Any]


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
    return {
        "pair": measurement.name,
        "view": measurement.view,
        "tensors": len(tensors),
        "parameters": size,
        "measured_2d": sum(t.changed_matrices for t in tensors),
        "rel_norm": _rel_norm(tensors),
        "exact_zero": _share(sum(t.sparsity.exact_zero for t in tensors), size),
        "sparsity": _absolute(tensors),
        "sparsity_rms": {
            threshold_key(tau): _share(sum(t.sparsity.relative[tau] for t in tensors), size) for tau in RELATIVE
        },
        "sparsity_ulp": {threshold_key(ETA): _share(sum(t.sparsity.ulp for t in tensors), size)},
        "top_energy": {share_key(p): _share(math.fsum(t.sparsity.top[p] for t in tensors), energy) for p in TOP_SHARES},
        "top_energy_global": {share_key(p): _share(measurement.top[p], energy) for p in TOP_SHARES},
        "blocks": {
            block: {
                "rel_norm": _rel_norm(members),
                "energy_share": _share(_energy(members), energy),
                "exact_zero": _share(sum(t.sparsity.exact_zero for t in members), _size(members)),
                "parameters": _size(members),
            }
            for block, members in groups
            if members
        },
        "layers": [
            {
                "layer": number,
                "exact_zero": _share(sum(t.sparsity.exact_zero for t in members), _size(members)),
                "sparsity": _absolute(members),
                "rel_norm": _rel_norm(members),
                "energy_share": _share(_energy(members), energy),
            }
            for number, members in sorted(stack.items())
        ],
    }


def undefined(summary: Summary) -> dict[str, str]:
    """Reasons for the numbers that are None, by their dotted key."""
    reasons = {}
    for key, value in _leaves(summary):
        if value is None:
            reasons[key] = (
                "source norm is zero" if key.endswith("rel_norm") else "nothing changed, so there is no energy to share"
            )
    return reasons


def _leaves(value: Any, key: str = "") -> Iterable[tuple[str, Any]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if items is None:
        yield key, value
        return
    for name, inner in items:
        yield from _leaves(inner, f"{key}.{name}" if key else str(name))


def _size(tensors: Sequence[TensorResult]) -> int:
    return sum(t.sparsity.size for t in tensors)


def _energy(tensors: Sequence[TensorResult]) -> float:
    return math.fsum(t.sparsity.energy for t in tensors)


def _absolute(tensors: Sequence[TensorResult]) -> dict[str, float | None]:
    size = _size(tensors)
    return {threshold_key(eps): _share(sum(t.sparsity.absolute[eps] for t in tensors), size) for eps in ABSOLUTE}


def _rel_norm(tensors: Sequence[TensorResult]) -> float | None:
    norm = relative_norm(_energy(tensors), math.fsum(t.sparsity.source_energy for t in tensors))
    return None if math.isnan(norm) else norm


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole else None
