"""The nulls of one measurement: `nulls_scale`, `nulls` and `explained` of its summary, and the rows of nulls.csv."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from opdlib.checkpoints.names import BLOCKS
from opdlib.measurement.geometry import Number
from opdlib.measurement.nulls import FP32, OFF_GRID, ROUNDED
from opdlib.measurement.schedule import Measurement
from opdlib.measurement.sparsity import TensorResult
from opdlib.metrics.sparsity import ABSOLUTE
from opdlib.quantities import flat, key_of
from opdlib.results.flat import nest
from opdlib.results.write import blank
from opdlib.stats import median_interval, verdict

NULLS = ("null", "tensor", "expert", "metric", "side", "at", "value")
CURVES = ("visibility", "spectrum")
"""Nulls of which the whole spectrum is kept, not its leading values alone."""
LEFT_OUT = ("coverage_ceiling", "energy_rank", "rank_share", "hill_exponent", "sine_max", "rotation")
"""Metrics whose rows are not kept; their medians are in the summary."""

FIXED = {
    "permutation": ("density", "coverage.low", "changed_in.low"),
    "permutation_row": ("density",),
    "permutation_column": ("density",),
}
"""Null -> beginnings of the keys that it holds fixed: there it would agree with anything."""

Values = Mapping[str, float]


def summarize_nulls(measurement: Measurement) -> dict[str, Any]:
    """Empty where nulls were not asked for.

    The first block of visibility is weighted over all coordinates, and undefined (None) if a tensor is off the grid;
    what nulls expect of matrices are medians over those that changed. A ratio is that of each matrix, then the median.
    """
    if "nulls" not in measurement.metrics:
        return {}
    tensors = [t for t in measurement.tensors if t.noise]
    nulls: dict[str, dict[str, Any]] = {"visibility": _first_block(tensors)} if tensors else {}
    explained: dict[str, Any] = {}
    matrices = measurement.matrices or ()
    for null in dict.fromkeys([*nulls, *(null for matrix in matrices for null in matrix.nulls)]):
        found = [(_values(m.numbers), _values(m.nulls[null])) for m in matrices if null in m.nulls]
        fixed = FIXED.get(null, ())
        pairs = [(o, {k: v for k, v in e.items() if not k.startswith(fixed)} if fixed else e) for o, e in found]
        medians = {key: float(np.median(values)) for key, values in _columns([e for _, e in pairs]).items()}
        medians.pop("density", None)
        nulls[null] = nulls.get(null, {}) | nest(medians)
        if null != "spectrum" or measurement.view == "bf16":  # the draw is rounded, view stored is not
            ratios = _explained(pairs)
            keys = (*dict(flat(nulls[null])), "changed")
            explained[null] = {key: ratios[key] for key in keys if key in ratios}
    moved = {t.noise.known_from for t in tensors if t.noise and t.sparsity.energy > 0}
    scale = {"nulls_scale": FP32 if moved == {FP32} else ROUNDED} if tensors and OFF_GRID not in moved else {}
    return {**scale, "nulls": nulls, **({"explained": explained} if measurement.matrices is not None else {})}


def _first_block(tensors: Sequence[TensorResult]) -> dict[str, Any]:
    """What visibility expects of the counts of all coordinates together, and of each block's."""
    if any(t.visible is None for t in tensors):
        return {"exact_zero": None}
    groups = [(block, [t for t in tensors if t.match.param.summary_block == block]) for block in BLOCKS]
    return {
        "exact_zero": _share(tensors),
        "sparsity": {f"{eps:.0e}": _share(tensors, eps) for eps in ABSOLUTE},
        "blocks": {block: {"exact_zero": _share(members)} for block, members in groups if members},
    }


def _share(tensors: Sequence[TensorResult], eps: float | None = None) -> float | None:
    seen = [t.visible for t in tensors if t.visible]
    size = sum(t.sparsity.size for t in tensors)
    expected = math.fsum(v.exact_zero if eps is None else v.absolute[eps] for v in seen)
    return expected / size if size else None


def _values(numbers: Sequence[Number]) -> Values:
    """The defined numbers by key; the update mask is exact nonzero."""
    chosen = [n for n in numbers if n.atol in (None, 0.0) and not math.isnan(n.value)]
    values = {key_of(n.metric, n.side, math.nan if n.at is None else n.at): n.value for n in chosen}
    return {key: value for key, value in values.items() if not key.startswith(("energy_at", "coverage_ceiling"))}


def _columns(rows: Sequence[Values]) -> dict[str, list[float]]:
    return {key: [row[key] for row in rows if key in row] for key in dict.fromkeys(k for row in rows for k in row)}


def _explained(pairs: Sequence[tuple[Values, Values]]) -> dict[str, Any]:
    """Key -> ratio null / observed, its interval over the matrices, verdict. `changed` is the density."""
    found = {}
    for key, ratios in _columns([{k: e[k] / o[k] for k in e if o.get(k)} for o, e in pairs]).items():
        ratio, low, high = median_interval(ratios)
        known = {"ratio": ratio, "interval": [None, None] if math.isnan(low) else [low, high]}
        found["changed" if key == "density" else key] = known | {"verdict": verdict(low, high)}
    return found


def refused(measurement: Measurement) -> dict[str, str]:
    """Why visibility does not speak about some tensors, with the first of their names; empty if it does about all."""
    names = [t.match.name for t in measurement.tensors if t.noise and t.noise.known_from == OFF_GRID]
    return {"nulls.visibility": f"{len(names)} tensors, such as {names[0]}: {OFF_GRID}"} if names else {}


def of_nulls(measurement: Measurement) -> Iterator[dict[str, Any]]:
    """A row for every number that a null expects: of a parameter (counts of coordinates, the scale), of a matrix."""
    for t in measurement.tensors:
        if t.visible:
            counts = [("scale", "", t.visible.scale), ("exact_zero", "", t.visible.exact_zero)]
            counts += [("within", repr(eps), count) for eps, count in t.visible.absolute.items()]
            for metric, at, value in counts:
                yield _row("visibility", t.match.name, None, metric, "", at, value)
    for m in measurement.matrices or ():
        for null, numbers in m.nulls.items():
            for n in numbers:
                if n.metric not in LEFT_OUT and (n.metric != "energy_at" or null in CURVES):
                    yield _row(null, m.tensor, m.expert, n.metric, n.side, blank(n.at), n.value)


def _row(null: str, tensor: str, expert: int | None, metric: str, side: str, at: str, value: float) -> dict[str, Any]:
    """Six digits: what is drawn is not known to more."""
    text = "" if math.isnan(value) else f"{value:.6g}"
    return dict(zip(NULLS, (null, tensor, expert, metric, side, at, text), strict=True))
