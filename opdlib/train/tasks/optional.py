"""Packages that only some tasks need."""

from __future__ import annotations

import importlib
from typing import Any

from opdlib.errors import MissingDependencyError


def optional(module: str, distribution: str, purpose: str) -> Any:
    """The imported `module`. Raises MissingDependencyError that names the purpose and the pip command."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"{purpose} needs {error.name}, which is not installed; run: pip install {distribution}"
        ) from error
