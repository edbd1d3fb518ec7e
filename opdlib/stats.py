"""Intervals, and tests of differences over seeds or problems with their correction for being many, by scipy.stats."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from opdlib.errors import ParameterError
from opdlib.quantities import find

if TYPE_CHECKING:  # a measurement takes intervals and has no tables
    import pandas as pd

LEVEL = 0.05
"""One minus the level of the intervals."""
EXPLAINED_WITHIN = 0.05
"""How far from 1 a ratio of null and observed may lie to count as explained."""
MARGIN = 0.05
"""Differences up to this part of the paper's own contrast are none, on the scale of `scaled`."""


def scaled(key: str, value: NDArray[np.float64] | float) -> NDArray[np.float64]:
    """A number on the scale on which differences of it are taken: the logit of a share, else the logarithm.

    -inf and inf at the ends of the scale, NaN of NaN and below 0. `key` is that of the number, see `opdlib.quantities`;
    one made by `opdlib.claims.ours` is a share.
    """
    numbers = np.asarray(value, dtype=float)
    known = find(key)
    with np.errstate(divide="ignore", invalid="ignore"):
        odds = numbers / (1 - numbers) if known is None or known.kind == "share" else numbers
        logarithm: NDArray[np.float64] = np.log(odds)
    return logarithm


def wilson(correct: int, n: int) -> tuple[float, float]:
    """Wilson's 95% interval of the share `correct` of `n` >= 1: (low, high), both in [0, 1].

    Raises ParameterError unless 0 <= correct <= n.
    """
    from scipy.stats import binomtest

    if not 0 <= correct <= n or n < 1:
        raise ParameterError(f"{correct} correct of {n}: wanted 0 <= correct <= n and n >= 1")
    interval = binomtest(correct, n).proportion_ci(confidence_level=1 - LEVEL, method="wilson")
    return float(interval.low), float(interval.high)


def mean_interval(values: Sequence[float] | pd.Series) -> tuple[float, float, float]:
    """Mean and Student's 95% interval of its expectation: (mean, low, high); NaN where there are too few values."""
    numbers = np.asarray(values, dtype=float)
    if len(numbers) < 2:
        return (float(numbers[0]) if len(numbers) else math.nan), math.nan, math.nan
    mean = float(numbers.mean())
    half = float(_student(len(numbers) - 1) * numbers.std(ddof=1) / math.sqrt(len(numbers)))
    return mean, mean - half, mean + half


@cache
def _student(freedom: int) -> np.float64:
    """The quantile of Student's t that bounds a two-sided interval, as `scipy.stats` has it, which takes a second to
    load. Pages ask for it thousands of times."""
    from scipy.special import stdtrit

    return np.float64(stdtrit(freedom, 1 - LEVEL / 2))


def pooled_variance(groups: Iterable[pd.Series]) -> tuple[float, int]:
    """The variance within groups, taken to be the same in all, and its degrees of freedom; NaN of no group of two."""
    known = [group.astype(float) for group in groups]
    freedom = sum(len(group) - 1 for group in known if len(group) > 1)
    squares = sum(float(((group - group.mean()) ** 2).sum()) for group in known if len(group) > 1)
    return squares / freedom if freedom else math.nan, freedom


def shared_freedom(sizes: Sequence[int]) -> float:
    """Degrees of freedom of the pooled variance of differences that all have one term in common, such as each of
    several arms minus OPD, seed by seed: those of groups of these sizes, less what the common term makes them share.

    The differences of two arms then have a correlation of one half, their variances one of a quarter, and the pooled
    variance that of a chi-squared with so many degrees (Satterthwaite, Biometrics Bulletin 2, 1946). 0 of no group of
    two; of a single group its size - 1; at most four times that, however many there are.
    """
    freedoms = [size - 1 for size in sizes if size > 1]
    common = sum(min(one, other) for i, one in enumerate(freedoms) for j, other in enumerate(freedoms) if i != j)
    return sum(freedoms) ** 2 / (sum(freedoms) + common / 4) if freedoms else 0.0


def student(center: Any, square: Any, freedom: float) -> tuple[Any, Any, Any, Any]:
    """A mean, its 95% interval and its two-sided p value: center, low, high, p.

    `square` is the squared standard error, known with `freedom`; numbers or arrays of them. NaN where it is unknown,
    or, of p, zero.
    """
    from scipy.stats import t

    error = np.sqrt(np.asarray(square, dtype=float)) if freedom else np.full_like(center, math.nan, dtype=float)
    half = _student(max(freedom, 1)) * error
    with np.errstate(divide="ignore", invalid="ignore"):
        p = 2 * t.sf(np.abs(np.where(error > 0, center, math.nan) / error), max(freedom, 1))
    return center, center - half, center + half, p


def p_value(values: pd.Series) -> float:
    """Of a mean of 0, two-sided, by Student's t; NaN of less than two values, or if all are equal."""
    from scipy.stats import ttest_1samp

    if values.nunique() < 2:
        return math.nan
    return float(ttest_1samp(values.astype(float), 0.0).pvalue)


def holm(p: pd.Series) -> pd.Series:
    """Holm's correction for many tests; NaN is no test."""
    order = p.dropna().sort_values()
    factors = np.arange(len(order), 0, -1)
    corrected = (order * factors).cummax().clip(upper=1.0)
    return corrected.reindex(p.index)


def median(values: Sequence[float]) -> float:
    """Of those that are defined; NaN without any."""
    defined = [value for value in values if not math.isnan(value)]
    return float(np.median(defined)) if defined else math.nan


def median_interval(values: Sequence[float] | pd.Series) -> tuple[float, float, float]:
    """Median and the 95% interval of it that order statistics give: (median, low, high), whatever the distribution.

    NaN without values; the interval is NaN of fewer than six, which no pair of them encloses often enough.
    """
    numbers = np.sort(np.asarray(values, dtype=float))
    if not len(numbers):
        return math.nan, math.nan, math.nan
    rank = _median_rank(len(numbers))
    low, high = (numbers[rank - 1], numbers[-rank]) if rank else (math.nan, math.nan)
    return float(np.median(numbers)), float(low), float(high)


@cache
def _median_rank(n: int) -> int:
    """The lower quantile of a binomial of n fair coins, in whole numbers: loading scipy.stats costs every measurement
    as much as all its nulls do."""
    part, below = 1, 0
    for k in range(n + 1):
        below += part
        if below * round(2 / LEVEL) >= 2**n:
            return k
        part = part * (n - k) // (k + 1)
    raise AssertionError("all coins together are more than a part of them")


def verdict(low: float, high: float) -> str:
    """What an interval of the ratio null / observed says: is the observed what the null gives?

    `explained`: all of it lies within 1 +- `EXPLAINED_WITHIN`. `above`: all of it lies below that, so the observed is
    larger than the null; `below`: all above. Else, and without an interval, `undecided`. Intervals over matrices
    describe: layers are no replicates.
    """
    if low >= 1 - EXPLAINED_WITHIN and high <= 1 + EXPLAINED_WITHIN:
        return "explained"
    return "above" if high < 1 - EXPLAINED_WITHIN else "below" if low > 1 + EXPLAINED_WITHIN else "undecided"


def mcnemar(first: int, second: int) -> float:
    """Exact, two-sided p that two answer the same things equally well, from how often only the first was right and how
    often only the second; 1 if neither ever was alone. Raises ParameterError for a negative count."""
    from scipy.stats import binomtest

    if min(first, second) < 0:
        raise ParameterError(f"{first} and {second} discordant pairs: wanted counts from 0 up")
    return float(binomtest(first, first + second).pvalue) if first + second else 1.0


def paired_bootstrap(differences: Sequence[Sequence[float]], seed: int = 0) -> tuple[float, float, float]:
    """Mean difference of two that answered the same problems, and its 95% interval over problems: (mean, low, high).

    `differences` has a row for each seed, the one's score minus the other's on every problem. Problems are drawn anew
    (9,999 times, with replacement, by `seed`), each with its differences in all seeds. The seeds stay, so the interval
    is about other problems, and not about training again. NaN without any.
    """
    from scipy.stats import bootstrap

    each = np.asarray(differences, dtype=float)
    if not each.size:
        return math.nan, math.nan, math.nan
    by_problem, rng = each.mean(axis=0), np.random.default_rng(seed)
    drawn = bootstrap((by_problem,), np.mean, confidence_level=1 - LEVEL, method="percentile", batch=1000, rng=rng)
    return float(by_problem.mean()), float(drawn.confidence_interval.low), float(drawn.confidence_interval.high)
