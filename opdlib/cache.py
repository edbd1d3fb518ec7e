"""The user's cache folder, and folders that appear in it whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import platformdirs

from opdlib.errors import OutputError


def cache_root() -> Path:
    """Where dequantized models and measured results are kept: $OPDLIB_CACHE, else the platform's user cache."""
    chosen = os.environ.get("OPDLIB_CACHE")
    return Path(chosen) if chosen else platformdirs.user_cache_path("opdlib")


def build_once(target: Path, build: Callable[[Path], None]) -> Path:
    """The folder `target`, made by `build(empty_folder)` if it is not there yet.

    The folder is built beside its place and renamed when it is complete, so a reader never meets half of it and a
    process that is killed leaves nothing that counts. Raises OutputError if it cannot be written.
    """
    if target.is_dir():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    except OSError as error:
        raise OutputError(
            f"{target.parent}: cannot be written ({error.strerror}); set OPDLIB_CACHE to another folder"
        ) from error
    try:
        build(staging)
        staging.replace(target)
    except OSError as error:
        if target.is_dir():  # another process was faster, and its folder is as good as ours
            return target
        raise OutputError(
            f"{target}: cannot be written ({error.strerror or error}); free some space and try again"
        ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return target
