"""A process that is killed before one of its operations on files, played in this process and so without its cost.

Python tells an audit hook of every file that is opened and every name that is made, moved or removed. From the chosen
operation on, all of them fail, those of cleaning up as well, as nothing more happens after a kill.
"""

import itertools
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
NAMES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "os.link")


class Killed(BaseException):
    """Nothing catches it."""


@dataclass
class _Watch:
    root: str
    left: int
    ended: bool = False


_watch: list[_Watch] = []
_one_at_a_time = threading.Lock()


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if not _watch or event not in ("open", *NAMES):
        return
    watch, path = _watch[0], arguments[0]
    if isinstance(path, int) or (event == "open" and not (arguments[2] or 0) & WRITING):
        return
    in_open_folder = event in ("os.remove", "os.rmdir") and arguments[1] != -1  # shutil.rmtree
    if not in_open_folder and not os.path.realpath(os.fsdecode(path)).startswith(watch.root):
        return
    with _one_at_a_time:
        watch.ended = watch.ended or watch.left == 0
        watch.left -= 1
    if watch.ended:
        raise Killed


sys.addaudithook(_hook)


@contextmanager
def killed_before(operation: int, root: Path) -> Iterator[None]:
    """Inside, the process is killed before so many operations under `root` have been done; is left as if it were."""
    _watch.append(_Watch(str(root.resolve()), operation))
    try:
        yield
    except Killed:
        pass
    finally:
        _watch.clear()


def every_kill(write: Callable[[], object], root: Path) -> Iterator[int]:
    """Kill `write` before its first operation, its second and so on, until it ends by itself; the caller looks at what
    is there and makes the beginning again after each."""
    for operation in itertools.count():
        ended = []
        with killed_before(operation, root):
            write()
            ended.append(True)
        yield operation
        if ended:
            return
