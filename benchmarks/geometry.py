"""Time and memory of a whole measurement against the textbook (`benchmarks/textbook.py`), each in a process of its own.

    python benchmarks/geometry.py [pair | large]

Two inputs: the embedded pair, and one set of matrices of a 1.5B model. Targets: time at most 1/4 of the textbook's,
peak memory at most 1/2, two pairs over one source at most 5/3 of one pair, exact nulls at most 1.1 of the time without.
Ours with and without nulls take turns, and the faster turn of each counts: what nulls cost is less than what two runs
of the same differ by.
"""

import argparse
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

from opdlib.checkpoints import open_checkpoint
from opdlib.checkpoints.checkpoint import Checkpoint
from opdlib.registry.pairs import DEFAULT, find_pair

TIME, MEMORY, SECOND_PAIR, NULLS = 1 / 4, 1 / 2, 5 / 3, 1.1
TURNS = 3
SHAPES = {"q": (1536, 1536), "k": (256, 1536), "o": (1536, 1536), "up": (8960, 1536), "down": (1536, 8960)}

PEAK = """
from pathlib import Path
lines = Path("/proc/self/status").read_text().splitlines()
Path(sys.argv[-1]).write_text(next(line.split()[1] for line in lines if line.startswith("VmHWM")))
"""
"""What the process itself says at its end: the kernel's account for the parent counts the parent's own memory too."""

TEXTBOOK = """
import sys
from safetensors.torch import load_file
from textbook import textbook
source, trained = map(load_file, sys.argv[1:3])
for name, a in source.items():
    if a.ndim == 2 and (a != trained[name]).any():
        textbook(a, trained[name])
"""

OURS = """
import sys
from opdlib.cli.main import prepare
prepare()  # as opd does
from pathlib import Path
from opdlib.checkpoints import open_checkpoint
from opdlib.results.measure import Order, measure_together
out, source, *trained = sys.argv[1:-1]
orders = [Order(str(i), open_checkpoint(t), folder=Path(out) / str(i)) for i, t in enumerate(trained)]
measure_together(open_checkpoint(source), orders)
"""
WITHOUT = OURS.replace("orders)", 'orders, metrics=("sparsity", "geometry"))')


@dataclass(frozen=True)
class Cost:
    """Of one process from start to end."""

    seconds: float
    cpu_seconds: float
    peak_mb: float


def cost(code: str, *arguments: str) -> Cost:
    """Run Python code in its own process and wait for it."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    with tempfile.NamedTemporaryFile() as peak:
        start = time.perf_counter()
        command = [sys.executable, "-c", code + PEAK, *arguments, peak.name]
        _, status, usage = os.wait4(os.posix_spawn(sys.executable, command, environment), 0)
        seconds = time.perf_counter() - start
        if status:
            raise SystemExit(f"a process of the benchmark failed with status {status}")
        return Cost(seconds, usage.ru_utime + usage.ru_stime, int(Path(peak.name).read_text()) / 1024)


def new_place(scratch: Path) -> Path:
    """A folder that nothing lies in: results that are already there would not be made again."""
    return Path(tempfile.mkdtemp(dir=scratch))


def as_file(checkpoint: Checkpoint, file: Path) -> str:
    save_file({name: checkpoint.read(name).clone() for name in checkpoint.tensors}, file)
    return str(file)


def embedded_pair(scratch: Path) -> tuple[str, str, str]:
    """Source, trained and a second trained checkpoint (the first with its update doubled), as files."""
    pair = find_pair(DEFAULT)
    assert pair.trained is not None
    source, trained = open_checkpoint(pair.source), open_checkpoint(pair.trained)
    doubled = {n: (2 * trained.read(n).float() - source.read(n).float()).to(torch.bfloat16) for n in source.tensors}
    save_file(doubled, scratch / "other.safetensors")
    return (
        as_file(source, scratch / "source.safetensors"),
        as_file(trained, scratch / "trained.safetensors"),
        str(scratch / "other.safetensors"),
    )


def large_matrices(scratch: Path) -> tuple[str, str, str]:
    """Matrices of the shapes of one layer of a 1.5B model, with a low-rank and a dense update."""
    generator = torch.Generator().manual_seed(0)
    files = [scratch / f"large-{name}.safetensors" for name in ("source", "trained", "other")]
    weights = {
        f"model.layers.0.self_attn.{n}_proj.weight": torch.randn(s, generator=generator) * 0.02
        for n, s in SHAPES.items()
    }
    save_file({n: w.to(torch.bfloat16) for n, w in weights.items()}, files[0])
    for file in files[1:]:
        moved = {}
        for name, w in weights.items():
            low_rank = torch.randn(w.shape[0], 4, generator=generator) @ torch.randn(4, w.shape[1], generator=generator)
            dense = torch.randn(w.shape, generator=generator)
            moved[name] = (w + 1e-5 * low_rank + 2e-5 * dense).to(torch.bfloat16)
        save_file(moved, file)
    return str(files[0]), str(files[1]), str(files[2])


def compare(title: str, source: str, trained: str, other: str, scratch: Path) -> None:
    """Print the costs and ratios of one input, and which targets are met."""

    def fastest(*named: str) -> list[Cost]:
        turns = [[cost(code, str(new_place(scratch)), source, trained) for code in named] for _ in range(TURNS)]
        return [min(costs, key=lambda c: c.cpu_seconds) for costs in zip(*turns, strict=True)]

    cost(OURS, str(new_place(scratch)), source, trained)  # compiles the kernels
    ours, without = fastest(OURS, WITHOUT)
    two = cost(OURS, str(new_place(scratch)), source, trained, other)
    plain = cost(TEXTBOOK, source, trained)
    print(f"{title}, {torch.get_num_threads()} threads")
    print("                      seconds   cpu seconds   peak MB")
    for name, c in (("textbook", plain), ("opdlib", ours), ("without nulls", without), ("opdlib, two pairs", two)):
        print(f"  {name:18}  {c.seconds:8.1f}  {c.cpu_seconds:12.1f}  {c.peak_mb:8.0f}")
    ratios = (
        ("time", ours.seconds / plain.seconds, TIME),
        ("memory", ours.peak_mb / plain.peak_mb, MEMORY),
        ("two pairs / one", two.seconds / ours.seconds, SECOND_PAIR),
        ("with / without nulls", ours.cpu_seconds / without.cpu_seconds, NULLS),
    )
    for name, ratio, target in ratios:
        print(f"  {name:18}  {ratio:8.3f}   target at most {target:.3f}  {'met' if ratio <= target else 'MISSED'}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("input", nargs="?", choices=["large", "pair"], help="both if none is named")
    named = parser.parse_args().input
    with tempfile.TemporaryDirectory() as place:
        scratch = Path(place)
        if named != "pair":
            compare("matrices of a 1.5B model", *large_matrices(scratch), scratch)
        if named != "large":
            compare(DEFAULT, *embedded_pair(scratch), scratch)
