"""The paper's claims against our numbers: value, tolerance, verdict.

`opdlib.registry.claims` has the claims of data/paper/claims.csv, which are about the two checkpoints of a pair; those
about runs of the study are in `optimizers` and `subnetwork`. All go through the rule in `verdict`. Its words:
`reproduced`, within tolerance; `direction`, outside, but within the rule's direction; `not reproduced`, neither;
`undecided`, an interval over seeds that lies on both sides; `not tested`, there is no number, and the reason says why.
"""

from __future__ import annotations

from opdlib.claims.compared import GENERAL, VERDICTS, compare, counts, tolerance_in_words, without_tolerance
from opdlib.claims.readable import readable
from opdlib.registry.claims import FINDINGS, Claim, Range, load

__all__ = [
    "FINDINGS",
    "GENERAL",
    "VERDICTS",
    "Claim",
    "Range",
    "compare",
    "counts",
    "load",
    "readable",
    "tolerance_in_words",
    "without_tolerance",
]
