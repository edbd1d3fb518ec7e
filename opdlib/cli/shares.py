"""One measurement on many machines: by a scheduler, or as shards that are merged."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter, Token
from cyclopts.validators import Number

from opdlib.errors import ParameterError, one_line

if TYPE_CHECKING:
    from opdlib.checkpoints.checkpoint import Checkpoint
    from opdlib.results.measure import Order


def _whole(kind: object, tokens: Sequence[Token]) -> int | tuple[int, ...]:
    """Each as it is written: cyclopts would take 1.5 for 2."""
    found = tuple(int(token.value) for token in tokens)
    return found if kind == tuple[int, ...] else found[0]


Whole = Annotated[int, Parameter(converter=_whole)]
Wholes = Annotated[tuple[int, ...], Parameter(converter=_whole)]
"""Options that are whole numbers."""
Count = Annotated[int, Parameter(converter=_whole, validator=Number(gte=1))]
"""An option that is a number of workers."""

UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def bytes_of(memory: str) -> int:
    """Bytes that a number with or without a unit means: 8G is 8 * 2^30. Raises ParameterError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGT]?)B?", memory.strip().upper())
    count = float(found[1]) * UNITS[found[2]] if found else 0
    if not 0 < count < math.inf:
        raise ParameterError(f"--memory {memory}; wanted a number of bytes, such as 8000000000 or 8G")
    return int(count)


def renames_of(texts: Sequence[str]) -> dict[str, str]:
    """What `--rename FROM=TO` says; either may be empty, but not both."""
    for text in texts:
        if "=" not in text or text == "=":
            raise ParameterError(f"--rename {text}: wanted FROM=TO, such as --rename actor.model.=model.")
    return {old: new for old, _, new in (text.partition("=") for text in texts)}


@contextmanager
def executor_of(dask: str | None) -> Iterator[Executor | None]:
    """The workers of a Dask scheduler; None, for this machine's own cores, without an address."""
    if dask is None:
        yield None
        return
    from opdlib.measurement import machines

    with machines.dask(dask) as executor:
        yield executor


def measure_shards(orders: Mapping[Checkpoint, Sequence[Order]], shard: str, options: Mapping[str, Any]) -> None:
    """Measure shard I/N of the orders over each source, and say what was done."""
    from opdlib.results.shards import measure_shard

    found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", shard)
    if found is None:
        raise ParameterError(f"--shard {shard}; wanted I/N, such as 2/5 for the second of five")
    for source, together in orders.items():
        parts, whole = measure_shard(source, together, int(found[1]), int(found[2]), **options)
        for order in together:
            print(one_line(f"{order.name}: shard {shard}, {parts} of {whole} parts; in {order.folder}"))


def tell_forecasts(orders: Mapping[Checkpoint, Sequence[Order]], options: Mapping[str, Any]) -> None:
    """What the orders over each source would take: a line for each number."""
    from opdlib.measurement.forecast import forecast

    for source, together in orders.items():
        found = forecast(source, together, **options)
        print(", ".join(order.name for order in together))
        print(f"  tensors   {found.tensors}, with {found.matrices} matrices")
        print(f"  to read   {_size(found.read)}, of which {_size(found.download)} to download")
        print(f"  memory    {_size(found.memory)}")
        print(f"  time      {_time(found.seconds)}")


def _size(count: float) -> str:
    unit = next((u for u in (10**12, 10**9, 10**6, 10**3) if count >= u), 1)
    return f"{count / unit:.3g} {({10**12: 'TB', 10**9: 'GB', 10**6: 'MB', 10**3: 'kB'}).get(unit, 'bytes')}"


def _time(seconds: float) -> str:
    hours, rest = divmod(math.ceil(seconds), 3600)
    return f"{hours} h {rest // 60} min" if hours else f"{rest // 60} min {rest % 60} s" if rest >= 60 else f"{rest} s"


def merge(
    *shards: Path, out: Annotated[Path, Parameter(alias="-o")], workers: Count | None = None, json: bool = False
) -> None:
    """Put the shards of one measurement together.

    example: opd merge runs/shard-1 runs/shard-2 -o runs/whole

    Args:
        shards: folders that opd measure --shard wrote, in any order
        out: results folder
        workers: threads (default: one per core)
        json: what was put together as JSON
    """
    from opdlib.results.shards import merge

    if not shards:
        raise ParameterError("merge takes the folders of shards; see opd merge --help")
    measured = merge(list(shards), out, workers=workers, progress=None)
    facts = {"name": measured.name, "shards": len(shards), "tensors": len(measured.tensors), "results": str(out)}
    said = "{name}: {shards} shards, {tensors} tensors; results in {results}".format(**facts)
    print(dumps(facts, indent=1) if json else one_line(said))
