"""The `opd` command. Thin: arguments in, library calls, one line of error out."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from opdlib.cli.arguments import parser
from opdlib.cli.process import prepare
from opdlib.errors import OpdError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command: 0 when everything was done, 2 with one line on stderr for bad input, 130 when interrupted."""
    options = parser().parse_args(arguments)
    prepare()
    try:
        options.run(options)
        sys.stdout.flush()
    except OpdError as error:
        return _complain(options, error, str(error))
    except ModuleNotFoundError as error:
        return _complain(options, error, f"{error.name} is not installed; run: pip install 'opdlib[train]'")
    except BrokenPipeError:
        # The reader went away (opd ... | head). Python would complain once more at exit, so stdout is pointed
        # elsewhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        # What no floor below put a name to: still a matter of files and disks, so still one line.
        where = f"{error.filename}: " if error.filename else ""
        return _complain(
            options,
            error,
            f"{where}{error.strerror or error}; check the path, its permissions and free space",
        )
    except KeyboardInterrupt:
        print("opd: interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    return 0


def _complain(options: argparse.Namespace, error: Exception, message: str) -> int:
    if options.debug:
        raise error
    print(f"opd: {' '.join(message.split())}", file=sys.stderr)
    return 2
