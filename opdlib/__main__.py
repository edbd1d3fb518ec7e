"""`python -m opdlib`: what the command `opd` does."""

import sys

from opdlib.cli.process import run

sys.exit(run())
