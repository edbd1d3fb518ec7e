"""The paper's claims against our numbers: value, tolerance, verdict.

data/paper/claims.csv holds one claim a row, with its tolerance. Those on sparsity and layers were written before our
results existed, those on rank and subspaces after them: their tolerances are a fifth of the range of the paper's
OPD-style rows, and for a single row half a percent and half of the last digit, or 0.002 for a coverage. Columns:

- `paper_value`: a number (0.7789), a range (0.6672..0.895, open to one side: ..0.1) or a word (mlp). No percent.
- `tolerance`: what the range is widened by on both sides.
- `rule`: `[PAIR: ]QUANTITY[; direction RANGE]`. With a pair, the claim is about that row of the paper and is tested on
  that pair only; without, it is about OPD-style updates in general. A quantity is a dotted key of `opd summary --json`,
  two of them with ` - ` or ` / ` between, or a name in `opdlib.claims.quantities.DERIVED`.

The verdict has four words. `reproduced`: within tolerance. `direction`: outside, but within the rule's direction. `not
reproduced`: neither. `not tested`: there is no number to compare, and the reason says why.
"""

from __future__ import annotations

from opdlib.claims.claim import FINDINGS, Claim, Range, load
from opdlib.claims.comparison import GENERAL, VERDICTS, compare, counts
from opdlib.claims.readable import readable
from opdlib.claims.tolerance import tolerance_in_words, without_tolerance

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
