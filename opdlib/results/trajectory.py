"""A training measured step by step into a folder, one file a step and view; rows of `along` when it has ended.

What is kept of a step is small beside its weights: its numbers, and the leading bases of its updates. So each step's
weights can go as soon as the two steps after it are measured.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch

from opdlib.checkpoints.checkpoint import Checkpoint
from opdlib.errors import RegistryError
from opdlib.files import write_file
from opdlib.measurement.align import VIEWS
from opdlib.measurement.trajectory import (
    CONTROLS,
    KEPT,
    Bases,
    MatrixStep,
    TrainingStep,
    controls,
    measure_step,
    similarities,
)
from opdlib.metrics.trajectory import Stride
from opdlib.results.study import ALONG, SIMILARITY
from opdlib.stats import median

FORMAT = 1
"""Raised whenever a number in the files changes its meaning."""

Row = dict[str, Any]


def is_measured(folder: Path, step: int, views: Sequence[str] = VIEWS) -> bool:
    """Whether `folder` has this step in all views."""
    return all(_file(folder, step, view).is_file() for view in views)


def measure_last(
    source: Checkpoint,
    steps: Sequence[tuple[int, Checkpoint]],
    folder: Path,
    *,
    views: Sequence[str] = VIEWS,
    skip: Sequence[str] = (),
    workers: int | None = None,
) -> None:
    """Measure the last of `steps` (number and weights, ascending) against `source` and the two before it, in every view
    that `folder` does not have of it.

    A whole training is measured by this call for steps[:1], steps[:2] and so on; of the steps before the last only two
    are read. For the rest see `opdlib.measurement.trajectory.measure_step`.
    """
    path = [(0, source), *steps]
    (since, last), (step, trained) = path[-2:]
    digests = {"source": source.digest(), "trained": trained.digest()}
    identity = {"format": FORMAT, **digests, "since": since, "skip": sorted(skip)}
    files = {view: _file(folder, step, view) for view in views}
    wanted = [view for view, file in files.items() if not file.is_file() or _header(file)["identity"] != identity]
    if wanted:
        earlier = path[-3][1] if len(steps) > 1 else None
        found = measure_step(source, trained, last, earlier, views=wanted, skip=skip, workers=workers)
        for view, seen in found.items():
            write_file(files[view], _content(identity, seen))


def trajectory(folder: Path, view: str, workers: int | None = None) -> list[Row]:
    """A row for every step that `folder` has in this view: step and `ALONG`, NaN where a number is undefined, which
    controls are in every view but `stored`.

    Numbers of matrices are medians over those that have them. The last step is the one that others are compared with.
    Raises RegistryError if there is no step, or if one was measured without the one before it.
    """
    kept = sorted(map(_read, folder.glob(f"[0-9]*/{view}.safetensors")), key=lambda step: step.step)
    if not kept:
        raise RegistryError(f"{folder}: no step measured in view {view}")
    for before, step in zip([0, *(step.step for step in kept)], kept, strict=False):
        if step.since != before:
            raise RegistryError(
                f"{folder}: step {step.step} was measured since step {step.since}, and the one before it here is "
                f"{before}; remove the folder and measure the steps again, in their order"
            )
    last = _bases(_file(folder, kept[-1].step, view))
    alike = similarities([_bases(_file(folder, step.step, view)) for step in kept], last)
    shapes = {name: kept[-1].matrices[name].shape for name in last}
    strides = {name: [s for step in kept if (s := step.matrices[name].stride)] for name in last if view == KEPT}
    drawn = {kind: controls(strides, shapes, kind, workers) for kind in CONTROLS}
    rows = []
    for place, step in enumerate(kept):
        pairs = [alike[place].values(), *([walk[place] for walk in drawn[kind].values()] for kind in CONTROLS)]
        sides = [[pair[side] for pair in found] for found in pairs for side in (0, 1)]
        of_matrices = {
            key: [m.numbers[key] for m in step.matrices.values() if m.numbers]
            for key in ALONG
            if key not in (*SIMILARITY, *step.numbers)
        }
        medians = {key: median(values) for key, values in of_matrices.items()}
        similar = dict(zip(SIMILARITY, map(median, sides), strict=True))
        rows.append({"step": step.step, **step.numbers, **medians, **similar})
    return [{column: row[column] for column in ("step", *ALONG)} for row in rows]


@dataclass(frozen=True)
class _Kept:
    """A file without its bases."""

    step: int
    since: int
    numbers: Mapping[str, float]
    """Of the whole model."""
    matrices: Mapping[str, MatrixStep]
    """With `bases` None."""


def _content(identity: Mapping[str, Any], found: TrainingStep) -> bytes:
    bases = {
        f"{matrix.name}.{side}": vectors.contiguous()
        for matrix in found.matrices
        if matrix.bases
        for side, vectors in zip(("left", "right"), matrix.bases, strict=True)
    }
    header = {
        "identity": identity,
        "numbers": found.numbers,
        "matrices": [
            {"name": m.name, "shape": m.shape, "stride": m.stride and asdict(m.stride), "numbers": m.numbers}
            for m in found.matrices
        ],
    }
    return safetensors.torch.save(bases, {"trajectory": json.dumps(header)})


def _header(file: Path) -> dict[str, Any]:
    with safetensors.safe_open(file, "pt") as stream:
        header: dict[str, Any] = json.loads(stream.metadata()["trajectory"])
    return header


def _read(file: Path) -> _Kept:
    header = _header(file)
    matrices = [
        MatrixStep(m["name"], tuple(m["shape"]), m["stride"] and Stride(**m["stride"]), m["numbers"], None)
        for m in header["matrices"]
    ]
    return _Kept(int(file.parent.name), header["identity"]["since"], header["numbers"], {m.name: m for m in matrices})


def _bases(file: Path) -> dict[str, Bases]:
    found = safetensors.torch.load_file(file)
    names = [name.removesuffix(".left") for name in found if name.endswith(".left")]
    return {name: (found[f"{name}.left"], found[f"{name}.right"]) for name in names}


def _file(folder: Path, step: int, view: str) -> Path:
    return folder / str(step) / f"{view}.safetensors"
