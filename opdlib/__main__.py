"""`python -m opdlib`: what the command `opd` does."""

import sys

from opdlib.cli.main import main

sys.exit(main())
