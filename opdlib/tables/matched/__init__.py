"""The page on matched arms: who samples and which loss, all else equal, at the end of training and at equal norm.

Start with `arms`: the 2 x 2, its effects, and the numbers that are compared; its names are those of this package, too.
`norm` compares arms where they had moved equally far, `paper` sets the paper's contrast beside ours, and `counts` tells
how many verdicts chance alone would give. From their tables `shown` makes text, `words` and `conclusions` sentences.
"""

from __future__ import annotations

from opdlib.tables.matched import conclusions, counts, norm, paper, shown, words
from opdlib.tables.matched.arms import (
    BESIDE,
    CORNERS,
    DRAWN,
    EFFECTS,
    HEADLINE,
    LONG,
    MAIN,
    PARTNER,
    REGIMES,
    against_opd,
    arms_of,
    design,
    differing,
    effects,
    numbers,
    present,
    tested,
)

__all__ = [
    "BESIDE",
    "CORNERS",
    "DRAWN",
    "EFFECTS",
    "HEADLINE",
    "LONG",
    "MAIN",
    "PARTNER",
    "REGIMES",
    "against_opd",
    "arms_of",
    "conclusions",
    "counts",
    "design",
    "differing",
    "effects",
    "norm",
    "numbers",
    "paper",
    "present",
    "shown",
    "tested",
    "words",
]
