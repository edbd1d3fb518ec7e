"""Several trained checkpoints over one source: aligned together, then measured tensor by tensor, on from the ledger."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from opdlib.checkpoints.checkpoint import Checkpoint
from opdlib.checkpoints.matrices import Place
from opdlib.errors import AlignmentError, MeasureError
from opdlib.measurement.align import Match, align, view_of
from opdlib.measurement.cores import over_cores
from opdlib.measurement.cost import work
from opdlib.measurement.ledger import Ledger


def align_all(
    source: Checkpoint, trained: Sequence[Checkpoint], skip: Sequence[str] = (), rename: Mapping[str, str] | None = None
) -> dict[str, tuple[Match, ...]]:
    """Name of every parameter -> its matches, in the order of `trained`.

    Raises AlignmentError if one of them lacks a parameter that another has, or has other rows of it.
    """
    by_name = [{match.name: match for match in align(source, one, skip, rename).matches} for one in trained]
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
    return {name: tuple(names[name] for names in by_name) for name in by_name[0]}


def read_finite(checkpoint: Checkpoint, place: Place, view: str) -> Tensor:
    """The parameter as `view` sees it. Raises MeasureError for NaN or Inf."""
    tensor = view_of(place.read(checkpoint), view)
    if not bool(torch.isfinite(tensor).all()):
        raise MeasureError(
            f"{checkpoint.spec}: {place} holds NaN or Inf in view {view}; wanted finite weights. Copy or save the "
            "checkpoint again, or leave the tensor out under skip (--skip NAME)"
        )
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
    kept = {name: part for name in shapes if ledger and (part := ledger.load(_part(name)))}
    found = {name: records for name, (records, _) in kept.items()}
    rest = {name: work((1, *shape)) for name, shape in shapes.items() if name not in found}  # vectors have a size too

    def named(name: str) -> tuple[str, Any]:
        return name, one(name)

    hidden = None if progress is None else not progress
    with tqdm(total=sum(rest.values()), unit=" flop", unit_scale=True, disable=hidden) as bar:
        for name, records in over_cores(named, rest, workers):
            if ledger:
                ledger.store(_part(name), records, {})
            found[name] = records
            bar.update(rest[name])
    return {name: found[name] for name in sorted(found)}


def _part(name: str) -> str:
    return f"tensor-{hashlib.sha256(name.encode()).hexdigest()[:16]}"  # a name may hold what a file name must not
