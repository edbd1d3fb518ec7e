"""How this process shares the machine: set once by the command line, before torch is loaded."""

from __future__ import annotations

import ctypes
import os
import platform

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGE_ARRAY = 1 << 23
_KEPT = 1 << 23


def prepare() -> None:
    """Let idle threads sleep, and give large freed arrays back to the system at once. Changes no number.

    Threads of OpenMP spin while they wait, by default, which doubles the time of everything on a machine that does
    other work as well. And glibc keeps freed arrays of up to 32 MB for itself, which adds up to a third of the memory
    in use; once told not to, it gives back all it can, and a tenth of the time goes into asking for it again, unless it
    may keep a few MB. What the user has set in the environment stays.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if platform.libc_ver()[0] == "glibc" and "MALLOC_MMAP_THRESHOLD_" not in os.environ:
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, _LARGE_ARRAY)
        libc.mallopt(_M_TRIM_THRESHOLD, _KEPT)
