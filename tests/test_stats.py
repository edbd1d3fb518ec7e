"""Intervals, p values and their correction, against numbers by hand."""

import math

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import quantile_test

from opdlib.errors import ParameterError
from opdlib.stats import (
    holm,
    mcnemar,
    mean_interval,
    median_interval,
    p_value,
    paired_bootstrap,
    pooled_variance,
    scaled,
    shared_freedom,
    student,
    verdict,
    wilson,
)


def test_wilson_known_answers() -> None:
    assert wilson(0, 10) == pytest.approx((0, 0.2775328), abs=1e-6)
    assert wilson(155, 500) == pytest.approx((0.2710389, 0.3518583), abs=1e-6)
    assert wilson(10, 10) == pytest.approx((1 - 0.2775328, 1), abs=1e-6)


@settings(deadline=None)
@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_encloses_the_share_and_is_symmetric(counts: tuple[int, int]) -> None:
    correct, n = counts
    low, high = wilson(correct, n)
    assert 0 <= low <= correct / n <= high <= 1
    assert wilson(n - correct, n) == pytest.approx((1 - high, 1 - low))


@pytest.mark.parametrize(("correct", "n"), [(0, 0), (3, 2), (-1, 5)])
def test_wilson_refuses_impossible_counts(correct: int, n: int) -> None:
    with pytest.raises(ParameterError):
        wilson(correct, n)


def test_the_interval_is_students() -> None:
    mean, low, high = mean_interval([1.0, 2.0, 3.0])
    assert (mean, high - mean) == (2.0, pytest.approx(4.302652729911275 / math.sqrt(3)))
    assert mean - low == pytest.approx(high - mean)
    alone = mean_interval([5.0])
    assert alone[0] == 5.0
    assert math.isnan(alone[1])
    assert math.isnan(mean_interval([])[0])


def test_a_mean_with_a_known_error() -> None:
    """Student's quantile of two degrees of freedom, and its p value at that very distance; nothing without freedom."""
    center, low, high, p = student(4.302652729911275, 1.0, 2)
    assert (low, high) == (pytest.approx(0, abs=1e-8), pytest.approx(2 * center))
    assert p == pytest.approx(0.05)
    assert [math.isnan(x) for x in student(1.0, math.nan, 0)] == [False, True, True, True]


def test_variance_within_groups() -> None:
    groups = [pd.Series([1.0, 3.0]), pd.Series([10.0, 11.0, 12.0]), pd.Series([5.0])]
    assert pooled_variance(groups) == (pytest.approx((2 + 2) / 3), 3)
    assert pooled_variance([pd.Series([1.0])])[1] == 0


def test_the_scale_of_differences() -> None:
    assert scaled("exact_zero", 0.8) == pytest.approx(math.log(4))
    assert scaled("rel_norm", 0.8) == pytest.approx(math.log(0.8))
    assert scaled("exact_zero", 1.0) == math.inf
    assert math.isnan(scaled("rel_norm", -1.0))


def test_holm() -> None:
    corrected = holm(pd.Series([0.04, 0.01, math.nan, 0.03]))
    assert corrected.tolist()[:2] == pytest.approx([0.06, 0.03])
    assert math.isnan(corrected[2])
    assert corrected[3] == pytest.approx(0.06)


def test_p_values() -> None:
    assert p_value(pd.Series([1.0, 2.0, 3.0])) == pytest.approx(0.0742, abs=1e-4)
    assert math.isnan(p_value(pd.Series([1.0])))
    assert math.isnan(p_value(pd.Series([1.0, 1.0])))


def test_the_interval_of_a_median_is_that_of_order_statistics() -> None:
    """Of 24 values, the 7th and the 18th: the binomial tables of David and Nagaraja."""
    assert median_interval(range(1, 25)) == (12.5, 7, 18)
    assert median_interval([1, 2, 3, 4, 5, 6]) == (3.5, 1, 6)
    assert median_interval([3.0])[0] == 3
    assert all(math.isnan(end) for end in median_interval([1, 2, 3, 4, 5])[1:])
    assert all(math.isnan(number) for number in median_interval([]))
    for n in (6, 7, 24, 25, 211, 3000):
        known = quantile_test(range(n), q=0, p=0.5).confidence_interval(0.95)
        assert median_interval(range(n))[1:] == (known.low, known.high)


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.95, 1.05, "explained"),
        (0.94, 1.05, "undecided"),
        (0.5, 0.94, "above"),
        (1.06, 3, "below"),
        (0.9, 2, "undecided"),
        (math.nan, math.nan, "undecided"),
    ],
)
def test_the_verdict_on_a_ratio_of_null_and_observed(low: float, high: float, said: str) -> None:
    assert verdict(low, high) == said


def test_mcnemar_counts_tails_of_a_fair_coin() -> None:
    assert mcnemar(0, 0) == mcnemar(3, 3) == 1
    assert mcnemar(8, 0) == mcnemar(0, 8) == pytest.approx(2 / 2**8)
    assert mcnemar(1, 9) == pytest.approx(2 * (1 + 10) / 2**10)
    with pytest.raises(ParameterError, match="-1 and 2"):
        mcnemar(-1, 2)


def test_the_paired_bootstrap_draws_problems_and_keeps_seeds() -> None:
    each = [1.0] * 30 + [-1.0] * 10 + [0.0] * 60
    mean, low, high = paired_bootstrap([each])
    assert mean == pytest.approx(0.2)
    spread = 1.96 * math.sqrt((0.4 - 0.2**2) / 100)  # of a mean of 100 such differences
    assert (mean - low, high - mean) == (pytest.approx(spread, rel=0.1), pytest.approx(spread, rel=0.1))
    assert paired_bootstrap([each]) == (mean, low, high), "seeded"
    assert paired_bootstrap([each, each]) == (mean, low, high), "a problem brings the differences of all seeds"
    opposite = paired_bootstrap([each, [-x for x in each]])
    assert opposite == (0, 0, 0)
    assert all(math.isnan(x) for x in paired_bootstrap([]))


def test_arms_that_share_the_runs_they_are_compared_with() -> None:
    assert shared_freedom([3]) == 2, "nothing is shared"
    assert shared_freedom([3, 3]) == pytest.approx(16 / 5)
    assert 7.9 < shared_freedom([3] * 1000) < 8, "at most four times that of one arm"
    assert shared_freedom([3, 1]) == 2, "an arm of one seed adds none"
    assert shared_freedom([]) == shared_freedom([1, 1]) == 0
