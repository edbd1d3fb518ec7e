"""Runs that were never run: tables of a study with known numbers, for the tables and figures on optimizers.

The accuracy of an arm is ACCURACY[arm] + seed / 1000, except for adamw-1e-4, where the seed has the opposite sign.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from tests.tables.study_rows import Row, run, write_study

ACCURACY = {
    "adamw-3e-6": 0.40,
    "opd": 0.45,
    "adamw-3e-5": 0.55,
    "adamw-1e-4": 0.70,
    "rmsprop-1e-5": 0.45,
    "rmsprop-3e-5": 0.56,
    "sgd-1e-2": 0.50,
    "sgd-3e-2": 0.60,
    "sgd-1e-1": 0.40,
    "sgdm-1e-3": 0.50,
    "sgdm-1e-2": 0.65,
}
NORM = {"adamw-3e-6": 0.004, "opd": 0.01, "adamw-3e-5": 0.02, "adamw-1e-4": 0.05, "sgd-1e-2": 0.0075, "sgd-3e-2": 0.015}
"""Relative norm at the end; 0.01 where nothing is said. Halfway it is half of that."""
STEPS = 20
SOURCE = 0.25


def write_runs(root: Path, arms: Iterable[str], seeds: int) -> None:
    """Finished runs with measurements at steps 10 and 20, and probes at 1, 10 and 20."""
    write_study(root, [_run(arm, seed) for arm in arms for seed in range(seeds)])


def _run(arm: str, seed: int) -> dict[str, list[Row]]:
    still = arm == "adam-zero"
    accuracy = SOURCE if still else ACCURACY[arm] + (-seed if arm == "adamw-1e-4" else seed) / 1000
    norm = 0.0 if still else NORM.get(arm, 0.01)
    measured = {("bf16", STEPS): summary(arm, norm), ("stored", STEPS): summary(arm, norm, "stored")}
    measured |= {("bf16", 10): summary(arm, norm / 2)}
    facts = {f"digest.{side}": "0123456789abcdef" * 4 for side in ("source", "teacher", "fp32", "bf16")}
    facts |= {"teacher.accuracy": 0.95, "python": "3.11", "packages.opdlib": "0.1.0", "packages.torch": "2"}
    return run(arm, seed, accuracy, SOURCE, measured, _curve(arm, accuracy), **facts)


def summary(arm: str, norm: float, view: str = "bf16") -> dict[str, Any]:
    """Unchanged: 1 / (1 + 100 norm) in bf16, 0.3 more with SGD; 0 in the masters. No shape of a zero delta."""
    unchanged = 1 / (1 + 100 * norm) + (0.3 if arm.startswith("sgd") else 0)
    if view == "stored" and norm:
        unchanged = 0.0
    found: dict[str, Any] = {"pair": arm, "view": view, "layers": [], "rel_norm": norm, "exact_zero": unchanged}
    shape = {
        "svd_energy": {"16": 0.9},
        "stable_rank": 2.5,
        "projection": {"joint": {"0.1": 0.2}},
        "projection_expected": {"joint": {"0.1": 0.01}},
        "coverage": {"low": {"0.1": 0.12}},
        "coverage_ceiling": {"low": {"0.1": 0.15}},
    }
    return found | (shape if norm else {"svd_energy": {"16": None}, "stable_rank": None})


def _curve(arm: str, accuracy: float) -> pd.DataFrame:
    table = pd.DataFrame({"step": range(1, STEPS + 1), "loss": [3.0] * 10 + [1.0] * 10, "grad_norm": 5.0})
    table["num_tokens"] = 100 * table["step"]
    if arm == "adam-zero":
        table["grad_norm"] = 0.0
    probed = table["step"].isin([1, 10, STEPS])
    table.loc[probed, "update_norm"] = 0.0 if arm == "adam-zero" else 0.01
    table.loc[probed, "distance"] = table["step"] * (0.0 if arm == "adam-zero" else 0.005)
    if arm.startswith(("adamw", "rmsprop")) or arm == "opd":
        table.loc[probed, "momentum_cosine"] = 1.0 if arm.startswith("rmsprop") else [1.0, 0.6, 0.2]
        table.loc[probed, "second_moment_cv"] = [4.0, 3.0, 2.0]
    table.loc[table["step"].isin([10, STEPS]), "accuracy"] = [(SOURCE + accuracy) / 2, accuracy]
    return table
