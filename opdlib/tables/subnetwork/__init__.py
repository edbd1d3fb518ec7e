"""The page on subnetworks: training inside a mask, and what two runs changed in common.

Start with `arms`: the runs inside masks, over seeds and on the way; its names are those of this package, too.
`compared` sets masks against full OPD and against each other, `overlap` holds what runs share beside chance of three
kinds. From their tables `written` and `overlap_written` make text, `words` and `overlap_words` sentences. What the
paper says of both is in `opdlib.claims.subnetwork`.
"""

from __future__ import annotations

from opdlib.tables.subnetwork import compared, overlap, overlap_words, overlap_written, words, written
from opdlib.tables.subnetwork.arms import (
    ALONG,
    FULL,
    MAGNITUDE,
    MASKS,
    OWN,
    RANDOM,
    RUNS,
    TRAINS,
    along,
    masks,
    others,
    outside,
    over_seeds,
    published,
    runs,
    scales,
    standing,
)

__all__ = [
    "ALONG",
    "FULL",
    "MAGNITUDE",
    "MASKS",
    "OWN",
    "RANDOM",
    "RUNS",
    "TRAINS",
    "along",
    "compared",
    "masks",
    "others",
    "outside",
    "over_seeds",
    "overlap",
    "overlap_words",
    "overlap_written",
    "published",
    "runs",
    "scales",
    "standing",
    "words",
    "written",
]
