"""A measurement shared out over machines that know nothing of each other: each measures a shard, one puts together.

A shard is a results folder without results: a ledger with its share of the parts, and what it is a shard of.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from opdlib.checkpoints import open_checkpoint
from opdlib.checkpoints.checkpoint import Checkpoint
from opdlib.errors import MeasureError, ParameterError
from opdlib.files import locked, write_file
from opdlib.measurement.parts import Part
from opdlib.measurement.schedule import METRICS, Measurement, gather, identity, measure_share
from opdlib.results.layout import refuse_other
from opdlib.results.measure import Order, job_of, ledger_of, measure_locked

LEDGER = ".ledger"
"""In a shard's folder, so that it moves with it."""
SHARD = "shard.json"
"""What a shard is of: the specs and options of the whole measurement. The same in all of its shards."""


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
        jobs = [job_of(order, place / LEDGER) for order, place in zip(orders, places, strict=True)]
        done = measure_share(source, jobs, number, of, view=view, metrics=metrics, device=device, **options)
    for order in orders:
        facts = {
            "name": order.name,
            "source": source.spec,
            "trained": order.trained.spec,
            "skip": list(order.skip),
            "note": order.note,
            "scales": dict(order.scales),
            "rename": dict(order.rename),
            "view": view,
            "metrics": list(metrics),
            "device": device,
        }
        write_file(order.folder / SHARD, json.dumps(facts, indent=1, sort_keys=True) + "\n")
    return done


def merge(shards: Sequence[Path], out: Path, **options: Any) -> Measurement:
    """Put shards of one measurement together, in any order, and write its results into `out`.

    They are the bytes that one process would have written. The checkpoints are opened once more, because the results
    say which weights they are of. Raises ParameterError for folders that are no shards or not of one measurement,
    MeasureError with the parts that no shard has, OutputError.
    """
    texts = {folder: _text(folder) for folder in shards}
    facts = json.loads(texts[shards[0]])
    for folder, text in texts.items():
        if text != texts[shards[0]]:
            other = json.loads(text)
            key = next(key for key in facts if facts[key] != other.get(key))
            raise ParameterError(
                f"{folder}: {key} is {other.get(key)!r} in this shard and {facts[key]!r} in {shards[0]}; "
                "merge the shards of one measurement"
            )
    source = open_checkpoint(facts["source"])
    skip, trained = tuple(facts["skip"]), open_checkpoint(facts["trained"])
    order = Order(out, facts["name"], trained, skip, facts["note"], facts["scales"], facts["rename"])
    chosen = {key: facts[key] for key in ("view", "metrics", "device")}
    ledgers = [folder / LEDGER for folder in shards]
    with locked(out, f"pair {order.name}") as place:
        ours = source.digest(), trained.digest(), facts["view"], skip, facts["metrics"], facts["rename"]
        refuse_other(place, identity(*ours))
        if missing := gather(source, job_of(order, ledger_of(place)), ledgers, **chosen):
            raise _lacking(out, missing)
        return measure_locked(source, {place: order}, **chosen, **options)[0]


def _lacking(out: Path, missing: Sequence[Part]) -> MeasureError:
    named = ", ".join(map(str, missing[:5])) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
    return MeasureError(
        f"{out}: {len(missing)} parts are in no shard: {named}; run the opd measure --shard that is not done, and "
        "merge again"
    )


def _text(folder: Path) -> str:
    file = folder / SHARD
    if not file.is_file():
        raise ParameterError(f"{folder}: no {SHARD}; wanted a folder that opd measure --shard wrote")
    return file.read_text(encoding="utf8")
