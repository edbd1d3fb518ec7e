"""`python -m opdlib.cli`: what the command `opd` does, for launchers that want a module."""

import sys

from opdlib.cli.process import run

sys.exit(run())
