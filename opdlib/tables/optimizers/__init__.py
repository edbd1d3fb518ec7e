"""The page on optimizers: the runs that differ from `opd` in nothing but the optimizer, its rate or its gradient.

Start with `arms`: the sweep, its curves and its deltas; its names are those of this package, too. `compared` and `best`
set arms against each other, at one rate, at equal norm, or each at its best; `state` is about AdamW's momentum and
second moment. From their tables `written` makes text and `words` sentences; `cells` has what both need. What the paper
says is in `opdlib.claims.optimizers`.
"""

from __future__ import annotations

from opdlib.tables.optimizers import best, cells, compared, state, words, written
from opdlib.tables.optimizers.arms import (
    BASE,
    DELTA,
    OPTIMIZERS,
    ZERO,
    labelled,
    learning,
    path_means,
    paths,
    published,
    steps_taken,
    sweep,
    wide,
    with_masters,
)

__all__ = [
    "BASE",
    "DELTA",
    "OPTIMIZERS",
    "ZERO",
    "best",
    "cells",
    "compared",
    "labelled",
    "learning",
    "path_means",
    "paths",
    "published",
    "state",
    "steps_taken",
    "sweep",
    "wide",
    "with_masters",
    "words",
    "written",
]
