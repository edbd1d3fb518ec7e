"""Files that are read more than once, and must be the same each time."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from stat import S_ISREG

from opdlib.errors import CheckpointError


class Watched:
    """Files as they are now, by size, time and inode. Raises CheckpointError for one that cannot be read, and for a
    pipe, a device or a folder in the place of a file."""

    def __init__(self, files: Iterable[Path] = ()):
        self._known = {file: _seen(file) for file in files}

    def __or__(self, other: Watched) -> Watched:
        both = Watched()
        both._known = self._known | other._known
        return both

    @property
    def size(self) -> int:
        """Bytes of all of them together."""
        return sum(size for size, *_ in self._known.values())

    def __contains__(self, file: Path) -> bool:
        return file.exists() and any(file.samefile(known) for known in self._known if known.exists())

    def check(self, *files: Path) -> None:
        """Raise CheckpointError for the first of `files` (all of them if none is named) that is another by now."""
        for file in files or self._known:
            was, now = self._known[file], _seen(file)
            if now != was:
                raise CheckpointError(
                    f"{file}: was changed while it was read (then {was[0]} bytes, now {now[0]}); run this again when "
                    "nothing writes to it"
                )


def unreadable(file: Path, error: OSError) -> CheckpointError:
    """What to raise where the system does not give a file."""
    return CheckpointError(f"{file}: cannot be read ({error.strerror}); copy or download the file again")


def _seen(file: Path) -> tuple[int, int, int]:
    try:
        found = file.stat()
    except OSError as error:
        raise unreadable(file, error) from error
    if not S_ISREG(found.st_mode):
        raise CheckpointError(f"{file}: is no regular file; copy or download the file again")
    return found.st_size, found.st_mtime_ns, found.st_ino
