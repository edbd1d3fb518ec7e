"""Numbers as text: digits, signs and dashes."""

from __future__ import annotations

import math

from opdlib.quantities import MISSING, short
from opdlib.tables.text import interval, number, percent, points, probability, with_interval


def test_text_of_numbers() -> None:
    assert (points(-0.0001, plain=True), points(-0.0251, plain=True)) == ("+0.0", "-2.5")
    assert (percent(-0.021, signed=True), percent(0.021, 0, signed=True)) == ("\N{MINUS SIGN}2.1%", "+2%")
    assert (number(1.234), number(1.234, ".3g"), number(math.nan)) == ("1.23", "1.23", MISSING)
    assert (probability(0.0421), probability(1e-5), probability(1e-5, tiny="little")) == ("0.042", "<1e-4", "little")
    assert with_interval(0.1, 0.05, 0.2) == "10.0% (5.0% to 20.0%)"
    assert with_interval(0.1, math.nan, math.nan) == "10.0%"
    assert with_interval(math.nan, math.nan, math.nan) == MISSING
    assert short(1e-4) == "1e-4"
    assert points(-0.0251) == "\N{MINUS SIGN}2.5"
    assert points(-0.0001) == "0.0"
    assert points(math.nan) == MISSING
    assert percent(0.2512) == "25.1%"
    assert interval(0.1, math.nan) == MISSING
