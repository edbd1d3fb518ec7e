"""The numbers of a summary by the names that the pages use: `projection.joint.0.1` is the joint projection, 10%.

The name says how a number is written: see `opdlib.quantities.written`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from opdlib.quantities import name_of
from opdlib.tables.text import short, short_percent

SINGLE = {
    "rel_norm": "relative norm",
    "exact_zero": "unchanged",
    "stable_rank": name_of("stable_rank"),
    "effective_rank": name_of("effective_rank"),
    "hill_exponent": name_of("hill_exponent"),
    "spectral_drift": "drift over source",
    "spectral_drift_delta": "drift over delta",
}
"""Numbers without parameters."""


BLOCK_NUMBERS = {"rel_norm": "relative norm", "exact_zero": "unchanged", "energy_share": "share of the energy"}


def _coverage(mask: str, share: str, metric: str = "coverage") -> str:
    return name_of(metric, mask, float(share))


NAMES: Mapping[str, Callable[..., str]] = {
    "sparsity": lambda atol: f"within {short(float(atol))}",
    "sparsity_rms": lambda share: f"within {short(float(share))} of RMS",
    "sparsity_ulp": lambda share: f"within {short(float(share))} of itself",
    "top_energy": lambda share: f"energy of top {short_percent(float(share))}",
    "top_energy_global": lambda share: f"energy of top {short_percent(float(share))}, whole model",
    "blocks": lambda block, what: f"{block.replace('_', ' ')}: {BLOCK_NUMBERS.get(what, what)}",
    "svd_energy": lambda count: name_of("energy_top", at=float(count)),
    "svd_energy_rank": lambda share: name_of("energy_rank", at=float(share)),
    "rank_share": lambda tolerance: name_of("rank_share", at=float(tolerance)),
    "projection": lambda side, share: name_of("projection", side, float(share)),
    "projection_expected": lambda side, share: f"{name_of('projection', side, float(share))}: chance",
    "rotation": lambda share: f"mean sine (rotation), {short_percent(float(share))}",
    "sines": lambda side, which: f"{'mean' if which == 'mean' else 'largest'} sine, {side}",
    "coverage": _coverage,
    "coverage_1e-05": lambda mask, share: name_of("coverage", mask, float(share), 1e-5),
    "coverage_ceiling": lambda mask, share: f"{_coverage(mask, share)}: ceiling",
    "changed_in": lambda mask, share: _coverage(mask, share, "changed_in"),
}
"""First part of a number's key -> its name, from the other parts."""


def name(key: str) -> str:
    """The name of the number with this dotted key; the key itself if it is none that is known here."""
    if key in SINGLE:
        return SINGLE[key]
    metric, *rest = _parts(key)
    return NAMES[metric](*rest) if metric in NAMES else key


def _parts(key: str) -> list[str]:
    """`projection.joint.0.1` -> projection, joint, 0.1: the point within a number is not one between parts."""
    parts = key.split(".")
    if len(parts) > 2 and parts[-2].isdigit() and parts[-1].isdigit():
        parts[-2:] = [".".join(parts[-2:])]
    return parts
