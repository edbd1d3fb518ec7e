"""The two verdicts on a claim: does the number come out, and does it survive its control?

**Number.** Of a claim that is judged by its mean: *reproduced* if the mean over seeds (or the only number) lies in the
paper's range, widened by the tolerance on both sides. Of one that is judged by its interval: *reproduced* if all of the
interval over seeds lies there, which a single seed never does. Else *direction*, if the mean lies in the wider range
or, of an interval, in the paper's; else *not reproduced*; and *not tested* without a number.

**Control.** The claim says on which side of its control the number lies. *Survives*: it lies there. *Opposite*: on the
other side. *Explained*: the control gives the same. *Undecided*: an interval that says none of these, or no interval.
*None*: there is no control, or nothing to compare with.
"""

import math

import pandas as pd

from opdlib import stats
from opdlib.registry.claims import Claim, Range
from opdlib.stats import mean_interval

REPRODUCED, DIRECTION, NOT_REPRODUCED, NOT_TESTED = "reproduced", "direction", "not reproduced", "not tested"
NUMBER = (REPRODUCED, DIRECTION, NOT_REPRODUCED, NOT_TESTED)
SURVIVES, OPPOSITE, EXPLAINED, UNDECIDED, NONE = "survives", "opposite", "explained", "undecided", "none"
CONTROL = (SURVIVES, OPPOSITE, EXPLAINED, UNDECIDED, NONE)


def number(claim: Claim, mean: float, low: float = math.nan, high: float = math.nan) -> str:
    """The verdict on a mean and its interval (NaN where there is none)."""
    if math.isnan(mean):
        return NOT_TESTED
    wanted = claim.range.widened(claim.tolerance)
    if all(map(wanted.holds, (mean,) if claim.judged == "mean" else (low, high))):
        return REPRODUCED
    goes = [wide for wide in (claim.wide, wanted) if wide is not None]
    return DIRECTION if any(wide.holds(mean) for wide in goes) else NOT_REPRODUCED


def side(low: float, high: float, same: Range) -> str:
    """Where the interval of a difference lies: `above` or `below` a range, `explained` if inside; else `undecided`."""
    if same.holds(low) and same.holds(high):
        return EXPLAINED
    return "above" if low > same.high else "below" if high < same.low else UNDECIDED


def control(claim: Claim, found: str) -> str:
    """The verdict on where the number lies: `above` or `below` what the control gives, `explained` or `undecided`."""
    return found if found in (EXPLAINED, UNDECIDED) else SURVIVES if found == claim.direction else OPPOSITE


def of_ratios(claim: Claim, ratios: pd.Series) -> tuple[str, float]:
    """The verdict on the interval over ratios, null over observed, and their mean."""
    mean, low, high = mean_interval(ratios)
    return control(claim, stats.verdict(low, high)), mean
