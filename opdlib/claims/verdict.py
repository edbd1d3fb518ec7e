"""What is said of a claim: one rule for a single number and for an interval over seeds."""

from __future__ import annotations

from collections.abc import Sequence

from opdlib.registry.claims import Claim, Range
from opdlib.tables.study import UNDECIDED

REPRODUCED, DIRECTION, NOT_REPRODUCED, NOT_TESTED = "reproduced", "direction", "not reproduced", "not tested"


def verdict(wanted: Range, low: float, high: float) -> str:
    """Is an interval, or a number that is both its ends, in the range that is wanted?

    `reproduced` if the whole of it is, `not reproduced` if no part of it is, else `undecided`, which NaN is, too. The
    end of a range that is not closed decides nothing.
    """
    if wanted.holds(low) and wanted.holds(high):
        return REPRODUCED
    return NOT_REPRODUCED if low > wanted.high or high < wanted.low else UNDECIDED


def above(bound: float, low: float, high: float) -> str:
    """Is an interval above `bound`, which itself decides nothing?"""
    return verdict(Range(low=bound, closed=False), low, high)


def together(verdicts: Sequence[str]) -> str:
    """The verdict on a claim that needs each of these: the worst of them; without any it was not tested."""
    return next((v for v in (NOT_REPRODUCED, UNDECIDED, REPRODUCED) if v in verdicts), NOT_TESTED)


def judge(claim: Claim, ours: float | str) -> str:
    """The verdict on a number of ours, within the claim's tolerance, or on a word."""
    if isinstance(ours, str):
        return REPRODUCED if ours == claim.paper_value else NOT_REPRODUCED
    found = verdict(Range.parse(claim.paper_value).widened(claim.tolerance), ours, ours)
    return DIRECTION if found != REPRODUCED and claim.direction and claim.direction.holds(ours) else found
