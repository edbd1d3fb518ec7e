"""opdlib: what does post-training do to a model's weights?

Open two checkpoints, subtract, measure, tabulate, draw. Start with `opdlib.checkpoints.open_checkpoint`,
`opdlib.measurement.schedule.measure` and `opdlib.tables`. Importing the package costs nothing: no module is loaded
before it is used.
"""

__version__ = "0.1.0"
