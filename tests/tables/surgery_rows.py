"""Parts of updates that were never made: a table of surgery with known numbers.

The source solves 30% and the whole update 70%. A part that holds the share e of the energy solves 30% + e * 40%, its
random control of equal size holds and solves half of that, and that of equal energy solves as much as of equal size.
"""

from pathlib import Path

from opdlib.results.layout import csv_text
from opdlib.results.study import ENERGY, PART, REST, SIZE, SURGERY
from opdlib.stats import wilson

START, GAIN, N = 0.3, 0.4, 1000
ENERGIES = {
    "scale:1": 1.0,
    "none": 0.0,
    "singular:4": 0.4,
    "singular:16": 0.6,
    "visible": 0.9,
    "largest:0.05": 0.2,
    "mask:low:0.2": 0.25,
    "block:mlp": 0.5,
    "block:attention": 0.25,
    "layers:0-9": 0.3,
}
CONTROLLED = ("largest:0.05", "visible", "block:mlp")


def write_surgery(root: Path, scale: str = "pico", arms: tuple[tuple[str, int], ...] = (("opd", 0),)) -> Path:
    """Rows of these runs."""
    rows = []
    for arm, seed in arms:
        for part, energy in ENERGIES.items():
            rows.append(_row(arm, seed, part, PART, energy, energy))
            if part in CONTROLLED:
                rows.append(_row(arm, seed, part, SIZE, energy / 2, energy / 2))
                rows.append(_row(arm, seed, part, ENERGY, energy, energy / 2))
        rows.append(_row(arm, seed, "singular:16", REST, 0.4, 0.4))
        rows.append(_row(arm, seed, "singular:16", ENERGY, 0.6, 0.3))
    (root / scale).mkdir(parents=True)
    (root / scale / "surgery.csv").write_text(csv_text(rows, SURGERY), encoding="utf8")
    return root


def _row(arm: str, seed: int, part: str, kind: str, energy: float, gained: float) -> dict[str, object]:
    correct = round(N * (START + GAIN * gained))
    low, high = wilson(correct, N)
    row = {
        "arm": arm,
        "seed": seed,
        "part": part,
        "kind": kind,
        "rule": part,
        "complement": 0,
        "restored": 0,
        "draw": 0,
    }
    row |= {
        "energy": energy,
        "rel_norm": 1e-3 * energy**0.5,
        "kept": 1.0 if ":" not in part else 0.2,
        "correct": correct,
    }
    row |= {"n": N, "accuracy": correct / N, "low": low, "high": high}
    return row | {"digest.source": "a", "digest.fp32": "b", "command": "opd edit"}
