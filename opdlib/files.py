"""Where files lie, and the one way to write them: by one process at a time, whole or not at all.

opdlib's own data lies beside the package in a wheel, beside the repository's root in a checkout; what is made for a
user goes to a cache folder. Who writes a file or folder holds its lock. It is written beside its place, brought to the
disk and renamed, so that a full disk or a kill leaves what was there before. All of this has hidden names:

| beside `x` | what it is |
| --- | --- |
| `.x.lock` | locked by the process that writes `x`, and says which that is |
| `.x.part` | what is being written |
| `.x.replaced` | what was there, until all of it that stays has moved over |

A killed process loses its lock; what it left goes when the next one takes it.
"""

import fcntl
import os
import platform
import shutil
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import BinaryIO

import platformdirs

from opdlib.errors import OutputError, RegistryError

TRIES = 100
"""To make a folder that others who are done with it remove."""

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


def beside(place: Path, kind: str) -> Path:
    """The hidden name beside `place` for what belongs to it."""
    return place.with_name(f".{place.name}.{kind}")


@contextmanager
def locked(target: Path, work: str = "", wait: bool = False) -> Iterator[Path]:
    """The right to write `target`, a file or folder, until left; gives its real path.

    No other process or thread has it meanwhile. `work` is what others are told that ask for it: they wait for it with
    `wait`, else OutputError names who has it, and since when. OutputError as well where nothing can be written. Folders
    above it are made, and go again if nothing was written into them.
    """
    if "\0" in str(target):
        raise OutputError(f"{target}: is no name of a file; choose one without a null byte")
    place = Path(os.path.realpath(target))
    with explained(target):
        if place == Path.cwd() or place.is_mount():
            raise OutputError(
                f"{target}: cannot be replaced as a whole, since it is the folder you stand in or a disk of its own; "
                "choose a folder in it"
            )
        if place.exists() and not (place.is_file() or place.is_dir()):
            raise OutputError(f"{target}: is a pipe or a device; choose a new file or folder")
        made = [folder for folder in place.parents if not folder.exists()]
        for own in (beside(place, kind) for kind in ("lock", "part", "replaced")):
            if own.is_symlink():  # what it leads to is somebody's
                raise OutputError(f"{own}: is in the way, a link that no writing left; remove it")
        held = _lock(target, beside(place, "lock"), work, wait)
    try:
        with explained(target):
            _settle(place)
        yield place
    finally:
        try:
            with suppress(OSError):
                _settle(place)
            with suppress(OSError):
                beside(place, "lock").unlink()  # before it is let go, so that nobody locks what is gone
                for folder in made:  # if they are empty, nothing was written
                    folder.rmdir()
        finally:
            os.close(held)


@contextmanager
def new_file(target: Path, wait: bool = False, replace: bool = True) -> Iterator[BinaryIO]:
    """A file to write; it becomes `target` if nothing is raised. What was there is replaced, or without `replace` must
    not be. For `wait` see `locked`. Raises OutputError."""
    with locked(target, wait=wait) as place, explained(target):
        if not replace and place.exists():
            raise OutputError(f"{target}: is in the way; give a new file, or remove it first")
        with beside(place, "part").open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        beside(place, "part").replace(place)
        _sync(place.parent)


def write_file(target: Path, content: str | bytes) -> None:
    """Write `target` whole. Raises OutputError."""
    with new_file(target, wait=True) as stream:
        stream.write(_bytes(content))


@contextmanager
def new_folder(target: Path, replace: bool = False) -> Iterator[Path]:
    """A folder to fill; it becomes `target` if nothing is raised. What was there must be empty, or is replaced with
    `replace`. Raises OutputError."""
    with locked(target) as place, explained(target):
        if not replace and place.exists() and (place.is_file() or any(place.iterdir())):
            raise OutputError(f"{target}: is in the way; give a new folder, or a file that ends in .safetensors")
        with _filled(place) as staging:
            yield staging
        if replace:
            shutil.rmtree(place, ignore_errors=True)
        beside(place, "part").replace(place)
        _sync(place.parent)


def build_once(target: Path, build: Callable[[Path], None]) -> Path:
    """The folder `target` in the cache, made by `build(empty_folder)` if it is not there yet; where another process
    builds it, that is waited for. Raises OutputError."""
    if not target.is_dir():
        try:
            with locked(target, wait=True) as place, explained(target):
                if not place.is_dir():
                    with _filled(place) as staging:
                        build(staging)
                    beside(place, "part").replace(place)
                    _sync(place.parent)
        except OutputError as error:
            raise OutputError(f"{error}: set OPDLIB_CACHE to another folder") from error
    return target


def write_together(place: Path, files: Mapping[str, str | bytes], instead_of: Collection[str] = ()) -> None:
    """Write `files` (name -> content) into the folder `place`, whose lock the caller holds: all of them at once, for
    the folder is replaced. What else lies in it stays, but for files of the names `instead_of`. Raises OutputError."""
    with explained(place):
        with _filled(place) as staging:
            for name, content in files.items():
                (staging / name).write_bytes(_bytes(content))
        if place.is_dir():
            place.rename(beside(place, "replaced"))
        staging.replace(place)
        _settle(place, instead_of)
        _sync(place.parent)


def _bytes(content: str | bytes) -> bytes:
    return content.encode() if isinstance(content, str) else content


def _lock(target: Path, lock: Path, work: str, wait: bool) -> int:
    """Take the lock, and write into it who has it; the open file that holds it."""
    gone = 0
    while True:
        try:
            lock.parent.mkdir(parents=True, exist_ok=True)
            held = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        except FileNotFoundError:  # its folder has just gone with the process that made it, or there can be none
            gone += 1
            if gone == TRIES:
                raise
            continue
        try:
            fcntl.flock(held, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            if _same(held, lock):
                with suppress(OSError):  # a full disk: others are told less
                    os.ftruncate(held, 0)
                    os.write(held, _holder(work))
                return held
        except BlockingIOError:
            os.close(held)
            try:
                holder = lock.read_text(encoding="utf8", errors="replace").strip()
            except FileNotFoundError:
                continue  # it has just been let go
            raise OutputError(
                f"{target}: is being written by {holder or 'another process'}; wait for it or choose another place"
            ) from None
        except BaseException:
            os.close(held)
            raise
        os.close(held)  # of a process that was done in this moment: its lock is gone from the folder


def _same(held: int, lock: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(held), lock.stat())
    except FileNotFoundError:
        return False


def _holder(work: str) -> bytes:
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    return f"process {os.getpid()} on {platform.node()} since {since}{f' ({work})' if work else ''}\n".encode()


@contextmanager
def explained(target: Path) -> Iterator[None]:
    """Whatever the system says against writing `target` becomes an OutputError that names it."""
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(
            f"{target}: cannot be written ({error.strerror or error}) and was not; free space or choose another place"
        ) from error


@contextmanager
def _filled(place: Path) -> Iterator[Path]:
    """An empty folder to fill, all of it on the disk when this is left."""
    staging = beside(place, "part")
    staging.mkdir()
    yield staging
    for path in [*staging.rglob("*"), staging]:
        _sync(path)


def _settle(place: Path, instead_of: Collection[str] = ()) -> None:
    """End what was begun, or undo it: if the new folder has its place, what stays of the old one follows; else the old
    one gets its place back."""
    old = beside(place, "replaced")
    if old.is_dir() and not place.exists():
        old.rename(place)
    elif old.is_dir():
        for path in old.iterdir():
            if path.name not in instead_of and not os.path.lexists(place / path.name):
                path.rename(place / path.name)
        shutil.rmtree(old)
    staging = beside(place, "part")
    if staging.is_dir():
        shutil.rmtree(staging)
    else:
        staging.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """Have the disk hold a file, or the names in a folder, before anything that relies on it."""
    opened = os.open(path, os.O_RDONLY)
    try:
        with suppress(OSError) if path.is_dir() else nullcontext():  # some network disks cannot do it for folders
            os.fsync(opened)
    finally:
        os.close(opened)
