"""What the study's runs changed in common, and how full the masks were that they trained in.

Both need the weights of the runs, which stay where the runs were made; the two small tables made here are kept.

| file in `study/` | a row is |
| --- | --- |
| `<scale>-masks.csv` | the mask of one run that trained inside one |
| `<scale>-overlaps.csv` | two runs over one source at one threshold, view bf16, `opdlib.measurement.overlap` |
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from opdlib.checkpoints import open_checkpoint
from opdlib.checkpoints.checkpoint import Checkpoint
from opdlib.errors import CheckpointError
from opdlib.files import write_together
from opdlib.measurement.overlap import ATOL, measure_overlap
from opdlib.registry.recipes import PARENT, Mask, load_recipe
from opdlib.registry.study import RUNS, Arm, Scale
from opdlib.train.masks import training_masks

FULL, OWN = "opd", "mask-own"
"""The arm that all others are compared with, and the arm that trains inside the mask of its delta."""
OTHERS = ("rlvr", "offline", "offline-rkl", "opd-ce", "sft", "opsd", "opd-other-teacher")
"""Arms whose changes are laid beside those of full OPD."""
BASELINES, SHARES = ("global", "tensor", "magnitude"), ("o1", "o2", "jaccard")

MASKS = (
    *("arm", "seed", "kind", "owner", "threshold", "parameters", "inside", "owner_inside", "own_inside", "in_own"),
    *("own_energy", "moved_inside", "moved_outside"),
)
"""Columns of the table of masks. Counts of coordinates: all, in the mask, in the owner's delta mask, in the mask of the
delta of full OPD (that of `mask-own`), in both this mask and that one; the share of full OPD's squared delta that lies
inside; coordinates that the run moved in view bf16, inside and outside of its mask."""
OVERLAPS = (
    *("arm_a", "seed_a", "arm_b", "seed_b", "atol", "parameters", "density_a", "density_b", *SHARES),
    *(f"{baseline}_{share}" for baseline in BASELINES for share in SHARES),
)
"""Columns of the table of overlaps: o1 is the share of a's mask that lies in b's. Each baseline is what independence
gives."""
KEYS = {"masks": ("arm", "seed"), "overlaps": ("arm_a", "seed_a", "arm_b", "seed_b", "atol")}
COLUMNS = {"masks": MASKS, "overlaps": OVERLAPS}

Row = dict[str, Any]


def write_overlaps(scale: Scale, results: Path, runs: Path = RUNS) -> list[Path]:
    """Write both tables of a scale into `results`/study, for every run whose weights lie in `runs`.

    Rows of runs whose weights are not here stay as they were in the tables. Raises CheckpointError if there are no
    weights of any run, or none of the source.
    """
    here = [key for arm in scale.arms.values() for key in arm.pairs if _weights(runs, key).is_dir()]
    if not here:
        raise CheckpointError(f"scale {scale.name}: no weights of its runs in {runs}; run: opd study {scale.name}")
    source = open_checkpoint(scale.source_spec(runs))
    found = {
        "masks": [_mask_row(arm, seed, source, scale, runs) for arm, seed in _masked(scale, here, runs)],
        "overlaps": list(_overlap_rows(scale, here, source, runs)),
    }
    folder = results / "study"
    files = {_name(scale, table): _csv(scale, table, rows, folder) for table, rows in found.items()}
    write_together(folder, files, last=_name(scale, "overlaps"))
    return [folder / name for name in files]


def comparisons(scale: Scale) -> list[tuple[tuple[str, int], tuple[str, int]]]:
    """The runs that are laid over each other, as (arm, seed): full OPD with itself over every two seeds, then each of
    `OTHERS` with full OPD of the same seed, which shares its problems and their order, and of the next one."""
    full = scale.arms[FULL]
    pairs = [((FULL, i), (FULL, j)) for i in range(full.seeds) for j in range(i + 1, full.seeds)]
    for name in (name for name in OTHERS if name in scale.arms):
        for shift in (0, 1) if full.seeds > 1 else (0,):
            pairs += [((FULL, (s + shift) % full.seeds), (name, s)) for s in range(scale.arms[name].seeds)]
    return pairs


def thresholds(scale: Scale) -> list[float]:
    """Above which a difference counts: any, the paper's, and that of the scale's mask of full OPD."""
    own = [_mask(scale.arms[OWN]).threshold] if OWN in scale.arms else []
    return sorted({0.0, ATOL, *own})


def _overlap_rows(scale: Scale, here: Sequence[str], source: Checkpoint, runs: Path) -> Iterator[Row]:
    for (arm_a, seed_a), (arm_b, seed_b) in comparisons(scale):
        keys = scale.arms[arm_a].key(seed_a), scale.arms[arm_b].key(seed_b)
        if not set(keys) <= set(here):
            continue
        a, b = (open_checkpoint(str(_weights(runs, key))) for key in keys)
        for atol in thresholds(scale):
            found = measure_overlap(source, a, b, atol=atol)
            yield {
                **dict(zip(KEYS["overlaps"], (arm_a, seed_a, arm_b, seed_b, atol), strict=True)),
                "parameters": sum(info.numel for info in source.tensors.values()),
                **{name: found[name] for name in ("density_a", "density_b", *SHARES)},
                **{f"{base}_{share}": found["expected"][base][share] for base in BASELINES for share in SHARES},
            }


def _masked(scale: Scale, here: Sequence[str], runs: Path) -> Iterator[tuple[Arm, int]]:
    """Every run inside a mask whose weights are here with those of the mask's owner and of full OPD."""
    for arm in scale.arms.values():
        if load_recipe(arm.recipe).mask is None:
            continue
        for seed in range(arm.seeds):
            owner = _weights(runs, _owner(_mask(arm), seed))
            if {arm.key(seed), scale.arms[FULL].key(seed)} <= set(here) and owner.is_dir():
                yield arm, seed


def _mask_row(arm: Arm, seed: int, source: Checkpoint, scale: Scale, runs: Path) -> Row:
    mask, own = _mask(arm), _mask(scale.arms[OWN]) if OWN in scale.arms else None
    owner, full, run = (
        open_checkpoint(str(_weights(runs, key)))
        for key in (_owner(mask, seed), scale.arms[FULL].key(seed), arm.key(seed))
    )
    masks = training_masks(mask, source, owner, seed)
    energy = 0.0, 0.0
    sums = dict.fromkeys(("inside", "owner_inside", "own_inside", "in_own", "moved_inside", "moved_outside"), 0)
    for name, inside in masks.items():
        moved = _delta(source, run, name) != 0
        by_owner, by_full = _delta(source, owner, name), _delta(source, full, name)
        in_own = by_full.abs() > own.threshold if own else torch.zeros_like(inside)
        sums["inside"] += int(inside.sum())
        sums["owner_inside"] += int((by_owner.abs() > mask.threshold).sum())
        sums["own_inside"] += int(in_own.sum())
        sums["in_own"] += int((inside & in_own).sum())
        sums["moved_inside"] += int((moved & inside).sum())
        sums["moved_outside"] += int((moved & ~inside).sum())
        squares = by_full.square()
        energy = energy[0] + float(squares[inside].sum()), energy[1] + float(squares.sum())
    return {
        "arm": arm.name,
        "seed": seed,
        "kind": mask.kind,
        "owner": _owner(mask, seed),
        "threshold": mask.threshold,
        "parameters": sum(inside.numel() for inside in masks.values()),
        **sums,
        "own_energy": f"{energy[0] / energy[1]:.9g}" if energy[1] else None,
    }


def _delta(source: Checkpoint, trained: Checkpoint, name: str) -> torch.Tensor:
    return trained.read(name).to(torch.bfloat16).double() - source.read(name).to(torch.bfloat16).double()


def _mask(arm: Arm) -> Mask:
    mask = load_recipe(arm.recipe).mask
    assert mask is not None, arm.name
    return mask


def _owner(mask: Mask, seed: int) -> str:
    """The run that the mask is made of: that of the recipe with the seed of the run inside it."""
    return f"{mask.of.removeprefix(PARENT)}-s{seed}"


def _weights(runs: Path, key: str) -> Path:
    return runs / key / "bf16"


def _name(scale: Scale, table: str) -> str:
    return f"{scale.name}-{table}.csv"


def _csv(scale: Scale, table: str, rows: Iterable[Row], folder: Path) -> str:
    """The table with these rows, and those that it had of runs whose weights are not here, in the order of the plan."""
    text = [{column: "" if row[column] is None else str(row[column]) for column in COLUMNS[table]} for row in rows]
    file = folder / _name(scale, table)
    if file.is_file():
        with file.open(encoding="utf8", newline="") as stream:
            text = [*csv.DictReader(stream), *text]
    latest = {tuple(row[column] for column in KEYS[table]): row for row in text}
    written = io.StringIO()
    writer = csv.DictWriter(written, fieldnames=COLUMNS[table], lineterminator="\n")
    writer.writeheader()
    writer.writerows(latest[key] for key in _planned(scale, table) if key in latest)
    return written.getvalue()


def _planned(scale: Scale, table: str) -> Iterator[tuple[str, ...]]:
    """The key of every row that a complete table has, in its order."""
    if table == "masks":
        yield from ((arm.name, str(seed)) for arm in scale.arms.values() for seed in range(arm.seeds))
    else:
        for (arm_a, seed_a), (arm_b, seed_b) in comparisons(scale):
            yield from ((arm_a, str(seed_a), arm_b, str(seed_b), str(atol)) for atol in thresholds(scale))
