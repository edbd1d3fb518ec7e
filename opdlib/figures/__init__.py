"""Figures as functions of a table: `f(table, ax=None) -> Axes`. A caption says what it shows, a title whose runs."""

from opdlib.figures import nulls, rank, subspace
from opdlib.figures.curves import magnitude, threshold_curve
from opdlib.figures.dots import block_energy, block_norm, pair_norm, pair_sparsity
from opdlib.figures.maps import layer_module
from opdlib.figures.theme import panels, theme
