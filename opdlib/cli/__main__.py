"""`python -m opdlib.cli`: what the command `opd` does, for launchers that want a module."""

import sys

from opdlib.cli.main import main

sys.exit(main())
