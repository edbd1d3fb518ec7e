"""The `opd` command: its parts put together, its process, and one line for everything that goes wrong.

A command is a function: its parameters are the options, its docstring is the help. Libraries are imported inside the
functions, so that `opd --help` and a mistyped option answer at once.
"""

import ctypes
import os
import platform
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Annotated

from cyclopts import App, CycloptsError, Parameter

import opdlib
from opdlib.cli import measure, patch, report, several, shares, train
from opdlib.cli.process import interrupted
from opdlib.errors import OpdError, ParameterError, needs_extra, one_line

app = App(
    "opd",
    help="What does post-training do to a model's weights?",
    version=f"opdlib {opdlib.__version__}",
    help_format="plaintext",
    help_formatter="plain",
    # An option takes several values at once (--skip A B), is said again (--skip A --skip B), and has no --no-form.
    default_parameter=Parameter(consume_multiple=(1, None), negative="", show_default=lambda value: value or None),
)
app.suppress_keyboard_interrupt = app.meta.suppress_keyboard_interrupt = False
app.register_install_completion_command(help="Let Tab complete commands and options.")
app.command(measure.measure, usage="Usage: opd measure (PAIR... | --source SPEC --trained SPEC...) [OPTIONS]")
for command in (measure.pairs, measure.summary, measure.overlap, train.evaluate, train.train, train.study):
    app.command(command)
app.command(shares.merge)
app.command(several.trajectory)
app.command(several.compare)
app.command(report.report, usage="Usage: opd report (SOURCE TRAINED... | RESULTS...) -o FILE.html [OPTIONS]")
app.command(report.verify)
patches = App("patch", help="Make lossless sparse patches.\n\nexample: opd patch verify SOURCE FILE TRAINED")
for action in (patch.make, patch.apply, patch.verify):
    patches.command(action)
app.command(patches)
app.command(patch.edit)
app.command(patch.noise)
app.command(report.claims)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command: 0 when everything was done, 2 with one line on stderr for bad input, 130 when interrupted
    (143 when ended by the system)."""
    tokens = sys.argv[1:] if arguments is None else list(arguments)
    try:
        app.meta(tokens, exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader went away (opd ... | head). Python would complain once more at exit, if stdout were not elsewhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (CycloptsError, OSError, OpdError, ModuleNotFoundError) as error:
        return _complain(error, "--debug" in tokens)
    except KeyboardInterrupt as stop:
        return interrupted(tokens, stop)
    return 0


@app.meta.default
def _launch(
    *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)], debug: bool = False, quiet: bool = False
) -> None:
    """What holds for every command.

    Args:
        debug: show the traceback of an error
        quiet: print errors alone, and what --json asks for
    """
    words, apps, rest = app.parse_commands(tokens)
    if not rest and apps[-1].default_command is None:
        raise ParameterError(f"wanted a COMMAND; see {' '.join(('opd', *words))} --help")
    prepare()
    with _silence("--json" in tokens) if quiet else nullcontext():
        app(tokens, exit_on_error=False, print_error=False, result_action="return_value")


@contextmanager
def _silence(but_stdout: bool) -> Iterator[None]:
    """Nothing is printed, and no progress bar drawn; an error is printed by `main`, which stands outside."""
    with Path(os.devnull).open("w") as nowhere:
        said = nullcontext() if but_stdout else redirect_stdout(nowhere)
        with redirect_stderr(nowhere), said:
            yield


def _complain(error: Exception, debug: bool) -> int:
    if debug:
        raise error
    print(f"opd: {one_line(_said(error))}", file=sys.stderr)
    return 2


def _said(error: Exception) -> str:
    if isinstance(error, CycloptsError):
        said = " ".join(str(error).split()).rstrip(".")
        return f"{said}; see {' '.join(('opd', *(error.command_chain or ())))} --help"
    if isinstance(error, ModuleNotFoundError) and not isinstance(error, OpdError):
        return str(needs_extra(error))
    if isinstance(error, OSError) and not isinstance(error, OpdError):
        # What no floor below put a name to: still a matter of files and disks, so still one line.
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror or error}; check the path, its permissions and free space"
    return str(error)


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGE_ARRAY = _KEPT = 1 << 23


def prepare() -> None:
    """Let idle threads sleep, and give large freed arrays back to the system at once. Changes no number.

    Called before torch is loaded. Threads of OpenMP spin while they wait, by default, which doubles the time of
    everything on a machine that does other work as well. And glibc keeps freed arrays of up to 32 MB for itself, which
    adds up to a third of the memory in use; once told not to, it gives back all it can, and a tenth of the time goes
    into asking for it again, unless it may keep a few MB. What the user has set in the environment stays.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if platform.libc_ver()[0] == "glibc" and "MALLOC_MMAP_THRESHOLD_" not in os.environ:
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, _LARGE_ARRAY)
        libc.mallopt(_M_TRIM_THRESHOLD, _KEPT)
