"""Masked runs that were never run: tables of a study with known numbers.

Of 1000 weights, the own mask holds 250 and the RLVR mask 200. Full OPD solves 0.50 + seed / 100, and each mask that
less LOST[arm], give or take WOBBLE, and comes WAY[arm] far in 20 steps, in a straight line.
"""

import math
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from tests.tables.study_rows import Row, run, write_study

LOST = {
    "opd": 0.0,
    "mask-own": 0.01,
    "mask-rlvr": 0.05,
    "mask-random": 0.10,
    "mask-magnitude": 0.10,
    "mask-smallest": 0.12,
}
WAY = {"opd": 0.4, "mask-own": 0.4, "mask-rlvr": 0.3, "mask-random": 0.2, "mask-magnitude": 0.2, "mask-smallest": 0.2}
SOURCE, WOBBLE, STEPS = 0.25, 0.002, 20
INSIDE = {"mask-rlvr": 200}
IN_OWN = {"mask-own": 250, "mask-rlvr": 120}


def accuracy(arm: str, seed: int) -> float:
    """What the run solves."""
    wobble = 0.0 if arm == "opd" else WOBBLE * math.sin(7 * seed + 3 * list(LOST).index(arm))
    return 0.50 + seed / 100 - LOST[arm] + wobble


def write_runs(root: Path, arms: Iterable[str], seeds: int, without_curve: str = "") -> None:
    """Finished runs, evaluated at steps 10 and 20."""
    write_study(root, [_run(arm, seed, arm != without_curve) for arm in arms for seed in range(seeds)])


def _run(arm: str, seed: int, logged: bool) -> dict[str, list[Row]]:
    solved = accuracy(arm, seed)
    curve = pd.DataFrame({"step": range(1, STEPS + 1), "num_tokens": 1})
    seen = curve["step"].isin([1, 10, STEPS])
    curve.loc[seen, "distance"] = WAY[arm] * curve["step"] / STEPS
    curve.loc[curve["step"].isin([10, STEPS]), "accuracy"] = [(SOURCE + solved) / 2, solved]
    measured = {("bf16", STEPS): {"rel_norm": WAY[arm] / 40, "exact_zero": 0.1}}
    return run(arm, seed, solved, SOURCE, measured, curve if logged else None)


def write_masks(root: Path, seeds: int) -> None:
    """The masks of every arm."""
    rows = []
    for arm in list(LOST)[1:]:
        inside = INSIDE.get(arm, 250)
        for seed in range(seeds):
            row = {"arm": arm, "seed": seed, "kind": "delta" if arm in IN_OWN else "random", "owner": "x"}
            row |= {"threshold": 3.5e-4 if arm == "mask-rlvr" else 7e-4, "parameters": 1000, "inside": inside}
            row |= {"owner_inside": inside, "own_inside": 250, "in_own": IN_OWN.get(arm, 62), "own_energy": 0.5}
            rows.append(row | {"moved_inside": inside, "moved_outside": 0})
    write_study(root, [], masks=rows)


def overlap(arm: str, seeds: tuple[int, int], atol: float, both: float, b: float = 0.25) -> Row:
    """Full OPD changed a quarter of the weights, the other run the share `b`, both of them `both`.

    Chance: the product of the densities, 0.01 more of all weights within tensors, 0.02 more within magnitudes.
    """
    row: Row = {"arm_a": "opd", "seed_a": seeds[0], "arm_b": arm, "seed_b": seeds[1], "atol": atol}
    row |= {"parameters": 1000, "density_a": 0.25, "density_b": b}
    chance = {"": both, "global_": 0.25 * b, "tensor_": 0.25 * b + 0.01, "magnitude_": 0.25 * b + 0.02}
    for name, shared in chance.items():
        row |= {f"{name}o1": shared / 0.25, f"{name}o2": shared / b, f"{name}jaccard": shared / (0.25 + b - shared)}
    return row


def write_overlaps(root: Path) -> None:
    """Two seed pairs that share 0.20 and 0.22 of all weights, RLVR 0.10, SFT 0.15; at 0 everything is shared."""
    rows = []
    for atol in (0.0, 7e-4):
        every = {"opd": [((0, 1), 0.20), ((1, 2), 0.22)], "rlvr": [((0, 0), 0.11), ((1, 0), 0.10)]}
        every |= {"sft": [((0, 0), 0.16), ((1, 0), 0.15)]}
        for arm, pairs in every.items():
            rows += [overlap(arm, seeds, atol, both if atol else 0.25) for seeds, both in pairs]
    write_study(root, [], overlaps=rows)
