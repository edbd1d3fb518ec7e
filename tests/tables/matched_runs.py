"""Matched runs that were never run: tables of a study with known numbers, for the page on matched arms.

A run of arm a and seed s has at its end the relative norm END[a] * (1 + s / 100) and half of it halfway. Every other
number follows from the norm r alone, so that at equal norm no arm differs from another; only the stable rank of
`offline` is 1 larger. `runs` and `along` are tables of one number.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from tests.tables.study_rows import Row, run, write_study

END = {"opd": 0.010, "opd-ce": 0.008, "offline-rkl": 0.010, "offline": 0.008, "offline-long": 0.080, "opd-k1": 0.004}
STEPS = 20
SOURCE, LEARNED = 0.25, 0.45

DATA, LOSS, BOTH = 0.5, -2.0, 0.25
"""What teacher samples, cross-entropy and both together add to OPD's number, in every seed."""
SEEDS = {0: 10.0, 1: 10.3, 2: 9.9, 3: 10.1}
ADDED = {"opd": 0.0, "opd-ce": LOSS, "offline-rkl": DATA, "offline": DATA + LOSS + BOTH}


def runs() -> pd.DataFrame:
    """One number of four arms over four seeds."""
    rows = [
        {"arm": arm, "seed": seed, "stable_rank": base + added}
        for arm, added in ADDED.items()
        for seed, base in SEEDS.items()
    ]
    return pd.DataFrame(rows)


def along() -> pd.DataFrame:
    """Two arms on the way: the number is 3 + ln(norm) for opd, 4 + ln(norm) for offline, which goes half as far."""
    rows = [
        {"arm": arm, "seed": seed, "step": step, "rel_norm": far * step, "stable_rank": start + math.log(far * step)}
        for arm, far, start in (("opd", 0.002, 3.0), ("offline", 0.001, 4.0))
        for seed in (0, 1)
        for step in (1, 2, 4)
    ]
    return pd.DataFrame(rows)


def write_runs(root: Path, seeds: int, arms: Mapping[str, float] = END, scale: str = "pico") -> Path:
    """All runs of these arms, of which opd-k1 learns nothing."""
    return write_study(root, [_run(arm, seed, end) for arm, end in arms.items() for seed in range(seeds)], scale)


def summary(arm: str, norm: float, view: str = "bf16") -> dict[str, Any]:
    """The numbers of a delta with this relative norm."""
    unchanged = 0.0 if view == "stored" else 1 / (1 + 1000 * norm)
    return {
        "pair": arm,
        "view": view,
        "parameters": 100,
        "measured_2d": 4,
        "rel_norm": norm,
        "exact_zero": unchanged,
        "sparsity": {"1e-08": unchanged, "1e-05": unchanged},
        "layers": [],
        "blocks": {"mlp": {"rel_norm": 2 * norm, "parameters": 60}},
        "stable_rank": 3 + 10 * norm + (arm == "offline"),
        "rank_share": {"1e-05": 1.0},
        "hill_exponent": None,
        "projection": {"joint": {"0.1": 0.02 + norm}},
        "projection_expected": {"joint": {"0.1": 0.01}},
        "coverage": {"low": {"0.1": 0.1 + unchanged / 10}},
        "coverage_ceiling": {"low": {"0.1": min(1.0, 0.1 / (1 - unchanged))}},
    }


def _run(arm: str, seed: int, end: float) -> dict[str, list[Row]]:
    norm = end * (1 + seed / 100)
    measured = {("bf16", STEPS): summary(arm, norm), ("stored", STEPS): summary(arm, norm, "stored")}
    measured |= {("bf16", 10): summary(arm, norm / 2), ("bf16", 5): summary(arm, norm / 4)}
    facts = {
        "tokens": 1000 + seed,
        "digest.source": "ab" * 32,
        "digest.teacher": "cd" * 32,
        "git.commit": "0123456789",
        "git.dirty": seed == 1,
        "packages.opdlib": "0.1.0",
        "device": "cpu",
        "threads": 1,
    }
    accuracy = (SOURCE if arm == "opd-k1" else LEARNED) + seed / 1000
    return run(arm, seed, accuracy, SOURCE, measured, **facts)
