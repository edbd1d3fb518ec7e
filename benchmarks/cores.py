"""What a matrix costs on one core, how far that is from what cannot be avoided, and how matrices share the cores.

    python benchmarks/cores.py [matrices | workers | model | sizes]

Everything is measured in CPU time, so a machine that does other work gives the same answers, but for its caches.

matrices  one matrix of each shape: seconds by phase, beside the products and reductions that any such method needs
workers   200 small matrices by one thread and by two: how long threads stood still that could have worked
model     what the forecast of `opd measure --dry-run` says beside what was measured, and what 16 cores would give
sizes     the rows of the book's page on sizes
"""

import argparse
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from opdlib.cli.main import prepare

prepare()  # as opd does, before torch is loaded

import torch

from opdlib.measurement import cost
from opdlib.measurement.cores import over_cores
from opdlib.metrics import eigen, geometry, gram, spectrum, subspace
from opdlib.metrics.eigen import one_blas_thread

SHAPES = ((256, 1536), (576, 576), (1536, 576), (1024, 1024), (8192, 512), (1536, 1536), (8960, 1536))
SMALL, COUNT = (576, 1536), 200
CORES, SPEEDUP = 16, 12

PHASES = {
    (gram.Gram, "add"): "products",
    (gram.Gram, "matrix"): "products",
    (eigen, "_lapack"): "reductions",
    (subspace, "largest_first"): "vectors",
    (spectrum, "largest_first"): "vectors",
    (subspace, "_basis"): "projections",
    (subspace, "_projection"): "projections",
    (subspace, "_sines"): "projections",
    (geometry, "compare"): "projections",
    (geometry, "masks"): "masks",
    (geometry, "coverages"): "masks",
}
"""Function -> the phase that its own time belongs to; the time of those it calls belongs to theirs."""

MODELS: dict[str, tuple[int, list[tuple[tuple[int, int], int]]]] = {
    # layers, and the shapes of a layer with their number; the embedding is apart
    "0.1B (SmolLM2-135M)": (30, [((576, 576), 2), ((192, 576), 2), ((1536, 576), 3)]),
    "0.6B (Qwen3)": (28, [((2048, 1024), 2), ((1024, 1024), 2), ((3072, 1024), 3)]),
    "1.5B (Qwen2.5)": (28, [((1536, 1536), 2), ((256, 1536), 2), ((8960, 1536), 3)]),
    "4B (Qwen3)": (36, [((4096, 2560), 2), ((1024, 2560), 2), ((9728, 2560), 3)]),
    "7B (Qwen2.5)": (28, [((3584, 3584), 2), ((512, 3584), 2), ((18944, 3584), 3)]),
    "30B-A3B (Qwen3)": (48, [((4096, 2048), 2), ((512, 2048), 2), ((768, 2048), 3 * 128)]),
    "70B (Llama 3)": (80, [((8192, 8192), 2), ((1024, 8192), 2), ((28672, 8192), 3)]),
}
EMBEDDINGS = {
    "0.1B (SmolLM2-135M)": [(49152, 576)],
    "0.6B (Qwen3)": [(151936, 1024)],
    "1.5B (Qwen2.5)": [(151936, 1536)],
    "4B (Qwen3)": [(151936, 2560)],
    "7B (Qwen2.5)": [(152064, 3584)] * 2,
    "30B-A3B (Qwen3)": [(151936, 2048)] * 2,
    "70B (Llama 3)": [(128256, 8192)] * 2,
}


def matrices(shape: tuple[int, int], seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """A source and what a low-rank and a dense update make of it, in bf16."""
    generator = torch.Generator().manual_seed(seed)
    source = torch.randn(shape, generator=generator) * 0.02
    low_rank = torch.randn(shape[0], 4, generator=generator) @ torch.randn(4, shape[1], generator=generator)
    dense = torch.randn(shape, generator=generator)
    return source.bfloat16(), (source + 1e-5 * low_rank + 1e-5 * dense).bfloat16()


@contextmanager
def by_phase() -> Iterator[Counter[str]]:
    """Seconds of this thread in each phase."""
    spent: Counter[str] = Counter()
    inner = [0.0]

    def timed(real: Callable[..., Any], phase: str) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            start = time.thread_time()
            inner.append(0.0)
            try:
                return real(*arguments, **options)
            finally:
                taken = time.thread_time() - start
                spent[phase] += taken - inner.pop()
                inner[-1] += taken

        return call

    patches = [patch.object(owner, name, timed(getattr(owner, name), phase)) for (owner, name), phase in PHASES.items()]
    for each in patches:
        each.start()
    try:
        yield spent
    finally:
        for each in patches:
            each.stop()


def taken(shape: tuple[int, int]) -> tuple[float, Counter[str]]:
    """CPU seconds of the geometry of one matrix, whole and by phase."""
    source, trained = matrices(shape)
    with one_blas_thread(), by_phase() as spent:
        start = time.thread_time()
        geometry.geometries(source, [trained])
        return time.thread_time() - start, spent


def multiplications(shape: tuple[int, int]) -> float:
    """Multiplications in float64 that no such method does without: half of three Gram matrices, the source's leading
    vectors on the longer side, their product with the delta, the trained side's vectors, and, half as dear, the masks'
    product in float32."""
    long, short = max(shape), min(shape)
    return long * short * (3 * short / 2 + 0.2 * short + 0.2 * short + 0.1 * short + 0.2 * short / 2)


def rate(columns: int) -> float:
    """Multiplications a second in a product of 512 rows and these columns, float64, one thread."""
    left, right = torch.randn(512, columns, dtype=torch.float64), torch.randn(columns, columns, dtype=torch.float64)
    left @ right
    start = time.thread_time()
    for _ in range(3):
        left @ right
    return 3 * 512 * columns**2 / (time.thread_time() - start)


def print_matrices() -> None:
    torch.set_num_threads(1)
    taken((256, 128))  # loads what is compiled
    phases = list(dict.fromkeys(PHASES.values()))
    print("seconds of one matrix, one core")
    print(f"{'shape':>12}  {'all':>6}  " + "  ".join(f"{p:>11}" for p in phases) + "   products needed  all / needed")
    for shape in SHAPES:
        whole, spent = taken(shape)
        needed = multiplications(shape) / rate(min(shape))
        floor = needed + spent["reductions"]
        print(
            f"{'x'.join(map(str, shape)):>12}  {whole:6.2f}  "
            + "  ".join(f"{spent[p]:11.2f}" for p in phases)
            + f"  {needed:16.2f}  {whole / floor:12.2f}"
        )
    print("needed: the products at the rate of one large product, and the three reductions as LAPACK does them")


def scheduled() -> tuple[float, float]:
    """Seconds that this thread ran, and that it was ready to and had to wait for a core."""
    ran, waited, _ = Path(f"/proc/self/task/{threading.get_native_id()}/schedstat").read_text().split()
    return int(ran) / 1e9, int(waited) / 1e9


def stood_still(workers: int, count: int = COUNT) -> tuple[float, float]:
    """CPU seconds of `count` small matrices, and the share of the time in which threads waited for each other."""
    pairs = {n: matrices(SMALL, n) for n in range(8)}
    ran, still = [0.0], [0.0]

    def one(number: int) -> None:
        start, before = time.perf_counter(), scheduled()
        source, trained = pairs[number % len(pairs)]
        geometry.geometries(source, [trained])
        after, whole = scheduled(), time.perf_counter() - start
        ran[0] += after[0] - before[0]
        still[0] += whole - (after[0] - before[0]) - (after[1] - before[1])

    for _ in over_cores(one, dict.fromkeys(range(count), 1), workers):
        pass
    return ran[0], still[0] / (ran[0] + still[0])


def print_workers() -> None:
    stood_still(1, 2)
    print(f"{COUNT} matrices of {SMALL[0]} x {SMALL[1]}")
    found = {workers: stood_still(workers) for workers in (1, 2)}
    for workers, (ran, still) in found.items():
        print(f"  {workers} workers  {ran:7.1f} CPU seconds  {still:6.1%} of the time waiting for each other")
    speedup = 2 * (1 - found[2][1]) * found[1][0] / found[2][0]
    print(f"  two quiet cores give {speedup:.2f} of one   target at least 1.8  {'met' if speedup >= 1.8 else 'MISSED'}")


def jobs(model: str) -> list[float]:
    """Seconds of every matrix of a model, by the forecast, on one core of the machine of the table."""
    layers, shapes = MODELS[model]
    own = [cost.seconds(shape) for shape, count in shapes for _ in range(count)]
    return own * layers + [job for shape in EMBEDDINGS[model] for job in cost.jobs(shape)]


def print_model() -> None:
    torch.set_num_threads(1)
    pace = cost.speed()
    print(f"a matrix takes {pace:.2f} of the time here that it took on the machine of the constants")
    for shape in SHAPES:
        measured, forecast = taken(shape)[0], pace * cost.seconds(shape)
        print(f"  {'x'.join(map(str, shape)):>12}  measured {measured:6.2f}  forecast {forecast:6.2f}")
    own = jobs("1.5B (Qwen2.5)")
    speedup = sum(own) / cost.makespan(own, CORES)
    print(f"1.5B model on {CORES} cores: {speedup:.1f} of one   target at least {SPEEDUP}", end="")
    print(f"  {'met' if speedup >= SPEEDUP else 'MISSED'}")
    print("assumed: a matrix takes as long beside others as alone (caches and memory bandwidth are not short); the")
    print("longest begins first; of a matrix of over 65,536 rows four cores share the Gram products; the sparsity pass")
    print("and the start, both short, are left out")


def print_sizes() -> None:
    print("| model | parameters | to read | one core | 2 cores | 16 cores | 64 cores | memory, 2 cores | 16 cores |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|--:|")
    for model, (layers, shapes) in MODELS.items():
        all_shapes = [s for s, count in shapes for _ in range(count)] * layers + EMBEDDINGS[model]
        size = sum(rows * columns for rows, columns in all_shapes)
        needs = sorted((cost.memory(s, "BF16", ("BF16",), "bf16") for s in all_shapes), reverse=True)
        hours = [cost.makespan(jobs(model), cores) / 3600 for cores in (1, 2, 16, 64)]
        times = " | ".join(f"{h:.1f} h" if h >= 1 else f"{60 * h:.1f} min" for h in hours)
        memory = " | ".join(f"{sum(needs[:cores]) / 1e9:.1f} GB" for cores in (2, 16))
        print(f"| {model} | {size / 1e9:.2f}B | {4 * size / 1e9:.1f} GB | {times} | {memory} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    PARTS = {"matrices": print_matrices, "workers": print_workers, "model": print_model, "sizes": print_sizes}
    parser.add_argument("part", nargs="?", choices=PARTS, help="all if none is named")
    named = parser.parse_args().part
    for part in (named,) if named else PARTS:
        PARTS[part]()
