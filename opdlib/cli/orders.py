"""What `opd measure` is asked for, as pairs and as orders over each source."""

from collections.abc import Sequence
from pathlib import Path

from opdlib.checkpoints import open_checkpoint, short_name
from opdlib.checkpoints.checkpoint import Checkpoint
from opdlib.checkpoints.series import listed, names_of
from opdlib.cli.shares import renames_of
from opdlib.errors import ParameterError
from opdlib.registry.pairs import Pair
from opdlib.results.layout import committed_folder, default_folder, folder_name
from opdlib.results.measure import Order, scales_of


def named_pairs(source: str, trained: Sequence[str], name: Sequence[str]) -> list[Pair]:
    """A pair for every checkpoint that the user names."""
    specs = listed(trained)
    if name and len(name) != len(specs):
        raise ParameterError(f"--name: {len(name)} names for {len(specs)} checkpoints; give one for each, or none")
    if len(set(name)) < len(name):
        raise ParameterError(f"--name: {' '.join(name)}; wanted names that differ")
    called = name or (names_of(specs) if len(specs) > 1 else [short_name(specs[0])])
    return [Pair(key=k, title=k, source=source, trained=t, regime="") for k, t in zip(called, specs, strict=True)]


def orders_of(
    pairs: Sequence[Pair],
    given: bool,
    unnamed: bool,
    out: Path | None,
    view: str,
    skip: Sequence[str],
    rename: Sequence[str],
) -> dict[Checkpoint, list[tuple[Pair, Order]]]:
    """By source, each opened once: the pairs over it and what is wanted of them. The folder of a pair that was `given`
    as two checkpoints, without a name or a place, tells by its own name which checkpoints they were."""
    sources: dict[str, Checkpoint] = {}
    orders: dict[Checkpoint, list[tuple[Pair, Order]]] = {}
    for pair in pairs:
        if pair.trained is None:
            raise ParameterError(
                f"pair {pair.key!r}: {pair.why}; give the checkpoint yourself with --source, --trained"
            )
        after = open_checkpoint(pair.trained)  # first: to open a source may mean to dequantize it, for a minute
        before = sources[pair.source] = sources.get(pair.source) or open_checkpoint(pair.source)
        told_apart = [before.digest(), after.digest()] if given and unnamed and out is None else []
        default = default_folder(pair.key, view, told_apart)
        folder = default if out is None else out if len(pairs) == 1 else out / folder_name(pair.key)
        scales = scales_of(committed_folder(pair, "stored")) if view == "bf16" and not given else {}
        left_out = (*pair.skip, *skip)
        order = Order(pair.key, after, left_out, scales=scales, rename=renames_of(rename), folder=folder)
        orders.setdefault(before, []).append((pair, order))
    return orders
