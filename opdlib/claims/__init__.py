"""The paper's claims against our numbers: does the number come out, and does it survive its control?

`opdlib.registry.claims` has the claims of data/paper/claims.csv. `compare` judges those about pairs by one pair,
`of_study` those about arms by the arms of a scale, `records` all of them by everything that there is, which is what
`opd claims` prints. What the words mean stands in `verdict`, what a number is set beside in `controls`.
"""

from opdlib.claims.compared import GENERAL, compare, counts, of_study, passing, records, without_tolerance
from opdlib.claims.readable import listed, readable
from opdlib.registry.claims import FINDINGS, Claim, Range, load
