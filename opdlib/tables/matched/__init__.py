"""The page on matched arms: who samples and which loss, all else equal, at the end of training and at equal norm.

Start with `arms`: the 2 x 2, its effects, and the numbers that are compared. `norm` compares arms where they had
moved equally far, `paper` sets the paper's contrast beside ours, and `counts` tells how many verdicts chance alone
would give. From their tables `shown` makes text, `words` and `conclusions` sentences.
"""
