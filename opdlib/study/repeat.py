"""Does a run end at the committed weights on this CPU too, and do two steps give the same bits on others?

| kernels | CPUs that are tried, emulated by qemu-user |
| --- | --- |
| `any-x86` | one of Intel and one of AMD, both without AVX-512 |
| others | none: what they promise is tried by running `repeat` on another machine |
"""

import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from opdlib.checkpoints import open_checkpoint
from opdlib.checkpoints.series import COMPLETE
from opdlib.errors import CheckpointError, RegistryError
from opdlib.foreign import read_value
from opdlib.registry.recipes import load_recipe
from opdlib.registry.study import Arm, Scale
from opdlib.results.study import open_study
from opdlib.train import arithmetic

QEMU = "qemu-x86_64"
EMULATED = {"any-x86": ("Haswell", "EPYC")}
FORMS = ("digest.fp32", "digest.bf16")


def repeat(scale: Scale, keys: Sequence[str], from_scratch: bool = False) -> Iterator[str]:
    """Train the runs `keys` of the scale to their end, in a folder that goes again, and say of each, in a line, that it
    ended at the committed weights; then the same of two steps of the first on emulated CPUs.

    Nothing of torch may be loaded yet. Raises RegistryError where a run is none of the scale or has no committed
    weights, CheckpointError where others came out, once all are done.
    """
    runs = [(key, *_committed(scale, key)) for key in keys]
    arithmetic.choose(load_recipe(runs[0][1].recipe).kernels)
    from opdlib.train.run import train

    others = []
    with TemporaryDirectory() as place:
        for key, arm, seed, wanted in runs:
            folder = train(arm.recipe, Path(place) / key, seed=seed, from_scratch=from_scratch)
            made = read_value(folder / COMPLETE, RegistryError, "train it again", "digests")
            same = all(made[form.removeprefix("digest.")] == wanted[form] for form in FORMS)
            others += [] if same else [key]
            yield f"{key}: {'the committed weights' if same else 'OTHER weights than the committed ones'}"
    recipe = runs[0][1].recipe
    foreign, emulator = EMULATED.get(load_recipe(recipe).kernels, ()), shutil.which(QEMU)
    here = emulated(recipe) if foreign and emulator else ""
    for cpu in foreign:
        if not emulator:
            yield f"two steps on {cpu}: not tried, {QEMU} is not installed (Debian: apt install qemu-user)"
            continue
        same = emulated(recipe, cpu) == here
        others += [] if same else [f"two steps on {cpu}"]
        yield f"two steps on {cpu}: {'the same weights as here' if same else 'OTHER weights than here'}"
    if others:
        raise CheckpointError(f"{', '.join(others)}: other weights came out; compare kernels, threads and packages")


def emulated(recipe: Path, cpu: str | None = None) -> str:
    """What `two_steps` gives in a process of its own, on an emulated `cpu`; None: on this one. What it says beside, as
    the emulator of features that it lacks, is shown only where it fails: raises CheckpointError."""
    code = "import sys, pathlib; from opdlib.study.repeat import two_steps; print(two_steps(pathlib.Path(sys.argv[1])))"
    before = [QEMU, "-cpu", cpu] if cpu else []
    ended = subprocess.run([*before, sys.executable, "-c", code, str(recipe)], capture_output=True, text=True)
    if ended.returncode:
        said = (ended.stderr.strip().splitlines() or ["nothing was said"])[-1]
        raise CheckpointError(f"two steps on {cpu or 'this CPU'}: ended with status {ended.returncode}: {said}")
    return ended.stdout.split()[-1]


def two_steps(path: Path) -> str:
    """Digest of the float32 weights after two steps of the recipe at `path`. Nothing of torch may be loaded yet."""
    arithmetic.choose(load_recipe(path).kernels)
    from opdlib.train.run import train

    with TemporaryDirectory() as place:
        folder = train(path, Path(place) / "run", max_steps=2, score=False)
        return open_checkpoint(str(folder / "fp32")).digest()


def _committed(scale: Scale, key: str) -> tuple[Arm, int, dict[str, str]]:
    """Arm, seed and committed digests of a run."""
    known = {arm.key(seed): (arm, seed) for arm, seed in scale.planned}
    if key not in known:
        raise RegistryError(f"scale {scale.name}: no run {key!r}; see them with: opd study {scale.name} --list")
    arm, seed = known[key]
    runs = open_study(scale.name).runs
    rows = runs[(runs["arm"] == arm.name) & (runs["seed"] == seed)]
    if rows.empty:
        raise RegistryError(
            f"{key}: not run yet, so there are no committed weights to repeat; run: opd study {scale.name} --arms "
            f"{arm.name} --seeds {seed} --out data/study"
        )
    return arm, seed, {form: str(rows[form].iloc[0]) for form in FORMS}
