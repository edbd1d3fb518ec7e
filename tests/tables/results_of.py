"""Results folders of pico checkpoints, measured by the real code."""

from pathlib import Path

import torch

from opdlib.checkpoints import open_checkpoint
from opdlib.results.measure import measure_into
from opdlib.tables import Results
from tests.conftest import Weights, moved, pico_weights, write_checkpoint


def results_of(folder: Path, source: Weights, trained: Weights, view: str = "bf16", name: str = "pico") -> Results:
    """Write both checkpoints below `folder`, measure them and open the results."""
    before, after = write_checkpoint(folder / "source", source), write_checkpoint(folder / "trained", trained)
    out = folder / f"results-{view}"
    measure_into(out, open_checkpoint(str(before)), open_checkpoint(str(after)), name=name, view=view)
    return Results(out)


def deep_pair(layers: int = 9) -> tuple[Weights, Weights]:
    """A bf16 source and a float32 trained side, whose change does not depend on the size of the weight."""
    source = pico_weights(layers)
    return source, moved(source, dtype=torch.float32)
