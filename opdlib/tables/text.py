"""Numbers as text, for cells of tables. A dash stands for what is undefined.

The form that a number takes in every table is that of its kind, see `opdlib.quantities`; here is what does not depend
on it.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from opdlib.quantities import MISSING

MINUS = "\N{MINUS SIGN}"


def percent(share: float, digits: int = 1, signed: bool = False) -> str:
    """A share with so many digits after the point: 10.0%; `signed` with a plus sign, too: +2.1%."""
    if not math.isfinite(share):
        return MISSING
    return f"{100 * share:{'+' if signed else ''}.{digits}f}%".replace("-", MINUS)


def points(difference: float, plain: bool = False) -> str:
    """A difference of shares in percentage points, with its sign: +2.1.

    `plain` is for columns of signed numbers: a hyphen instead of the minus sign, and zero as +0.0.
    """
    if math.isnan(difference):
        return MISSING
    rounded = round(100 * difference, 1) + 0.0  # what is added makes a negative zero positive
    if plain:
        return f"{rounded:+.1f}"
    return f"{rounded:+.1f}".replace("-", MINUS) if rounded else "0.0"


def number(value: float, form: str = ".2f") -> str:
    """A number in a form of Python's."""
    return MISSING if math.isnan(value) else format(value, form)


def probability(p: float, tiny: str = "<1e-4") -> str:
    """A p value with two digits; `tiny` is what is written below 0.0001."""
    return MISSING if math.isnan(p) else f"{p:.2g}" if p >= 1e-4 else tiny


def interval(low: float, high: float, one: Callable[[float], str] = percent) -> str:
    """Two ends, each written by `one`: 10.0% to 12.0%."""
    return MISSING if math.isnan(low) or math.isnan(high) else f"{one(low)} to {one(high)}"


def with_interval(value: float, low: float, high: float, one: Callable[[float], str] = percent) -> str:
    """A value and its interval, each number written by `one`: 11.0% (10.0% to 12.0%). The value alone without one."""
    middle, ends = one(value), interval(low, high, one)
    return middle if MISSING in (middle, ends) else f"{middle} ({ends})"
