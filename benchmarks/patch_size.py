"""How small is a patch? Its bytes beside the full checkpoint, generic compression and an entropy bound.

    python benchmarks/patch_size.py SOURCE TRAINED [--csv FILE]

Both are checkpoint specs (`opd --help`), bf16. Takes a few minutes, most of it in xz over the full checkpoint.
"""

import argparse
import csv
import lzma
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from opdlib.checkpoints import bf16, open_checkpoint
from opdlib.checkpoints.checkpoint import Checkpoint
from opdlib.checkpoints.patch import make
from opdlib.checkpoints.patched import flat_bits

Bits = NDArray[np.uint16]
Pairs = Callable[[], Iterator[tuple[Bits, Bits]]]


class Zlib:
    """zlib at its default level, in the shape of the lzma module's compressor."""

    def __init__(self) -> None:
        self._coder = zlib.compressobj()

    def compress(self, data: bytes) -> bytes:
        return self._coder.compress(data)

    def flush(self) -> bytes:
        return self._coder.flush()


def compressed(coder: Zlib | lzma.LZMACompressor, pieces: Iterator[bytes]) -> int:
    """Bytes of all pieces compressed as one stream."""
    return sum(len(coder.compress(piece)) for piece in pieces) + len(coder.flush())


def steps(source: Bits, trained: Bits) -> NDArray[np.int32]:
    """Steps on the bf16 grid, 0 where nothing changed."""
    return bf16.key(trained).astype(np.int32) - bf16.key(source)


def plain_sparse(source: Bits, trained: Bits) -> bytes:
    """Changed-or-not bits, then steps as bytes with an escape to 4 bytes, all in the order of the file."""
    step = steps(source, trained)
    step = step[step != 0]
    large = np.abs(step) > 127
    small = np.where(large, -128, step).astype(np.int8)
    return b"".join((np.packbits(source != trained).tobytes(), small.tobytes(), step[large].tobytes()))


def entropy_given_exponent(pairs: Pairs) -> float:
    """Bytes an ideal coder needs for changed-or-not and step, if it knows the source's exponents and all frequencies.

    Coordinates count as independent and tensors as alike; a coder that uses structure beyond the exponent can beat it.
    """
    counts = np.zeros((256, 1 << 17), np.int64)
    for source, trained in pairs():
        exponents = ((source >> 7) & 0xFF).astype(np.int32)
        cells, number = np.unique((exponents << 17) + steps(source, trained) + (1 << 16), return_counts=True)
        counts.reshape(-1)[cells] += number
    bits = 0.0
    for row in counts:
        seen = row[row > 0]
        bits -= float((seen * np.log2(seen / seen.sum())).sum())
    return bits / 8


def measure(source: Checkpoint, trained: Checkpoint) -> list[dict[str, object]]:
    """One row for each way to store the trained checkpoint: bytes, share of the full size, seconds to make."""
    names = sorted(source.tensors)

    def pairs() -> Iterator[tuple[Bits, Bits]]:
        for name in names:
            yield flat_bits(source.read(name)), flat_bits(trained.read(name))

    def our_patch() -> int:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "patch.safetensors"
            return make(source, trained, file).patch_bytes

    ways: dict[str, Callable[[], float]] = {
        "full bf16 checkpoint": lambda: sum(b.nbytes for _, b in pairs()),
        "zlib of trained": lambda: compressed(Zlib(), (b.tobytes() for _, b in pairs())),
        "xz of trained": lambda: compressed(lzma.LZMACompressor(preset=6), (b.tobytes() for _, b in pairs())),
        "zlib of source XOR trained": lambda: compressed(Zlib(), ((a ^ b).tobytes() for a, b in pairs())),
        "xz of source XOR trained": lambda: compressed(
            lzma.LZMACompressor(preset=6), ((a ^ b).tobytes() for a, b in pairs())
        ),
        "sparse in plain order, zlib": lambda: compressed(Zlib(), (plain_sparse(a, b) for a, b in pairs())),
        "opdlib patch": our_patch,
        "entropy given source exponent": lambda: entropy_given_exponent(pairs),
    }
    rows: list[dict[str, object]] = []
    full = 0.0
    for name, size_of in ways.items():
        start = time.perf_counter()
        size = size_of()
        seconds = time.perf_counter() - start
        full = full or size
        rows.append({"stored as": name, "bytes": round(size), "ratio": size / full, "seconds": seconds})
        print(f"{name:<30} {round(size):>13,} {size / full:>8.4f} {seconds:>8.1f} s", flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", metavar="SOURCE")
    parser.add_argument("trained", metavar="TRAINED")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="also write the table here")
    options = parser.parse_args()
    rows = measure(open_checkpoint(options.source), open_checkpoint(options.trained))
    if options.csv:
        options.csv.parent.mkdir(parents=True, exist_ok=True)
        with options.csv.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, rows[0].keys(), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
