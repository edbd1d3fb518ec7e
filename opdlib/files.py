"""Where files lie, and the one way to write them: whole or not at all.

opdlib's own data lies beside the package in a wheel, beside the repository's root in a checkout; what is made for a
user goes to a cache folder. A file or folder is written beside its place, under a hidden name that ends in .part, and
renamed: a full disk or a kill leaves what was there before.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

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
    """`path` itself if it exists or is absolute; else the file of that name in the checkout, if there is one. So
    `data/patches/x.safetensors`, as the registry writes it, is found from every working directory."""
    if path.is_absolute() or path.exists():
        return path
    own = data_root().parent / path
    return own if own.exists() else path


def cache_root() -> Path:
    """Where dequantized models and measured results are kept: $OPDLIB_CACHE, else the platform's user cache."""
    chosen = os.environ.get("OPDLIB_CACHE")
    return Path(chosen) if chosen else platformdirs.user_cache_path("opdlib")


@contextmanager
def new_file(target: Path) -> Iterator[BinaryIO]:
    """A file to write; it becomes `target`, replacing what was there, if nothing is raised. Raises OutputError."""
    with _staged(target) as staging:
        with staging.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        staging.replace(target)


def write_file(target: Path, content: str | bytes) -> None:
    """Write `target` whole. Raises OutputError."""
    with new_file(target) as stream:
        stream.write(_bytes(content))


@contextmanager
def new_folder(target: Path, replace: bool = False, shared: bool = False) -> Iterator[Path]:
    """A folder to fill; it becomes `target` if nothing is raised. What was there must be empty, or is replaced with
    `replace`. `shared` is said of a place where other processes may build the same. Raises OutputError."""
    if not replace and target.exists() and (target.is_file() or any(target.iterdir())):
        raise OutputError(f"{target}: is in the way; give a new folder, or a file that ends in .safetensors")
    with _staged(target, shared) as staging:
        staging.mkdir()
        yield staging
        if replace:
            shutil.rmtree(target, ignore_errors=True)
        staging.replace(target)


def build_once(target: Path, build: Callable[[Path], None]) -> Path:
    """The folder `target` in the cache, made by `build(empty_folder)` if it is not there yet. Raises OutputError."""
    if not target.is_dir():
        try:
            with new_folder(target, shared=True) as folder:
                build(folder)
        except OutputError as error:
            if not target.is_dir():  # else another process was faster, and its folder is as good as ours
                raise OutputError(f"{error}: set OPDLIB_CACHE to another folder") from error
    return target


def write_together(folder: Path, files: Mapping[str, str | bytes], last: str) -> None:
    """Write `files` (name -> content) into `folder`, the one named `last` at the end. Until all are written the earlier
    files are untouched; if that fails, there is no new `last`. Raises OutputError."""
    with _staged(folder / last, shared=True) as staging:
        staging.mkdir()
        for name, content in files.items():
            (staging / name).write_bytes(_bytes(content))
        (folder / last).unlink(missing_ok=True)
        for name in [*(n for n in files if n != last), last]:
            (staging / name).replace(folder / name)


def _bytes(content: str | bytes) -> bytes:
    return content.encode() if isinstance(content, str) else content


@contextmanager
def _staged(target: Path, shared: bool = False) -> Iterator[Path]:
    """A free name beside `target` to build it under; what is still there afterwards is removed. Where no other process
    writes the same, the name is always the same one, so that nothing stays of a killed process."""
    staging = target.with_name(f".{target.name}{f'.{uuid.uuid4().hex}' if shared else ''}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove(staging)
        yield staging
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(
            f"{target}: cannot be written ({error.strerror or error}) and was not; free space or choose another place"
        ) from error
    finally:
        _remove(staging)


def _remove(path: Path) -> None:
    with suppress(OSError):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
