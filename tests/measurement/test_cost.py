"""What a measurement takes is said before it is made, and kept to."""

import re
from itertools import permutations
from pathlib import Path

import pytest
import torch

from opdlib.checkpoints import open_checkpoint
from opdlib.cli.main import prepare
from opdlib.measurement.cores import memory_in_use
from opdlib.measurement.cost import HELPERS, TALL, jobs, makespan, memory, seconds
from opdlib.measurement.schedule import measure_pair
from tests.conftest import Command, moved, write_checkpoint


def test_a_dry_run_says_what_it_would_take_and_writes_nothing(
    opd: Command, pico_pair: tuple[Path, Path], tmp_path: Path
) -> None:
    done = opd("measure", "--source", pico_pair[0], "--trained", pico_pair[1], "--out", tmp_path / "out", "--dry-run")
    assert done.returncode == 0, done.stderr
    source = open_checkpoint(pico_pair[0])
    size = 2 * sum(2 * info.numel for info in source.tensors.values())
    matrices = sum(len(info.shape) == 2 for info in source.tensors.values())
    assert re.fullmatch(
        rf"trained\n  tensors   {len(source.tensors)}, with {matrices} matrices\n"
        rf"  to read   {size / 1000:.3g} kB, of which 0 bytes to download\n"
        r"  memory    [\d.]+ [MG]B\n  time      \d s\n",
        done.stdout,
    )
    assert not (tmp_path / "out").exists()
    capped = opd("measure", "--source", pico_pair[0], "--trained", pico_pair[1], "--dry-run", "--memory", "1500M")
    assert "memory    1.57 GB" in capped.stdout or float(capped.stdout.split("memory")[1].split()[0]) < 1570


def test_the_longest_job_first_is_no_worse_than_a_third_over_the_best() -> None:
    jobs = [5.0, 4.0, 3.0, 3.0, 3.0]
    best = min(max(sum(order[:cut]), sum(order[cut:])) for order in permutations(jobs) for cut in range(6))
    assert best == 9.0
    assert makespan(jobs, 2) == 10.0 <= best * 4 / 3
    assert makespan(jobs, 1) == sum(jobs)
    assert makespan(jobs, 9) == 5.0


def test_seconds_grow_with_pairs_by_less_than_a_pair_and_with_experts_by_each() -> None:
    one = seconds((64, 32))
    assert one < seconds((64, 32), pairs=2) < 2 * one
    assert seconds((8, 64, 32)) == pytest.approx(8 * one)
    assert seconds((32, 64)) == one


def test_what_others_do_of_a_tall_matrix_is_no_more_work() -> None:
    assert jobs((TALL - 1, 64)) == [seconds((TALL - 1, 64))]
    shared = jobs((TALL, 64))
    assert len(shared) == HELPERS
    assert sum(shared) == pytest.approx(seconds((TALL, 64)))
    assert shared[0] == max(shared)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Six matrices that are large beside what a process takes by chance."""
    folder = tmp_path_factory.mktemp("large")
    generator = torch.Generator().manual_seed(0)
    names = [f"model.layers.{n}.mlp.up_proj.weight" for n in range(6)]
    weights = {n: (torch.randn(20000, 128, generator=generator) * 0.02).bfloat16() for n in names}
    return write_checkpoint(folder / "source", weights), write_checkpoint(folder / "trained", moved(weights))


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2, 4])
def test_the_peak_is_within_the_memory(large: tuple[Path, Path], workers: int) -> None:
    prepare()
    source, trained = map(open_checkpoint, large)
    measure_pair(source, trained, name="warm", metrics=("sparsity",), workers=1)
    limit = memory_in_use() + int(2.5 * memory((20000, 128), "BF16", ("BF16",), "bf16"))
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins again at what is in use
    measure_pair(source, trained, name="x", workers=workers, memory=limit)
    lines = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    assert peak <= limit
