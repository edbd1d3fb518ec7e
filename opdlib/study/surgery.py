"""Parts of the updates of a few runs, put back on their source and scored: which part carries the skill?

A part is what a rule of `opdlib.measurement.edit` keeps of the float32 masters. Beside a part stand its rest and its
controls, where the plan asks for them: SIZE is a random part of as many coordinates, drawn within binades of the
weight; ENERGY is the same random part times the number that gives it the energy of the part. Of singular directions,
which every coordinate has a share in, that is the whole update, made shorter; SHORT is the same for their rest.
"""

import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from opdlib.checkpoints import open_checkpoint
from opdlib.checkpoints.checkpoint import Checkpoint
from opdlib.checkpoints.names import parse
from opdlib.checkpoints.series import COMPLETE
from opdlib.errors import CheckpointError, RegistryError
from opdlib.foreign import read_value
from opdlib.measurement.edit import edit
from opdlib.registry.recipes import load_recipe
from opdlib.registry.study import FULL, RUNS, Arm, Scale
from opdlib.results.collect import add_rows
from opdlib.results.study import ENERGY, PART, REST, SHORT, SIZE, TURNED, StudyResults
from opdlib.train.evaluate import answers, counted
from opdlib.train.run import threads

SUBJECTS = {FULL: (0, 1, 2), "adamw-1e-4": (0,), "offline": (0,), "rlvr": (0,), "sgd-3e-2": (0,)}
"""Arm -> the seeds whose updates are taken apart."""
THIRDS = "layers"
"""Stands in the plan for the first, middle and last third of the layers, a rule each."""
PLAN = (
    *(("scale:1", PART), ("none", PART)),
    *(("singular:16", kind) for kind in (PART, REST, ENERGY, SHORT)),
    *(("visible", kind) for kind in (PART, REST, SIZE)),
    *(("largest:0.05", kind) for kind in (PART, SIZE, ENERGY)),
    *(("block:mlp", PART), ("block:attention", PART), ("block:mlp", SIZE), ("block:mlp", ENERGY)),
    *(("mask:low:0.2", PART), ("mask:principal:0.2", PART)),
    *(("largest:0.2", kind) for kind in (PART, REST, SIZE, ENERGY)),
    *(("singular:1", PART), ("singular:4", PART), ("singular:64", PART)),
    *(("block:embedding", PART), (THIRDS, PART), ("scale:0.5", PART), ("scale:2", PART), ("scale:1", TURNED)),
)
"""Rule and kind of every row, the telling ones first: all runs have them before any has the later ones."""
EDITED = "edited"
"""The folder that a row's command writes."""
Row = dict[str, Any]


@dataclass(frozen=True)
class Subject:
    """A run whose update is taken apart, and the digests of what is edited."""

    arm: Arm
    seed: int
    folder: Path
    digests: dict[str, str]

    @property
    def key(self) -> str:
        return self.arm.key(self.seed)


def write_surgery(
    scale: Scale, out: Path, runs: Path = RUNS, arms: Sequence[str] = (), seeds: Sequence[int] = ()
) -> Iterator[str]:
    """Make, score and write every row of `surgery` in `out`/<scale> that is not there yet, and tell of each.

    Only of the runs of `SUBJECTS` (of `arms` and `seeds`, if given) that lie in `runs`. A row is written as soon as it
    is known. Raises CheckpointError if there are none, RegistryError if rows that are there are of other weights.
    """
    here = [
        _subject(scale.arms[arm], seed, runs)
        for arm, planned in SUBJECTS.items()
        for seed in planned
        if arm in scale.arms and (not arms or arm in arms) and (not seeds or seed in seeds)
        if (scale.arms[arm].folder(seed, runs) / COMPLETE).is_file()
    ]
    if not here:
        raise CheckpointError(
            f"scale {scale.name}: none of the runs that are taken apart is in {runs}; run: opd study {scale.name}"
        )
    spec = scale.source_spec(runs)
    source = open_checkpoint(spec)
    said = str(RUNS / Path(spec).relative_to(runs)) if Path(spec).is_relative_to(runs) else spec
    rows = {subject.key: _known(scale, out, subject) for subject in here}
    for rule, kind in PLAN:
        for subject in here:
            for part in _thirds(source) if rule == THIRDS else (rule,):
                if (part, kind) not in rows[subject.key]:
                    row = _row(subject, said, source, part, kind, rows[subject.key])
                    rows[subject.key][part, kind] = row
                    add_rows(scale, out / scale.name, {"surgery": [row]})
                    yield f"{subject.key} {part} {kind}: {row['correct']} of {row['n']}"


def _subject(arm: Arm, seed: int, runs: Path) -> Subject:
    folder = arm.folder(seed, runs)
    digests = read_value(folder / COMPLETE, RegistryError, "train it again", "digests")
    return Subject(arm, seed, folder, {f"digest.{side}": digests[side] for side in ("source", "fp32")})


def _known(scale: Scale, out: Path, subject: Subject) -> dict[tuple[str, str], Row]:
    """The rows of a run that are there, by part and kind."""
    table = StudyResults(scale.name, out / scale.name).surgery
    own = table[(table["arm"] == subject.arm.name) & (table["seed"] == subject.seed)]
    for column, digest in subject.digests.items():
        if others := set(own[column]) - {digest}:
            raise RegistryError(
                f"{scale.name}: surgery: {subject.key}: {column} is {min(others)} in the table and {digest} in "
                f"{subject.folder}; if the run was made anew on purpose, remove its rows first"
            )
    return {
        (row["part"], row["kind"]): {str(name): cell for name, cell in row.items()} for row in own.to_dict("records")
    }


def _thirds(source: Checkpoint) -> list[str]:
    layers = 1 + max(parse(name).layer or 0 for name in source.tensors)
    ends = [round(layers * third / 3) for third in range(4)]
    return [f"layers:{start}-{end - 1}" for start, end in pairwise(ends) if end > start]


def _row(
    subject: Subject, spec: str, source: Checkpoint, part: str, kind: str, known: Mapping[tuple[str, str], Row]
) -> Row:
    """Make the part, score it and drop it. `spec` is how the command names the source."""
    keep = [part] if kind not in (SIZE, ENERGY, SHORT) else _control(part, kind, known)
    rest, turned = kind == REST, kind == TURNED
    recipe = load_recipe(subject.folder / "recipe.yaml")
    with tempfile.TemporaryDirectory() as place, threads(recipe.threads):
        edited, masters = Path(place) / EDITED, open_checkpoint(subject.folder / "fp32")
        kept = edit(source, masters, edited, keep, complement=rest, restore_spectrum=turned, seed=subject.seed)
        asked = recipe.task, recipe.evaluation_seed
        found = counted(answers(edited, *asked, recipe.evaluation_size), *asked)
    own = subject.arm.folder(subject.seed) / "fp32"
    said = [*(f"--keep {rule}" for rule in keep), *["--complement"] * rest, *["--restore-spectrum"] * turned]
    return {
        "arm": subject.arm.name,
        "seed": subject.seed,
        "part": part,
        "kind": kind,
        "rule": " ".join(keep),
        "complement": int(rest),
        "restored": int(turned),
        "draw": subject.seed,
        "energy": kept.energy,
        "rel_norm": kept.rel_norm,
        "kept": kept.changed,
        "correct": found.correct,
        "n": found.n,
        "accuracy": found.accuracy,
        **dict(zip(("low", "high"), found.interval, strict=True)),
        **subject.digests,
        "command": f"opd edit {spec} {own} {EDITED} {' '.join(said)} --seed {subject.seed}",
    }


def _control(part: str, kind: str, known: Mapping[tuple[str, str], Row]) -> list[str]:
    """The rules that make a control, from the rows of the part and of the control before."""
    if kind == SHORT:
        return [f"scale:{math.sqrt(known[part, REST]['energy']):.6g}"]
    name, _, share = part.partition(":")
    whole = known[part, PART]
    drawn = [] if name == "singular" else [f"random:{share if name == 'largest' else format(whole['kept'], '.6g')}"]
    if kind == SIZE:
        return drawn
    return [*drawn, f"scale:{math.sqrt(whole['energy'] / (known[part, SIZE]['energy'] if drawn else 1)):.6g}"]
