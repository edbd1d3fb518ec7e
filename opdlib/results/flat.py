"""A summary as one row of numbers under dotted keys, such as `projection.joint.0.1`, and the row as a summary again."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from opdlib.quantities import flat

ORDER = (
    *("pair", "view", "tensors", "parameters", "measured_2d", "rel_norm", "exact_zero"),
    *("sparsity", "sparsity_rms", "sparsity_ulp", "top_energy", "top_energy_global", "blocks", "layers"),
    *("svd_energy", "svd_energy_rank", "stable_rank", "effective_rank", "rank_share", "hill_exponent"),
    *("projection", "projection_expected", "rotation", "sines", "spectral_drift", "spectral_drift_delta"),
    *("kappa", "coverage", "coverage_1e-05", "coverage_expected", "coverage_ceiling", "changed_in"),
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
    """The numbers of a summary but those of its layers and nulls; None where one is undefined."""
    return dict(flat({key: value for key, value in summary.items() if key not in ("layers", *NULLS)}))


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


def assemble(pair: str, view: str, numbers: Mapping[str, Any], layers: list[dict[str, Any]]) -> dict[str, Any]:
    """The summary with this headline and these layers, which are flat too."""
    found = {"pair": pair, "view": view, **nest(numbers), "layers": [nest(layer) for layer in layers]}
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
