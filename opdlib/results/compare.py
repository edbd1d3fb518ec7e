"""Two measurements of one pair side by side: do their numbers agree?"""

import math
from collections.abc import Iterable
from typing import Any

from opdlib.results.flat import NULLS, SPARSITY, without_nulls

SPARSITY_TOLERANCE, GEOMETRY_TOLERANCE = 1e-9, 1e-6
"""Relative differences within which two machines must agree: sums of squares, and what goes through an eigensolver."""


def disagreements(ours: dict[str, Any], committed: dict[str, Any], only: str | None = None) -> list[str]:
    """Where two summaries differ by more than the tolerances of this module; empty if they agree.

    `only` "sparsity" compares the first block alone, up to and including the layers. Of the committed nulls those are
    compared that ours has, for draws take long. A number that ours alone has is newer than the committed ones.
    """
    committed = without_nulls(committed) | {
        key: _shared(committed[key], ours[key]) for key in NULLS if key in ours and key in committed
    }
    ours = _shared(ours, committed)
    blocks = [(SPARSITY_TOLERANCE, {*SPARSITY})]
    if only is None:
        blocks.append((GEOMETRY_TOLERANCE, {*ours, *committed} - {*SPARSITY}))
    found = []
    for rtol, keys in blocks:
        mine, theirs = ({key: value for key, value in side.items() if key in keys} for side in (ours, committed))
        found += differences(mine, theirs, rtol)
    return found


def _shared(numbers: Any, others: Any) -> Any:
    """The part of a nested dictionary whose keys the other has, too."""
    if not (isinstance(numbers, dict) and isinstance(others, dict)):
        return numbers
    return {key: _shared(value, others[key]) for key, value in numbers.items() if key in others}


def differences(ours: Any, theirs: Any, rtol: float, key: str = "") -> list[str]:
    """Where two summaries differ: one line for each key that is missing, or whose numbers differ by more than `rtol`.

    Counts, names and None must be equal. Empty if there is nothing to tell.
    """
    if isinstance(ours, dict) and isinstance(theirs, dict):
        keys = sorted({*ours, *theirs})
        missing = [f"{f'{key}.{k}' if key else k} is only on one side" for k in keys if (k in ours) != (k in theirs)]
        shared: Iterable[tuple[Any, Any, str]] = [(ours[k], theirs[k], k) for k in keys if k in ours and k in theirs]
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        missing, shared = [], [(a, b, str(i)) for i, (a, b) in enumerate(zip(ours, theirs, strict=True))]
    elif isinstance(ours, float) and isinstance(theirs, float) and math.isclose(ours, theirs, rel_tol=rtol):
        return []
    else:
        return [] if ours == theirs else [f"{key} is {ours}, committed {theirs}"]
    return [*missing, *(line for a, b, k in shared for line in differences(a, b, rtol, f"{key}.{k}" if key else k))]
