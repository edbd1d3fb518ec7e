"""Problem spaces of two operands, enumerated: both orders are twins."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from opdlib.train.tasks.task import Problem, Twins


def arithmetic() -> Iterator[Twins]:
    """Sums of 1 to 60 and products of 2 to 30: 4,441 problems, 2,265 pairs of twins.

    The ranges are such that SmolLM2-135M-Instruct answers some of them, and by far not all.
    """
    for sign, operands in (("+", range(1, 61)), ("*", range(2, 31))):
        for a, b in itertools.combinations_with_replacement(operands, 2):
            answer = str(a + b if sign == "+" else a * b)
            orders = dict.fromkeys(((a, b), (b, a)))
            yield tuple(Problem(f"Calculate: {x} {sign} {y}\nResult:", answer) for x, y in orders)


def sums() -> Iterator[Twins]:
    """Sums of two numbers of two digits: 8,100 problems, 4,095 pairs of twins, in as few characters as can be."""
    for a, b in itertools.combinations_with_replacement(range(10, 100), 2):
        orders = dict.fromkeys(((a, b), (b, a)))
        yield tuple(Problem(f"{x}+{y}=", str(a + b)) for x, y in orders)
