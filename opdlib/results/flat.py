"""A summary as one row of numbers under dotted keys, such as `projection.joint.0.1`, and the row as a summary again."""

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from opdlib.quantities import flat

ORDER = (
    *("pair", "view", "tensors", "parameters", "measured_2d", "measured_2d_stored", "rel_norm", "exact_zero"),
    *("sparsity", "sparsity_rms", "sparsity_ulp", "top_energy", "top_energy_global", "delta_abs", "blocks"),
    *("layers",),
    *("svd_energy", "svd_energy_rank", "stable_rank", "effective_rank", "rank_share", "hill_exponent"),
    *("projection", "projection_expected", "rotation", "sines", "spectral_drift", "spectral_drift_delta"),
    *("kappa", "coverage", "coverage_1e-05", "coverage_pooled", "coverage_expected", "enrichment"),
    *("coverage_ceiling", "changed_in"),
    *("nulls_scale", "nulls", "explained"),
)
"""The keys of a summary in their order. Up to the layers stands what needs no spectrum."""
NAMES = ("pair", "view", "nulls_scale")
NULLS = ("nulls_scale", "nulls", "explained")
"""What null models say of the numbers before."""
SPARSITY = ORDER[: ORDER.index("layers") + 1]

_BETWEEN_LEVELS = re.compile(r"(?<!\d)\.|\.(?!\d)")
"""A dot between two digits belongs to a number: the last level of `rotation.0.1` is 0.1."""


def headline(summary: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers of a summary but those of its layers; None where one is undefined."""
    return dict(flat({key: value for key, value in summary.items() if key != "layers"}))


def without_nulls(summary: Mapping[str, Any]) -> dict[str, Any]:
    """The summary without what null models say of it."""
    return {key: value for key, value in summary.items() if key not in NULLS}


def null_rows(summary: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """What null models say, a row a number: null, key, expected, and with the key of `explained` ratio, low, high,
    verdict."""
    for null, numbers in summary.get("nulls", {}).items():
        expected, found = dict(flat(numbers)), summary.get("explained", {}).get(null, {})
        for key in dict.fromkeys((*expected, *found)):
            row = {"null": null, "key": key, "expected": expected.get(key)}
            if known := found.get(key):
                low, high = known["interval"]
                row |= {"ratio": known["ratio"], "low": low, "high": high, "verdict": known["verdict"]}
            yield row


def from_null_rows(rows: Iterable[Mapping[Any, Any]]) -> dict[str, Any]:
    """`nulls` and `explained` of a summary again; an undefined number has no key."""
    nulls: dict[str, dict[str, Any]] = {}
    explained: dict[str, dict[str, Any]] = {}
    for row in rows:
        if not math.isnan(row["expected"]):
            nulls.setdefault(row["null"], {})[row["key"]] = row["expected"]
        if row["verdict"]:
            ratio, *interval = (None if math.isnan(row[name]) else row[name] for name in ("ratio", "low", "high"))
            known = {"ratio": ratio, "interval": interval, "verdict": row["verdict"]}
            explained.setdefault(row["null"], {})[row["key"]] = known
    return {"nulls": {null: nest(numbers) for null, numbers in nulls.items()}, "explained": explained} if nulls else {}


def is_headline(key: str) -> bool:
    """Is this the dotted key of a number of a summary?"""
    top = _BETWEEN_LEVELS.split(key)[0]
    return top in ORDER and top not in (*NAMES, *NULLS, "layers")


def nest(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """The nested dictionary with these leaves, in their order."""
    nested: dict[str, Any] = {}
    for key, value in numbers.items():
        *above, last = _BETWEEN_LEVELS.split(key)
        place = nested
        for level in above:
            place = place.setdefault(level, {})
        place[last] = value
    return nested


def assemble(
    pair: str, view: str, numbers: Mapping[str, Any], layers: list[dict[str, Any]], nulls: Mapping[str, Any]
) -> dict[str, Any]:
    """The summary with this headline and these layers, which are flat, and what null models say."""
    found = {"pair": pair, "view": view, **nest(numbers), "layers": [nest(layer) for layer in layers], **nulls}
    return {key: found[key] for key in ORDER if key in found}


def undefined(numbers: Mapping[str, Any]) -> dict[str, str]:
    """Reasons for the numbers that are None, by their dotted key."""
    return {key: _reason(key) for key, value in numbers.items() if value is None}


def _reason(key: str) -> str:
    if key.endswith("rel_norm"):
        return "source norm is zero"
    if _BETWEEN_LEVELS.split(key)[0] in (*SPARSITY, "modules"):
        return "nothing changed, so there is no energy to share"
    return "no matrix has it; see the reasons in geometry.csv"
