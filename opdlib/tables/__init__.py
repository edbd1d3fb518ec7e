"""Tidy tables: one row a number, parameters as columns, shares as fractions in [0, 1].

`opdlib.tables.measured` makes tables of results folders, `opdlib.tables.paper` of the published tables in the same
shape, so that the two can be put one below the other. Every table says in its column `view` what was subtracted.
Numbers of single matrices are in `geometry`, `subspace`, `rounding` and `paper_geometry`, what null models expect in
`nulls` and `paper_nulls`; `written` makes text of them.

Runs of the study are in `study`, with the rule by which its arms are compared; each page on them has a package of its
own: `optimizers`, `subnetwork` and `matched`. A column `quantity` holds keys of `opdlib.quantities`, which says how a
number is written, too.
"""

from opdlib.results.open import Results, open_results
from opdlib.tables import geometry, nulls, paper, paper_geometry, paper_nulls, rounding, subspace, written
from opdlib.tables.measured import (
    among,
    at,
    beside,
    curve,
    energy,
    layers,
    magnitude,
    movement,
    overview,
    sparsity,
    stacked,
    well_populated,
)
from opdlib.tables.written import headed, readable
