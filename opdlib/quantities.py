"""The numbers of one matrix by a name that a reader understands: `top 16`, `joint projection, 10%`, `low coverage, 1%`.

A name has everything that tells one number from another, so it is the key by which tables are joined.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

MISSING = "-"
"""What is written for what is undefined."""

KEYS = ("metric", "side", "at", "atol")
"""The columns of geometry.csv that say which number a row is."""

NAMES: Mapping[str, Callable[[str, float], str]] = {
    "energy_at": lambda _, index: f"energy at {index:g}",
    "energy_top": lambda _, count: f"top {count:g}",
    "energy_rank": lambda _, share: f"top {short_percent(share)} of rank",
    "rank_share": lambda _, tolerance: f"rank above {short(tolerance)}",
    "stable_rank": lambda *_: "stable rank",
    "effective_rank": lambda *_: "effective rank",
    "hill_exponent": lambda *_: "Hill exponent",
    "projection": lambda side, share: f"{side} projection, {short_percent(share)}",
    "sine_mean": lambda side, _: f"mean sine, {side}",
    "sine_max": lambda side, _: f"largest sine, {side}",
    "spectral_drift": lambda side, _: f"drift over {side}",
    "density": lambda *_: "changed",
    "coverage": lambda mask, share: f"{mask.replace('_', ' ')} coverage, {short_percent(share)}",
    "coverage_ceiling": lambda _, share: f"ceiling, {short_percent(share)}",
    "changed_in": lambda mask, share: f"changed in {mask}, {short_percent(share)}",
}
"""Metric -> its name, from side (or mask) and share, tolerance or index."""

PLAIN = ("stable rank", "effective rank", "Hill exponent", "ratio", "kept")
"""What is written as a number; see `written`."""
TINY = ("mean sine", "largest sine", "drift", "atol", "from ", "to ")
"""What is written with a power of ten."""


def short(number: float) -> str:
    """A positive number in few characters, with two or three digits: 0, 0.05, 1e-4."""
    return (
        f"{number:.3g}" if number == 0 or number >= 1e-3 else f"{number:.1e}".replace(".0e", "e").replace("e-0", "e-")
    )


def short_percent(share: float) -> str:
    """A share in few characters, without needless digits: 10%."""
    return f"{100 * share:g}%"


def name_of(metric: str, side: str = "", at: float = math.nan, atol: float = math.nan) -> str:
    """What a number is called. The update mask is exact nonzero unless the name says another tolerance."""
    name = NAMES[metric](side, at)
    return f"{name} (above {short(atol)})" if atol > 0 else name


def written(quantity: str, value: float) -> str:
    """A value for the eye, by what it is a value of: percent unless `PLAIN` or `TINY`; a dash for NaN.

    Percent with two digits, four below a tenth of a percent.
    """
    if math.isnan(value):
        return MISSING
    if quantity.startswith(PLAIN):
        return f"{value:.2f}" if abs(value) < 100 else f"{value:.0f}"
    if f"{quantity} ".startswith(TINY):
        return short(value)
    return f"{100 * value:.{2 if abs(value) >= 1e-3 or value == 0 else 4}f}%"
