"""What does post-training do to a model's weights? Open two checkpoints, subtract, measure, tabulate, draw.

A pair in five lines (folders, files, Hub names, `wheel:` and `patch:` are all checkpoints):

>>> import opdlib
>>> measured = opdlib.measure("base", "trained")
>>> f"{measured.summary['exact_zero']:.0%} of the weights did not move in view {measured.view}"
'38% of the weights did not move in view bf16'
>>> columns = list(measured.matrices)  # every number of every matrix that changed; also: tensors, layers
>>> folder = measured.save("runs/mine")  # what `opd measure --out runs/mine` writes

Results that are there already are opened with `opdlib.open_results("smollm2-opd")`. Tables and pictures of both are in
`opdlib.tables` and `opdlib.figures`: `opdlib.figures.threshold_curve(opdlib.tables.curve(measured))`. The definition
of every number is on the book's page Definitions, every module on its page Library; `opd --help` lists the commands.

Importing opdlib costs nothing: no module is loaded before it is used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from opdlib.errors import needs_extra

if TYPE_CHECKING:
    from opdlib.checkpoints import open_checkpoint
    from opdlib.measurement.overlap import overlap
    from opdlib.results.measure import measure
    from opdlib.results.open import open_results
    from opdlib.train.evaluate import evaluate

__version__ = "0.1.0"

__all__ = ["evaluate", "measure", "open_checkpoint", "open_results", "overlap"]

_HOME = {
    "evaluate": "opdlib.train.evaluate",
    "measure": "opdlib.results.measure",
    "open_checkpoint": "opdlib.checkpoints",
    "open_results": "opdlib.results.open",
    "overlap": "opdlib.measurement.overlap",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'opdlib' has no attribute {name!r}; it offers {', '.join(__all__)}")
    try:
        return getattr(import_module(_HOME[name]), name)
    except ModuleNotFoundError as error:
        raise needs_extra(error) from error


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
