"""The page on matched arms: who samples and which loss, all else equal, at the end of training and at equal norm.

Start with `arms`: the 2 x 2, its effects, the numbers that are compared, and how many verdicts chance alone would give.
`norm` compares arms where they had moved equally far, `paper` sets the paper's contrast beside ours; `shown` makes text
of their tables.
"""
