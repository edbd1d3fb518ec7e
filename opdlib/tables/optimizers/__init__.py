"""The page on optimizers: the runs that differ from `opd` in nothing but the optimizer, its rate or its gradient.

Start with `sweep`: the arms, their curves and their deltas. `compared` sets arms against each other, at one rate, at
equal norm, or each at its best; `state` is about AdamW's momentum and second moment. From their tables `written` makes
text. What the paper says is in `opdlib.claims`.
"""
