"""What the study's runs changed in common, and how full the masks were that they trained in.

Both need the weights of the runs, which stay where the runs were made; two small tables are kept, `masks` and
`overlaps` of `opdlib.results.study`.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from opdlib.checkpoints import open_checkpoint
from opdlib.checkpoints.checkpoint import Checkpoint
from opdlib.errors import CheckpointError
from opdlib.measurement.overlap import ATOL, overlap
from opdlib.registry.recipes import PARENT, Mask, load_recipe
from opdlib.registry.study import FULL, RUNS, Arm, Scale
from opdlib.registry.weights import find_weights
from opdlib.results.collect import add_rows
from opdlib.results.study import BASELINES, KEYS, SHARES
from opdlib.train.masks import training_masks

OWN = "mask-own"
"""The arm that trains inside the mask of full OPD's delta."""
OTHERS = ("rlvr", "offline", "offline-rkl", "opd-ce", "sft", "opsd", "opd-other-teacher")
"""Arms whose changes are laid beside those of full OPD."""
Row = dict[str, Any]
Here = Mapping[tuple[str, int], str]
"""Arm and seed -> the spec of the run's rounded weights, of all that are here."""


def write_overlaps(scale: Scale, out: Path, runs: Path = RUNS) -> None:
    """Add both tables' rows of every run whose weights lie in `runs`, beside those that travel with opdlib, to the
    tables in `out`/<scale>.

    Raises CheckpointError if there are no weights of any run, or none of the source.
    """
    every = [(arm.name, seed) for arm in scale.arms.values() for seed in arm.seeds]
    here = {(arm, seed): spec for arm, seed in every if (spec := _of(scale.arms[arm], seed, runs))}
    if not any(scale.arms[arm].folder(seed, runs).is_dir() for arm, seed in here):
        raise CheckpointError(f"scale {scale.name}: no weights of its runs in {runs}; run: opd study {scale.name}")
    source = open_checkpoint(scale.source_spec(runs))
    masks = [_mask_row(arm, seed, source, scale, here, runs) for arm, seed in _masked(scale, here, runs)]
    add_rows(scale, out / scale.name, {"masks": masks})
    place = {key: number for number, key in enumerate(_planned(scale))}

    def order(row: Mapping[str, str]) -> tuple[int, tuple[str, ...]]:
        """Rows that the plan no longer has are last."""
        key = tuple(row[column] for column in KEYS["overlaps"])
        return place.get(key, len(place)), key

    add_rows(scale, out / scale.name, {"overlaps": [*_overlap_rows(scale, here, source, runs)]}, order)


def comparisons(scale: Scale) -> list[tuple[tuple[str, int], tuple[str, int]]]:
    """The runs that are laid over each other, as (arm, seed): full OPD with itself over every two seeds, then each of
    `OTHERS` with full OPD of the same seed, which shares its problems and their order, and of the next one."""
    full = scale.arms[FULL].seeds
    pairs = [((FULL, a), (FULL, b)) for i, a in enumerate(full) for b in full[i + 1 :]]
    for name in (name for name in OTHERS if name in scale.arms):
        for shift in (0, 1) if len(full) > 1 else (0,):
            pairs += [((FULL, full[(i + shift) % len(full)]), (name, s)) for i, s in enumerate(scale.arms[name].seeds)]
    return pairs


def thresholds(scale: Scale) -> list[float]:
    """Above which a difference counts: any, the paper's, and that of the scale's mask of full OPD."""
    own = [_mask(scale.arms[OWN]).threshold] if OWN in scale.arms else []
    return sorted({0.0, ATOL, *own})


def _overlap_rows(scale: Scale, here: Here, source: Checkpoint, runs: Path) -> Iterator[Row]:
    for (arm_a, seed_a), (arm_b, seed_b) in comparisons(scale):
        sides = (arm_a, seed_a), (arm_b, seed_b)
        if not {*sides} <= here.keys():
            continue
        masters = [scale.arms[arm].folder(seed, runs) / "fp32" for arm, seed in sides]
        whole = all(folder.is_dir() for folder in masters)
        a, b = (open_checkpoint(str(spec)) for spec in (masters if whole else (here[side] for side in sides)))
        for atol in thresholds(scale):
            found = overlap(source, a, b, atol=atol)
            yield {
                **dict(zip(KEYS["overlaps"], (arm_a, seed_a, arm_b, seed_b, atol), strict=True)),
                "parameters": sum(info.numel for info in source.tensors.values()),
                **{name: found[name] for name in ("density_a", "density_b", *SHARES)},
                **{f"{base}_{share}": found["expected"][base][share] for base in BASELINES for share in SHARES},
                **{name: found[name] for name in ("cosine", "latent_cosine", "equal_signs")},
            }


def _masked(scale: Scale, here: Here, runs: Path) -> Iterator[tuple[Arm, int]]:
    """Every run inside a mask whose weights are here with those of the mask's owner and of full OPD."""
    for arm in scale.arms.values():
        if load_recipe(arm.recipe).mask is None:
            continue
        for seed in arm.seeds:
            if {(arm.name, seed), (FULL, seed)} <= here.keys() and _owner(arm, seed, runs)[1]:
                yield arm, seed


def _mask_row(arm: Arm, seed: int, source: Checkpoint, scale: Scale, here: Here, runs: Path) -> Row:
    mask, own = _mask(arm), _mask(scale.arms[OWN]) if OWN in scale.arms else None
    named, spec = _owner(arm, seed, runs)
    owner, full, run = map(open_checkpoint, (spec, here[FULL, seed], here[arm.name, seed]))
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
        "owner": named,
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


def _owner(arm: Arm, seed: int, runs: Path) -> tuple[str, str]:
    """The name and the weights of the run that the mask is made of: the recipe's, with the seed of the run inside."""
    name = _mask(arm).of.removeprefix(PARENT)
    folder = arm.folder(seed, runs).with_name(f"{name}-s{seed}")
    return folder.name, _weights(arm.recipe.with_name(f"{name}.yaml"), seed, folder)


def _of(arm: Arm, seed: int, runs: Path) -> str:
    return _weights(arm.recipe, seed, arm.folder(seed, runs))


def _weights(path: Path, seed: int, folder: Path) -> str:
    """The spec of the rounded weights of a recipe's run: those in its `folder`, or else those that travel with opdlib;
    empty where there are none."""
    if (folder / "bf16").is_dir():
        return str(folder / "bf16")
    known = find_weights(load_recipe(path).model_copy(update={"seed": seed}))
    return known.spec if known else ""


def _planned(scale: Scale) -> Iterator[tuple[str, ...]]:
    """The key of every row that a complete table of overlaps has, in its order."""
    for (arm_a, seed_a), (arm_b, seed_b) in comparisons(scale):
        yield from ((arm_a, str(seed_a), arm_b, str(seed_b), str(atol)) for atol in thresholds(scale))
