"""`make fuzz`: every reader against bytes that learn from its branches, by atheris; without atheris, at random.

    python -m tests.hostile.fuzz SECONDS [TARGET ...]

What is found is written into the corpus, where `test_mutations` tries it for ever.
"""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path

try:
    import atheris
except ImportError:
    atheris = None

with atheris.instrument_imports(include=["opdlib", "yaml"]) if atheris else nullcontext():
    import torch

    from opdlib.cli.main import main
    from tests.hostile import made
    from tests.hostile.targets import CORPUS, Targets
    from tests.hostile.test_mutations import NAMES, TOKENS, mutated


def targets(folder: Path) -> Targets:
    """All targets, over good files in the folder."""
    good, here = folder / "good", folder / "here"
    good.mkdir()
    here.mkdir()
    made.base(good)
    torch.save({"a": torch.ones(3), "b": torch.zeros(2, 2)}, good / "x.pt")
    sides = ("--source", str(good / "S"), "--trained", str(good / "T"), "--only", "sparsity", "--nulls", "none")
    if main(["measure", *sides, "--out", str(good / "results")]):
        raise SystemExit(2)
    return Targets(good, here)


def fuzz(name: str, seconds: float, folder: Path) -> None:
    """One target for so long, in this process."""
    tried = targets(folder)

    def once(content: bytes) -> None:
        try:
            tried.run(name, content)
        except Exception:
            found = json.loads(CORPUS.read_text())
            found.setdefault(name, {})[hashlib.sha256(content).hexdigest()[:12]] = content.decode("latin1")
            CORPUS.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
            raise

    good = tried.all[name][2]
    if atheris is None:
        until, count, chance = time.monotonic() + seconds, 0, random.Random(name)
        while time.monotonic() < until:
            new = [chance.choice([*TOKENS, chance.randbytes(4)]) for _ in range(chance.randint(1, 4))]
            changes = [(chance.randrange(1 << 16), chance.randint(0, 64), token) for token in new]
            once(mutated(good, changes, chance.choice((0, 0, 1, 40))))
            count += 1
        print(f"{name}: {count} files at random, only errors of ours")
        return
    seeds = folder / "seeds"
    seeds.mkdir()
    (seeds / "good").write_bytes(good)
    atheris.Setup([sys.argv[0], str(seeds), f"-max_total_time={seconds:.0f}", "-max_len=65536", "-verbosity=0"], once)
    atheris.Fuzz()


if __name__ == "__main__":
    seconds, *chosen = sys.argv[1:]
    if len(chosen) == 1:
        with tempfile.TemporaryDirectory() as name:
            fuzz(chosen[0], float(seconds), Path(name))
    else:
        done = [subprocess.run([sys.executable, "-m", __spec__.name, seconds, each]) for each in chosen or NAMES]
        sys.exit(max(each.returncode for each in done))
