"""A measurement shared out: over an executor's workers, some of which die, and over cores, within a memory."""

import asyncio
import multiprocessing
import os
import random
import signal
import threading
import time
from collections.abc import Hashable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from distributed import Client, LocalCluster, Worker

import opdlib
import opdlib.measurement.sparsity
from opdlib.checkpoints import open_checkpoint
from opdlib.errors import MeasureError, ParameterError
from opdlib.measurement import machines
from opdlib.measurement.cores import memory_in_use, over_cores
from opdlib.measurement.machines import dask
from opdlib.measurement.parts import Job, Plan, measure_by_words
from opdlib.results.measure import Order, measure_into, measure_together
from tests.conftest import moved, pico_weights, write_checkpoint

Folders = tuple[Path, Path]

SCHEDULER: dict[str, Any] = {
    "n_workers": 0,
    "processes": False,
    "protocol": "tcp",
    "host": "127.0.0.1",
    "dashboard_address": ":0",
}
"""A scheduler in this process, which those in others find."""


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    folder = tmp_path_factory.mktemp("pair")
    source = pico_weights()
    return write_checkpoint(folder / "source", source), write_checkpoint(folder / "trained", moved(source))


@pytest.fixture(autouse=True)
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opdlib.measurement.sparsity, "GROUP", 500)


@pytest.fixture(scope="module")
def alone(pair: Folders, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What one process writes."""
    folder = tmp_path_factory.mktemp("alone")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(opdlib.measurement.sparsity, "GROUP", 500)
        measure_into(folder, *map(open_checkpoint, map(str, pair)), name="pico", workers=1)
    return written(folder)


def written(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}


def plan_of(pair: Folders) -> Plan:
    source, trained = map(open_checkpoint, map(str, pair))
    return Plan(source, [Job("pico", trained)], "bf16", ("sparsity", "geometry", "nulls"), "cpu")


@pytest.mark.slow
def test_an_executor_gives_the_bytes_of_one_process(pair: Folders, alone: dict[str, bytes], tmp_path: Path) -> None:
    with ThreadPoolExecutor(3) as pool:
        measured = opdlib.measure(*pair, name="pico", executor=pool)
    assert written(measured.save(tmp_path / "out")) == alone


@pytest.mark.slow
def test_pairs_over_one_source_are_shared_out_together(pair: Folders, alone: dict[str, bytes], tmp_path: Path) -> None:
    source, first = map(open_checkpoint, map(str, pair))
    second = open_checkpoint(str(write_checkpoint(tmp_path / "second", moved(pico_weights(), seed=9))))
    orders = [Order("pico", first, folder=tmp_path / "a"), Order("b", second, folder=tmp_path / "b")]
    with ThreadPoolExecutor(2) as pool:
        measure_together(source, orders, executor=pool)
    assert written(tmp_path / "a") == alone


def test_a_worker_that_sees_other_weights_is_refused(pair: Folders) -> None:
    plan = plan_of(pair)
    part = plan.geometry[0]
    source, trained = plan.digests(part)
    with pytest.raises(MeasureError, match=r"trained: model\..* has digest .* on this machine, wanted 0000"):
        measure_by_words(plan.task(), part, (source, dict.fromkeys(trained, "0" * 64)))


def work_when_told(pipe: Any) -> None:
    """A Dask worker in a process of its own, which begins when it gets an address and takes its time."""
    address = pipe.recv()
    measure = Plan.measure
    Plan.measure = lambda *arguments: time.sleep(0.05) or measure(*arguments)  # type: ignore[assignment,method-assign]

    async def work() -> None:
        async with Worker(address, nthreads=1) as worker:
            await worker.finished()

    asyncio.run(work())


@pytest.fixture
def workers() -> Iterator[list[tuple[Any, Any]]]:
    """Three processes that wait for an address: forked while this one has no thread, with all that is imported."""
    context = multiprocessing.get_context("fork")
    started = []
    for _ in range(3):
        ours, theirs = context.Pipe()
        process = context.Process(target=work_when_told, args=(theirs,), daemon=True)
        process.start()
        started.append((process, ours))
    yield started
    for process, pipe in started:
        process.kill()
        process.join()
        process.close()
        pipe.close()


@pytest.mark.kill
def test_dask_workers_may_die_and_come_late(
    pair: Folders, alone: dict[str, bytes], workers: list[tuple[Any, Any]], tmp_path: Path
) -> None:
    (first, tell_first), (_, tell_second), (_, tell_third) = workers
    with LocalCluster(**SCHEDULER) as cluster:
        address = cluster.scheduler_address
        for tell in (tell_first, tell_second):
            tell.send(address)
        with Client(address) as client:
            client.wait_for_workers(2, timeout=60)

        def measure() -> None:
            with dask(address) as executor:
                source, trained = map(open_checkpoint, map(str, pair))
                measure_into(tmp_path / "out", source, trained, name="pico", executor=executor)

        measuring = threading.Thread(target=measure)
        measuring.start()
        deadline = time.monotonic() + 60
        while len(list(tmp_path.glob(".out.ledger/*.npz"))) < 3:
            assert measuring.is_alive(), "it ended before a worker could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.01)
        os.kill(first.pid, signal.SIGKILL)
        tell_third.send(address)
        measuring.join(60)
    assert written(tmp_path / "out") == alone


@pytest.mark.slow
def test_an_address_without_workers_is_refused_in_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    assert machines.PATIENCE <= 5
    monkeypatch.setattr(machines, "PATIENCE", 1)
    start = time.monotonic()
    with pytest.raises(ParameterError, match="no scheduler answers"), dask("tcp://127.0.0.1:1"):
        pass
    with (
        LocalCluster(**SCHEDULER) as cluster,
        pytest.raises(ParameterError, match="has no worker"),
        dask(cluster.scheduler_address),
    ):
        pass
    assert time.monotonic() - start < 30


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_what_runs_at_once_fits_into_the_memory(workers: int) -> None:
    rng = random.Random(0)
    needs = {f"tensor {n}": rng.randrange(1, 60) << 24 for n in range(60)}
    lock, running, most, started = threading.Lock(), [0], [0], []

    def one(name: str) -> str:
        with lock:
            started.append(name)
            running[0] += needs[name]
            most[0] = max(most[0], running[0])
        time.sleep(0.001)
        with lock:
            running[0] -= needs[name]
        return name

    room = 100 << 24
    order = sorted(needs, key=lambda name: (-needs[name], name))
    assert list(over_cores(one, needs, workers, memory_in_use() + room, needs)) == order
    assert most[0] <= room
    assert started[0] == order[0], "largest first"
    assert (started == order) == (workers == 1), "what does not fit is overtaken"


@pytest.mark.parametrize("names", [[0, 1], ["", "x"], [(), (1,)]])
def test_a_name_that_is_false_is_a_name(names: list[Hashable]) -> None:
    found: list[Hashable] = []
    work = dict.fromkeys(names, 1)
    thread = threading.Thread(target=lambda: found.extend(over_cores(lambda name: name, work, 1)), daemon=True)
    thread.start()
    thread.join(10)  # one that is taken for none is waited for without end
    assert found == names


def test_a_tensor_that_never_fits_is_refused_before_anything_is_measured() -> None:
    needs = {"small": 1, "large": 1 << 40}
    with pytest.raises(ParameterError, match=r"memory 1073741824: large needs 1099511627776 bytes beside .* at least"):
        next(over_cores(lambda name: pytest.fail(name), needs, 2, 1 << 30, needs))
