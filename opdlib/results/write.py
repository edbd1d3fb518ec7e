"""The rows of a results folder's tables; what each file is, `opdlib.results.layout` says."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from opdlib.measurement.geometry import MatrixResult, has_geometry
from opdlib.measurement.schedule import Measurement
from opdlib.metrics.histogram import DeltaHistogram
from opdlib.metrics.sparsity import survival

GEOMETRY = ("tensor", "expert", "route", "metric", "side", "at", "atol", "value", "expected")
REASONS = ("tensor", "expert", "undefined", "reason")

FINEST, COARSEST, PER_OCTAVE = -40, -6, 8
"""The curve's thresholds: eight an octave from 2^-40 to 2^-6, each a bin edge, so that no bin is cut."""


def of_tensors(measurement: Measurement) -> Iterator[dict[str, Any]]:
    """A row for every compared parameter, with the reason where it has no matrix.

    `stored_as` says where a matrix lies that a checkpoint does not store as a tensor of its own, outputs first: there
    tools that take tensors as they are stored count otherwise. Without such a matrix there is no such column.
    """
    places = {r.match.name: [str(p) for p in (r.match.source, r.match.trained) if p.cut] for r in measurement.tensors}
    for result in measurement.tensors:
        match, numbers = result.match, result.sparsity
        param = match.param
        yield {
            "tensor": param.name,
            "part": param.part,
            "layer": param.layer,
            "block": param.summary_block,
            "module": param.module,
            "expert": param.expert,
            "shape": "x".join(map(str, match.info.shape)),
            "dtype_source": match.info.dtype,
            "dtype_trained": match.trained.info.dtype,
            "size": numbers.size,
            "exact_zero": numbers.exact_zero,
            "within_ulp": numbers.ulp,
            "energy": repr(numbers.energy),
            "source_energy": repr(numbers.source_energy),
            "matrices": result.changed_matrices,
            "no_matrix_because": has_geometry(match.info.shape)
            or ("" if result.changed_matrices else "nothing changed"),
            **({"stored_as": "; ".join(dict.fromkeys(places[match.name]))} if any(places.values()) else {}),
        }


def of_geometry(matrices: Sequence[MatrixResult]) -> Iterator[dict[str, Any]]:
    """A row for every number of every matrix; an undefined value is empty."""
    for matrix in matrices:
        for number in matrix.numbers:
            yield {
                "tensor": matrix.tensor,
                "expert": matrix.expert,
                "route": matrix.route,
                "metric": number.metric,
                "side": number.side,
                "at": blank(number.at),
                "atol": blank(number.atol),
                "value": blank(number.value),
                "expected": blank(number.expected),
            }


def of_reasons(matrices: Sequence[MatrixResult]) -> Iterator[dict[str, Any]]:
    """A row for every undefined number, with the reason."""
    for matrix in matrices:
        for what, reason in matrix.reasons.items():
            yield {"tensor": matrix.tensor, "expert": matrix.expert, "undefined": what, "reason": reason}


def blank(value: Any) -> Any:
    """Twelve digits of a float, more than two machines agree on; empty of None and NaN; what is no float as it is."""
    if not isinstance(value, float):
        return "" if value is None else value
    return "" if math.isnan(value) else f"{value:.12g}"


def of_sparsity(measurement: Measurement) -> Iterator[dict[str, Any]]:
    """A row for every parameter and threshold: coordinates at or below it."""
    for result in measurement.tensors:
        numbers = result.sparsity
        rules: Sequence[tuple[str, Any]] = (("absolute", numbers.absolute), ("relative", numbers.relative))
        for rule, counts in rules:
            for threshold, count in counts.items():
                yield {"tensor": result.match.name, "rule": rule, "threshold": repr(threshold), "unchanged": count}


def of_energy(measurement: Measurement) -> Iterator[dict[str, Any]]:
    """A row for every parameter and share of coordinates, and for the whole model (empty name)."""
    tops = [("", measurement.top), *((t.match.name, t.sparsity.top) for t in measurement.tensors)]
    for name, top in tops:
        for share, energy in top.items():
            yield {"tensor": name, "share": repr(share), "energy": repr(energy)}


def of_curve(histogram: DeltaHistogram) -> Iterator[dict[str, Any]]:
    """A row for every threshold of a fixed grid: coordinates below it, over the whole model."""
    thresholds = 2.0 ** np.arange(FINEST, COARSEST + 1e-9, 1 / PER_OCTAVE)
    # The nearest number with eight significant bits is a bin edge; `ceil` keeps the order.
    mantissa, exponent = np.frexp(thresholds)
    at = np.ldexp(np.ceil(mantissa * 256), exponent - 8)
    edges, below = survival(histogram)
    counts = np.append(below, histogram.size)[np.searchsorted(edges, at)]
    for threshold, count in zip(at, counts, strict=True):
        yield {"threshold": repr(float(threshold)), "below": int(count)}


def of_magnitude(measurement: Measurement) -> Iterator[dict[str, Any]]:
    """By the exponent of abs(source): [2^e, 2^(e+1)); zeros and subnormals share the first row, magnitude 0.

    `visible` is the expected number of updated ones under visibility; empty where a tensor has no such null.
    """
    histogram = measurement.histogram
    exponents = histogram.magnitude_bins >> 7
    seen = [t.visible.changed for t in measurement.tensors if t.visible]
    whole = len(seen) == len(measurement.tensors)
    for exponent in np.unique(exponents):
        here = exponents == exponent
        yield {
            "magnitude": repr(float(2.0 ** (int(exponent) - 127)) if exponent else 0.0),
            "coordinates": int(histogram.magnitudes[here].sum()),
            "updated": int(histogram.updated[here].sum()),
            "visible": blank(math.fsum(part.get(int(exponent), 0.0) for part in seen) if whole else None),
        }
