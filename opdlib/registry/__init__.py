"""Pairs, study, recipes and claims as they are written down in data/, checked when they are read. No torch."""
