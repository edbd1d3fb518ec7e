"""Strict scorers, and the interval of a share."""

from __future__ import annotations

import threading
from math import sqrt
from typing import Any

from opdlib.errors import ParameterError
from opdlib.train.tasks.optional import optional

BOXED, SAID = "\\boxed{", "Answer:"


def is_correct(completion: str, answer: str) -> bool:
    """True if the text up to the first newline, stripped, is exactly the answer."""
    return first_line(completion) == answer


def first_line(completion: str) -> str:
    """The text up to the first newline, stripped."""
    return completion.split("\n", 1)[0].strip()


def is_equal(completion: str, answer: str) -> bool:
    """True if the completion's final answer equals `answer` as mathematics, by the package math-verify.

    The final answer stands in the last boxed expression of LaTeX, or behind the last "Answer:" to the end of its line.
    None, or one that cannot be parsed, is wrong. Raises MissingDependencyError without the package.
    """
    verifier = math_verifier()
    stated = _stated(completion)
    if stated is None:
        return False
    # The package's time limit is an alarm, which only the main thread can set.
    limit = 5 if threading.current_thread() is threading.main_thread() else None
    found, right = (verifier.parse(text, parsing_timeout=limit) for text in (stated, f"{BOXED}{answer}}}"))
    return bool(found and right) and bool(verifier.verify(right, found, timeout_seconds=limit))


def math_verifier() -> Any:
    """The package math-verify. Raises MissingDependencyError with the command that installs it."""
    return optional("math_verify", "math-verify", "scoring mathematical answers")


def _stated(completion: str) -> str | None:
    """The final answer in the form that is parsed; None if there is none."""
    boxed, said = completion.rfind(BOXED), completion.rfind(SAID)
    if boxed > said:
        return completion[boxed:]
    if said < 0:
        return None
    line = first_line(completion[said + len(SAID) :])
    return f"{BOXED}{line.strip('*$. ')}}}"


def wilson(correct: int, n: int) -> tuple[float, float]:
    """Wilson's 95% interval of the share `correct` of `n` >= 1: (low, high), both in [0, 1]."""
    if not 0 <= correct <= n or n < 1:
        raise ParameterError(f"{correct} correct of {n}: wanted 0 <= correct <= n and n >= 1")
    z = 1.959963984540054
    share = correct / n
    centre = share + z * z / (2 * n)
    spread = z * sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    # At the ends the limits are exactly 0 and 1; rounding would miss them by a bit.
    low = 0.0 if correct == 0 else (centre - spread) / scale
    high = 1.0 if correct == n else (centre + spread) / scale
    return low, high
