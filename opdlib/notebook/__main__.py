"""`python -m opdlib.notebook clean FILE...`"""

import argparse
from pathlib import Path

from opdlib.notebook.cleaning import clean

parser = argparse.ArgumentParser(prog="python -m opdlib.notebook")
actions = parser.add_subparsers(required=True, metavar="ACTION")
cleaner = actions.add_parser("clean", help="take out what differs between two runs of the same notebook")
cleaner.add_argument("files", nargs="+", type=Path, metavar="FILE")
for file in parser.parse_args().files:
    clean(file)
