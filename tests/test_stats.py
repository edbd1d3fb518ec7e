"""P values and their correction, against numbers by hand."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from opdlib import stats as significance


def test_holm() -> None:
    corrected = significance.holm(pd.Series([0.04, 0.01, math.nan, 0.03]))
    assert corrected.tolist()[:2] == pytest.approx([0.06, 0.03])
    assert math.isnan(corrected[2])
    assert corrected[3] == pytest.approx(0.06)


def test_p_values() -> None:
    assert significance.p_value(pd.Series([1.0, 2.0, 3.0])) == pytest.approx(0.0742, abs=1e-4)
    assert math.isnan(significance.p_value(pd.Series([1.0])))
    assert math.isnan(significance.p_value(pd.Series([1.0, 1.0])))
