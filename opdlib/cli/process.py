"""The process of `opd`: its signals, its streams and its last word. Nothing here takes long to import."""

import io
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

AGAIN = "the same command starts again"
GOES_ON = {
    "measure": "the same command goes on from here",
    "merge": "the same command goes on from here",
    "study": "the same command goes on from here",
    "trajectory": "the same command goes on from here",
    "train": "with --resume the same command goes on from its last checkpoint",
}
"""Command -> what is true of it after an interrupt; `AGAIN` of the others."""
AT_ONCE = ("--repeat", "--overlaps")
"""Options of `study` that write once, at the end."""


class Terminated(KeyboardInterrupt):
    """The system asked the process to end (SIGTERM): what Ctrl-C does, with an exit code of its own."""


def run() -> int:
    """What the script `opd` runs: `main`, and around it all that only a process has.

    An interrupt at any moment, also while the libraries are loaded, is one line. Streams take any character, and one
    that is closed or full is no traceback.
    """
    signal.signal(signal.SIGTERM, _terminate)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115  # as long as the process
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        from opdlib.cli.main import main

        code = main()
    except KeyboardInterrupt as stop:
        code = interrupted(sys.argv[1:], stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # all is said
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more
    if code in (130, 143):
        os._exit(code)  # threads may be in the middle of a matrix
    return code


def interrupted(tokens: Sequence[str], stop: KeyboardInterrupt) -> int:
    """Say what an interrupt means for the command in `tokens`; the exit code that a shell expects."""
    command = next((token for token in tokens if not token.startswith("-")), "")
    once = command == "study" and any(option in tokens for option in AT_ONCE)
    print(f"opd: interrupted; {AGAIN if once else GOES_ON.get(command, AGAIN)}", file=sys.stderr, flush=True)
    return 143 if isinstance(stop, Terminated) else 130


@contextmanager
def left_to_the_child() -> Iterator[None]:
    """Ctrl-C reaches a child of this process too, which answers it; this one goes on waiting for it."""
    before = signal.signal(signal.SIGINT, lambda number, frame: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _terminate(number: int, frame: FrameType | None) -> None:
    raise Terminated
