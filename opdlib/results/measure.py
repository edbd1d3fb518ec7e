"""Measure a pair and write its folder of results; what the files hold is said in `opdlib.results.layout`."""

from __future__ import annotations

import csv
import io
import json
import math
import platform
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import opdlib
from opdlib.checkpoints import open_checkpoint, short_name
from opdlib.checkpoints.checkpoint import Checkpoint
from opdlib.errors import OutputError
from opdlib.files import beside, locked, write_together
from opdlib.measurement.ledger import Ledger
from opdlib.measurement.parts import Job
from opdlib.measurement.schedule import METRICS, Measurement, identity, measure_all, measure_pair
from opdlib.quantities import flat
from opdlib.results import layout
from opdlib.results import write as rows
from opdlib.results.flat import undefined
from opdlib.results.nulls import NULLS, of_nulls, refused
from opdlib.results.summarize import summarize

if TYPE_CHECKING:
    from opdlib.results.open import Results


def measure(
    source: str | Path | Checkpoint,
    trained: str | Path | Checkpoint,
    *,
    name: str = "",
    view: str = "bf16",
    metrics: Sequence[str] = METRICS,
    skip: Sequence[str] = (),
    rename: Mapping[str, str] | None = None,
    device: str = "auto",
    workers: int | None = None,
    memory: int | None = None,
    executor: Executor | None = None,
    progress: bool | None = False,
) -> Results:
    """Measure what training changed between two checkpoints; the numbers stay in memory until they are saved.

    `name` is what tables call the pair (default: the last part of the trained checkpoint's path). View bf16 rounds both
    to bf16 before it subtracts, `stored` takes them as they are. `metrics` are sparsity, geometry, nulls and draws (not
    by default); `skip` leaves tensors out, by name or pattern, `rename` replaces beginnings of names. `executor`, any
    of `concurrent.futures`, shares the work among its workers, on this machine or on others. For the rest see
    `measure_all` in `opdlib.measurement.schedule`.

    >>> import opdlib
    >>> measured = opdlib.measure("base", "trained", skip=["*norm*"], metrics=["sparsity"])
    >>> measured.summary["tensors"], round(measured.summary["sparsity"]["1e-04"], 2)
    (17, 0.45)
    >>> measured.tensors[["tensor", "size", "exact_zero"]].head(1)
                          tensor  size  exact_zero
    0  model.embed_tokens.weight   640         238
    >>> sorted(file.name for file in measured.save("runs/mine").iterdir())[:3]
    ['curve.csv', 'energy.csv', 'magnitude.csv']
    """
    from opdlib.results.open import Results

    before, after = open_checkpoint(source), open_checkpoint(trained)
    called = name or short_name(after.spec)
    measured = measure_pair(
        before,
        after,
        name=called,
        skip=skip,
        rename=rename,
        view=view,
        metrics=metrics,
        device=device,
        workers=workers,
        memory=memory,
        executor=executor,
        progress=progress,
    )
    return Results(None, name, files=files_of(measured))


def files_of(measurement: Measurement, note: str = "") -> dict[str, str]:
    """All files of the results of a measurement, by name. `note` goes into the provenance, a word of warning."""
    summary = summarize(measurement)
    files = {
        "tensors.csv": layout.csv_text(rows.of_tensors(measurement)),
        "sparsity.csv": layout.csv_text(rows.of_sparsity(measurement)),
        "energy.csv": layout.csv_text(rows.of_energy(measurement)),
        "curve.csv": layout.csv_text(rows.of_curve(measurement.histogram)),
        "magnitude.csv": layout.csv_text(rows.of_magnitude(measurement)),
        layout.SUMMARY: json.dumps(summary, indent=1, allow_nan=False) + "\n",
    }
    if measurement.matrices is not None:
        files |= {
            "geometry.csv": layout.csv_text(rows.of_geometry(measurement.matrices), rows.GEOMETRY),
            "undefined.csv": layout.csv_text(rows.of_reasons(measurement.matrices), rows.REASONS),
        }
    if "nulls" in measurement.metrics:
        files["nulls.csv"] = layout.csv_text(of_nulls(measurement), NULLS)
    known = _provenance(measurement, undefined(dict(flat(summary))) | refused(measurement), note)
    return files | {layout.PROVENANCE: layout.sealed(known, files)}


def scales_of(stored: Path) -> dict[str, float]:
    """Root mean square of every tensor's delta, from results of view `stored`; empty if there are none."""
    if not (stored / layout.TENSORS).is_file():
        return {}
    content = layout.read_file(stored, layout.TENSORS, layout.read_provenance(stored))
    return scales_in(content.decode())


def scales_in(tensors: str) -> dict[str, float]:
    """The same from the content of its tensors.csv."""
    rows = [row for row in csv.DictReader(io.StringIO(tensors, newline="")) if int(row["size"])]
    return {row["tensor"]: math.sqrt(float(row["energy"]) / int(row["size"])) for row in rows}


@dataclass(frozen=True)
class Order(Job):
    """A trained checkpoint to measure, and the folder that its results go to."""

    folder: Path = field(kw_only=True)
    note: str = ""
    """A word of warning for the provenance."""


def ledger_of(place: Path) -> Path:
    """Where finished parts are kept while results for `place` are measured (`opdlib.measurement.ledger`)."""
    return beside(place, "ledger")


def is_finished(source: Checkpoint, order: Order, view: str, metrics: Sequence[str]) -> bool:
    """Whether the folder of `order` holds exactly this measurement, whole."""
    ours = identity(source.digest(), order.trained.digest(), view, order.skip, metrics, order.rename)
    return layout.holds(order.folder, ours)


def settle(folder: Path) -> None:
    """What a killed process left beside whole results goes, its lock and its ledger; nothing goes while another
    process writes there, and nothing that no measurement wrote."""
    place = folder.resolve()
    if beside(place, "lock").exists() or ledger_of(place).exists():
        with suppress(OutputError), locked(folder):
            Ledger(ledger_of(place), None).clear()


def measure_together(
    source: Checkpoint,
    orders: Sequence[Order],
    *,
    view: str = "bf16",
    metrics: Sequence[str] = METRICS,
    once: bool = False,
    **options: Any,
) -> list[Measurement]:
    """Measure pairs over one source (`measure_all`) and write each one's results into its folder, at once.

    The folders are locked meanwhile; after a kill, the same call goes on from the ledgers beside them. With `once`
    another process that writes there is waited for, and what a folder holds then is not measured again. Raises
    OutputError, before anything is measured, for a folder that another process writes or that holds other results.
    """
    with ExitStack() as stack:
        todo: dict[Path, Order] = {}
        for order in orders:
            place = stack.enter_context(locked(order.folder, f"pair {order.name}", wait=once))
            ours = identity(source.digest(), order.trained.digest(), view, order.skip, metrics, order.rename)
            layout.refuse_other(place, ours)
            if not (once and layout.holds(place, ours)):
                todo[place] = order
        return measure_locked(source, todo, view=view, metrics=metrics, **options)


def measure_locked(source: Checkpoint, orders: Mapping[Path, Order], **options: Any) -> list[Measurement]:
    """Measure as `measure_together` does, where the caller holds the locks: of each order's folder by its real path."""
    jobs = [replace(order, ledger=ledger_of(place)) for place, order in orders.items()]
    measurements = measure_all(source, jobs, **options)
    for (place, order), measurement in zip(orders.items(), measurements, strict=True):
        files = files_of(measurement, order.note)
        source.check_unchanged()
        order.trained.check_unchanged()
        write_together(place, files, layout.FILES)
        shutil.rmtree(ledger_of(place))
    return measurements


def measure_into(
    folder: Path,
    source: Checkpoint,
    trained: Checkpoint,
    *,
    name: str,
    skip: Sequence[str] = (),
    note: str = "",
    **options: Any,
) -> None:
    """Measure one pair into `folder`; see `measure_together`, which takes the same options."""
    measure_together(source, [Order(name, trained, tuple(skip), folder=folder, note=note)], **options)


def versions() -> dict[str, str]:
    """Of what computes."""
    packages = ("numpy", "numba", "torch", "safetensors")
    own = {"opdlib": opdlib.__version__, "python": platform.python_version()}
    return own | {package: version(package) for package in packages}


def _provenance(measurement: Measurement, reasons: dict[str, str], note: str) -> dict[str, Any]:
    stored = ((m.source, m.trained) for m in measurement.alignment.matches)
    return {
        "pair": measurement.name,
        **({"note": note} if note else {}),
        **measurement.origins,
        "identity": measurement.identity,
        "tied_or_skipped": measurement.alignment.left_out,
        "renamed": {a.stored: b.stored for a, b in stored if a.stored != b.stored and a.cut is None is b.cut},
        **({"notes": measurement.alignment.notes} if measurement.alignment.notes else {}),
        "undefined": reasons,
        "device": measurement.device,
        "versions": versions(),
    }
