"""Tests of differences over seeds, and their correction for being many."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd


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
