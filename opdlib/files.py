"""Where files lie, and the one way to write them: whole or not at all.

opdlib's own data lies beside the package in a wheel, beside the repository's root in a checkout; what is made for a
user goes to a cache folder. A file or folder is written beside its place and renamed, so that a full disk or a kill
leaves what was there before.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import platformdirs

from opdlib.errors import OutputError, RegistryError

PACKAGE = Path(__file__).resolve().parent


def data_root() -> Path:
    """The folder that holds pairs.yaml, paper/, recipes/ and results/. Raises RegistryError if it is not there."""
    for folder in (PACKAGE / "data", PACKAGE.parent / "data"):
        if (folder / "pairs.yaml").is_file():
            return folder
    raise RegistryError(f"{PACKAGE / 'data'}: no pairs.yaml; the installation is incomplete, install opdlib again")


def find(path: Path) -> Path:
    """`path` itself if it exists or is absolute; else the file of that name in the checkout, if there is one.

    So `data/patches/x.safetensors`, as the registry writes it, is found from every working directory.
    """
    if path.is_absolute() or path.exists():
        return path
    own = data_root().parent / path
    return own if own.exists() else path


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


def write_together(folder: Path, files: Mapping[str, str | bytes], last: str) -> None:
    """Write `files` (name -> content) into `folder`, the one named `last` at the end.

    Everything is written to a hidden folder first and then renamed, so a full disk or a kill leaves the earlier files
    untouched and no new `last`. Raises OutputError, with nothing of its own left behind.
    """
    staging = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=".writing-", dir=folder))
        for name, content in files.items():
            (staging / name).write_bytes(content.encode() if isinstance(content, str) else content)
        (folder / last).unlink(missing_ok=True)
        for name in [*(n for n in files if n != last), last]:
            (staging / name).replace(folder / name)
    except OSError as error:
        raise OutputError(
            f"{folder}: results cannot be written ({error.strerror or error}); free some space or choose another --out"
        ) from error
    finally:
        if staging is not None:
            shutil.rmtree(staging, ignore_errors=True)
