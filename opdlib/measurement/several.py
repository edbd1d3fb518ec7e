"""Several trained checkpoints over one source: aligned together, then measured tensor by tensor, on from the ledger."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from opdlib.checkpoints.checkpoint import Checkpoint
from opdlib.checkpoints.matrices import Place
from opdlib.errors import AlignmentError
from opdlib.measurement.align import Match, align, check_finite, view_of
from opdlib.measurement.cores import bar_of, over_cores
from opdlib.measurement.cost import work
from opdlib.measurement.ledger import Ledger, part_of


def align_all(
    source: Checkpoint, trained: Sequence[Checkpoint], skip: Sequence[str] = (), rename: Mapping[str, str] | None = None
) -> tuple[dict[str, tuple[Match, ...]], dict[str, str]]:
    """Name of every parameter -> its matches, in the order of `trained`; and all notes of the alignments.

    Raises AlignmentError if one of them lacks a parameter that another has, or has other rows of it.
    """
    aligned = [align(source, one, skip, rename) for one in trained]
    by_name = [{match.name: match for match in alignment.matches} for alignment in aligned]
    for one, names in zip(trained, by_name, strict=True):
        if stray := sorted(names.keys() ^ by_name[0].keys()):
            raise AlignmentError(
                f"{trained[0].spec} and {one.spec} differ in {stray[0]}; each must hold every tensor of {source.spec}"
            )
        if stray := [name for name, match in names.items() if match.source != by_name[0][name].source]:
            raise AlignmentError(
                f"{stray[0]}: {trained[0].spec} and {one.spec} have different rows of it in common with {source.spec}; "
                "leave it out under skip (--skip NAME)"
            )
    notes = {name: note for alignment in aligned for name, note in alignment.notes.items()}
    return {name: tuple(names[name] for names in by_name) for name in by_name[0]}, notes


def read_finite(checkpoint: Checkpoint, place: Place, view: str) -> Tensor:
    """The parameter as `view` sees it. Raises MeasureError for NaN or Inf."""
    tensor = view_of(place.read(checkpoint), view)
    check_finite(checkpoint, place, tensor, view)
    return tensor


def each_tensor(
    one: Callable[[str], Any],
    shapes: Mapping[str, tuple[int, ...]],
    ledger: Ledger | None,
    workers: int,
    progress: bool | None,
) -> dict[str, Any]:
    """What `one` gives (plain JSON) for each tensor, by name; finished ones come from the ledger and go into it.

    Each is measured on one core, so no number depends on `workers`.
    """
    kept = {name: part for name in shapes if ledger and (part := ledger.load(part_of("tensor", name)))}
    found = {name: records for name, (records, _) in kept.items()}
    rest = {name: work((1, *shape)) for name, shape in shapes.items() if name not in found}  # vectors have a size too

    def named(name: str) -> tuple[str, Any]:
        return name, one(name)

    with bar_of("", sum(rest.values()), " flop", progress) as bar:
        for name, records in over_cores(named, rest, workers):
            if ledger:
                ledger.store(part_of("tensor", name), records, {})
            found[name] = records
            bar.update(rest[name])
    return {name: found[name] for name in sorted(found)}
