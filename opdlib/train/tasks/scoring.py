"""Strict scorers, and the packages that only some tasks need."""

import importlib
import threading
from typing import Any

from opdlib.errors import MissingDependencyError

BOXED, SAID = "\\boxed{", "Answer:"


def is_correct(completion: str, answer: str) -> bool:
    """True if the text up to the first newline, stripped, is exactly the answer."""
    return first_line(completion) == answer


def is_whole(completion: str, answer: str) -> bool:
    """True if the whole text is the answer, whatever space is around either."""
    return completion.strip() == answer.strip()


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


def optional(module: str, distribution: str, purpose: str) -> Any:
    """The imported `module`. Raises MissingDependencyError that names the purpose and the pip command."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"{purpose} needs {error.name}, which is not installed; run: pip install {distribution}"
        ) from error
