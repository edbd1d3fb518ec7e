"""Speed and memory of the sparsity pass, each as a ratio within one run.

    python benchmarks/sparsity.py [PAIR]

Time: the pass over both files of a pair against `clone()` of every tensor of both, warm, imports and compilation
excluded (goal 6x, limit 12x). Memory: the peak of a process that measures a model of 2, 8 and 32 layers of one size.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file

from opdlib.checkpoints import open_checkpoint
from opdlib.checkpoints.checkpoint import Checkpoint
from opdlib.measurement.schedule import measure_pair
from opdlib.registry.pairs import DEFAULT, find_pair

GOAL, LIMIT = 6, 12
REPEATS = 7
LAYERS = (2, 8, 32)
WIDTH = 1536
"""Hidden size of the layers of the memory test: 4 * WIDTH * WIDTH weights each, 19 MB in bf16."""

PEAK = """
import json, sys
from pathlib import Path
from opdlib.checkpoints import open_checkpoint
from opdlib.measurement.schedule import measure_pair

def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))

source, trained = map(open_checkpoint, sys.argv[1:3])
before = peak()
measure_pair(source, trained, name="memory", view=sys.argv[3], metrics=("sparsity",))
print(json.dumps([before, peak()]))
"""


def fastest(action: Callable[[], object]) -> float:
    """Seconds of the fastest of several runs; one run before them warms caches up."""
    action()
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def as_files(checkpoint: Checkpoint, folder: Path) -> Checkpoint:
    """The checkpoint as one plain file, whatever it was made of."""
    folder.mkdir()
    save_file({name: checkpoint.read(name).clone() for name in checkpoint.tensors}, folder / "model.safetensors")
    return open_checkpoint(str(folder))


def speed(pair_name: str, scratch: Path) -> None:
    """Print the times of one pair and their ratio."""
    pair = find_pair(pair_name)
    assert pair.trained is not None
    source = as_files(open_checkpoint(pair.source), scratch / "source")
    trained = as_files(open_checkpoint(pair.trained), scratch / "trained")
    tensors = [c.read(name) for c in (source, trained) for name in c.tensors]

    def clone() -> list[torch.Tensor]:
        return [tensor.clone() for tensor in tensors]

    def digests() -> None:
        for checkpoint in (source, trained):
            for name in checkpoint.tensors:
                checkpoint.tensor_digest(name)

    copying = fastest(clone)
    hashing = fastest(digests)
    only = {"name": pair.key, "metrics": ("sparsity",)}
    measure_pair(source, trained, **only)  # compiles, and takes the digests, which are then kept
    passing = fastest(lambda: measure_pair(source, trained, **only))
    size = sum(t.numel() * t.element_size() for t in tensors)
    print(f"{pair.key}: {len(tensors)} tensors, {size / 1e6:.0f} MB, {torch.get_num_threads()} threads")
    print(f"  clone() of every tensor       {copying:7.3f} s   {size / copying / 1e9:5.1f} GB/s")
    print(f"  sparsity pass                 {passing:7.3f} s   {size / passing / 1e9:5.1f} GB/s")
    print(f"  digests, once per checkpoint  {hashing:7.3f} s   {size / hashing / 1e9:5.1f} GB/s")
    print(f"  pass / clone                  {passing / copying:7.1f} x   goal {GOAL}, limit {LIMIT}")


def memory(scratch: Path) -> None:
    """Print the peak memory for models of more and more layers."""
    print("peak memory, MB:  layers   files   before   after")
    for view, dtype in (("bf16", torch.bfloat16), ("stored", torch.float32)):
        for layers in LAYERS:
            paths = []
            for side, offset in (("source", 0.0), ("trained", 1e-4)):
                generator = torch.Generator().manual_seed(0)
                names = [
                    f"model.layers.{i}.mlp.{m}_proj.weight" for i in range(layers) for m in ("a", "b", "gate", "up")
                ]
                weights = {n: (torch.randn(WIDTH, WIDTH, generator=generator) * 0.02 + offset).to(dtype) for n in names}
                path = scratch / f"{view}-{layers}-{side}.safetensors"
                save_file(weights, path)
                paths.append(path)
                del weights
            size = sum(p.stat().st_size for p in paths) / 2**20
            command = [sys.executable, "-c", PEAK, *map(str, paths), view]
            before, after = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
            print(f"  view {view:6}       {layers:6d}  {size:6.0f}  {before:6.0f}  {after:6.0f}")
            for path in paths:
                path.unlink()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        speed(sys.argv[1] if len(sys.argv) > 1 else DEFAULT, Path(place))
        memory(Path(place))
