"""A measurement shared out over machines that know nothing of each other: each measures a shard, one puts together.

A shard is a results folder without results: a ledger with its share of the parts, and what it is a shard of.
"""

import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from opdlib.checkpoints import open_checkpoint
from opdlib.checkpoints.checkpoint import Checkpoint
from opdlib.errors import MeasureError, ParameterError, named
from opdlib.files import locked, write_file
from opdlib.foreign import read_object
from opdlib.measurement.schedule import METRICS, Measurement, gather, identity, measure_share
from opdlib.registry.recipes import EXACT
from opdlib.results.known import check_fit
from opdlib.results.layout import refuse_other
from opdlib.results.measure import Order, ledger_of, measure_locked

LEDGER = ".ledger"
"""In a shard's folder, so that it moves with it."""
SHARD = "shard.json"
"""Holds a `Shard`."""


class Shard(BaseModel):
    """What a shard is of: the specs and options of the whole measurement. The same in all of its shards."""

    model_config = EXACT

    name: str
    source: str
    trained: str
    skip: list[str]
    note: str
    scales: dict[str, float]
    rename: dict[str, str]
    view: str
    metrics: list[str]
    device: str


def measure_shard(
    source: Checkpoint,
    orders: Sequence[Order],
    number: int,
    of: int,
    *,
    view: str = "bf16",
    metrics: Sequence[str] = METRICS,
    device: str = "auto",
    **options: Any,
) -> tuple[int, int]:
    """Measure shard `number` (from 1) of `of` of pairs over one source, into the folder of each order.

    Returns its parts, and all there are. After a kill the same call goes on. See `measure_share` in
    `opdlib.measurement.schedule`, which takes the same options.
    """
    with ExitStack() as stack:
        work = f"shard {number}/{of}"
        places = [stack.enter_context(locked(order.folder, f"{order.name}, {work}")) for order in orders]
        jobs = [replace(order, ledger=place / LEDGER) for order, place in zip(orders, places, strict=True)]
        done = measure_share(source, jobs, number, of, view=view, metrics=metrics, device=device, **options)
    for order in orders:
        shard = Shard(
            name=order.name,
            source=source.spec,
            trained=order.trained.spec,
            skip=list(order.skip),
            note=order.note,
            scales=dict(order.scales),
            rename=dict(order.rename),
            view=view,
            metrics=list(metrics),
            device=device,
        )
        write_file(order.folder / SHARD, json.dumps(shard.model_dump(), indent=1, sort_keys=True) + "\n")
    return done


def merge(shards: Sequence[Path], out: Path, **options: Any) -> Measurement:
    """Put shards of one measurement together, in any order, and write its results into `out`.

    They are the bytes that one process would have written. The checkpoints are opened once more, because the results
    say which weights they are of. Raises ParameterError for folders that are no shards or not of one measurement,
    MeasureError with the parts that no shard has, OutputError.
    """
    first, *others = map(_read, shards)
    facts = first.model_dump()
    for folder, other in zip(shards[1:], others, strict=True):
        if key := next((key for key, value in other.model_dump().items() if value != facts[key]), None):
            raise ParameterError(
                f"{folder}: {key} is {getattr(other, key)!r} in this shard and {facts[key]!r} in {shards[0]}; "
                "merge the shards of one measurement"
            )
    source = open_checkpoint(first.source)
    skip, trained = tuple(first.skip), open_checkpoint(first.trained)
    order = Order(first.name, trained, skip, folder=out, scales=first.scales, rename=first.rename, note=first.note)
    chosen = {key: facts[key] for key in ("view", "metrics", "device")}
    ledgers = [folder / LEDGER for folder in shards]
    with locked(out, f"pair {order.name}") as place:
        ours = source.digest(), trained.digest(), first.view, skip, first.metrics, first.rename
        refuse_other(place, identity(*ours))
        if missing := gather(source, replace(order, ledger=ledger_of(place)), ledgers, **chosen):
            raise MeasureError(
                f"{out}: {len(missing)} parts are in no shard: {named(missing)}; run the opd measure --shard that is "
                "not done, and merge again"
            )
        return measure_locked(source, {place: order}, **chosen, **options)[0]


def _read(folder: Path) -> Shard:
    file, wanted = folder / SHARD, "wanted a folder that opd measure --shard wrote"
    if not file.is_file():
        raise ParameterError(f"{folder}: no {SHARD}; {wanted}")
    content = read_object(file, ParameterError, wanted)
    check_fit(Shard, content, file, ParameterError, wanted)
    return Shard.model_validate(content)
