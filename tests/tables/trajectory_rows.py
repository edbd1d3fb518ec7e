"""Rows of `along` for runs that were never made."""

from pathlib import Path
from typing import Any

from opdlib.registry.study import find_scale
from opdlib.results.collect import add_rows
from opdlib.results.study import ALONG, PLACE

STEPS = (10, 20, 30, 40, 50)


def numbers(arm: str, view: str, step: int) -> dict[str, float | None]:
    """What a run of these arms has after a step: `offline` moves twice as far as `opd`."""
    share = step / STEPS[-1]
    found: dict[str, float | None] = {key: 0.1 + 0.01 * place + 0.2 * share for place, key in enumerate(ALONG)}
    far = 2.0 if arm == "offline" else 1.0
    found |= {"rel_norm": far * 1e-3 * share, "exact_zero": 1 - 0.4 * share if view == "bf16" else 0.0}
    found |= {"stable_rank": 20 - 10 * share, "step_cosine": None if step == STEPS[0] else 0.3}
    for side in ("left", "right"):
        own = view == "stored"
        found |= {f"locking.{side}": 0.5 + 0.5 * share, f"locking_norms.{side}": share**4 if own else None}
        found[f"locking_spectra.{side}"] = share**2 if own else None
    return found


def write_along(root: Path, arms: tuple[str, ...] = ("opd", "offline"), scale: str = "smollm2") -> Path:
    rows: list[dict[str, Any]] = [
        dict(zip(PLACE, (arm, 0, view, step), strict=True)) | numbers(arm, view, step)
        for arm in arms
        for view in ("bf16", "stored")
        for step in STEPS
    ]
    add_rows(find_scale(scale), root / scale, {"along": rows})
    return root
