"""The page on matched arms: who samples and which loss, all else equal, and how far the weights moved.

Start with `arms`: the 2 x 2 and the numbers that are compared. `margin` compares them with OPD, `norm` sets them
against the norm of the update, `paper` sets the paper's contrast beside ours; `shown` makes text of their tables.
"""
