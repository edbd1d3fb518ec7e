"""The training laboratory: recipes in, run folders with checkpoints out.

`opdlib.train.run.train` and `opdlib.train.evaluate.evaluate` are the entrances. Training hands over a *folder*; nothing
that measures imports this package, and only the command line does. Everything here needs the extra `opdlib[train]`.
"""
