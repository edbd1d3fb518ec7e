"""Tables of the study: its runs, their curves, and arms compared over seeds.

A number of a run is called as in its summary, levels joined by dots: `rel_norm`, `projection.joint.0.1`. Shares are
fractions in [0, 1]. The layers are left out. What is undefined in a run (a spectrum of no change) is NaN.

Two arms are compared seed by seed, because they share everything that a seed draws: the problems and their order, the
first samples. The interval is Student's, over seeds, at 95%; of a single seed there is none. This was laid down before
the runs: an arm gives *the same* as OPD in a number if the whole interval of its difference from OPD lies within OPD's
own range from seed to seed, [-(max - min), max - min]; it gives *another* number if the interval excludes 0 and is not
within that range; anything else is *undecided*.
"""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from opdlib.files import data_root
from opdlib.registry.study import Arm, find_scale, study
from opdlib.results.layout import SUMMARY, read_summary
from opdlib.stats import mean_interval

SAME, OTHER, UNDECIDED = "the same", "another", "undecided"
LEFT_OUT = ("pair", "view", "layers")


def scales(first: str) -> list[str]:
    """This scale, then the others that stand beside it on a page."""
    return [first, *(name for name, scale in study().items() if name != first and not scale.apart)]


def standing(scale: str, arms: Sequence[str], results: Path | None = None) -> pd.DataFrame:
    """One row an arm: arm, planned, finished (numbers of seeds), missing (the command for the rest; '' if none).

    An arm that the scale does not have is planned with 0 seeds and has no command.
    """
    known = find_scale(scale).arms
    done = [arm.name for arm, *_ in _finished(scale, arms, results)]
    rows = []
    for name in arms:
        planned, finished = len(known[name].seeds) if name in known else 0, done.count(name)
        command = f"opd study {scale} --arms {name}" if finished < planned else ""
        rows.append({"arm": name, "planned": planned, "finished": finished, "missing": command})
    return pd.DataFrame(rows)


def runs(scale: str, arms: Sequence[str] = (), view: str = "bf16", results: Path | None = None) -> pd.DataFrame:
    """One row a finished run of the scale (of `arms`, if given), in the order of study.yaml.

    Columns: arm, seed, partner, regime, accuracy, low, high (Wilson's 95% interval), n (held-out problems),
    source_accuracy, steps, tokens, seconds (of training), and every number of the summary in `view`.
    """
    rows = [_run(arm, seed, folder, view) for arm, seed, folder in _finished(scale, arms, results)]
    return pd.DataFrame(rows, columns=None if rows else ["arm", "seed"])


def along(scale: str, arms: Sequence[str] = (), results: Path | None = None) -> pd.DataFrame:
    """One row a run and step whose weights were measured, the last included, view bf16: arm, seed, step, numbers."""
    rows = []
    for arm, seed, folder in _finished(scale, arms, results):
        last = _json(folder / "training" / "complete.json")["steps"]
        kept = {int(path.parent.name): path.parent for path in folder.glob(f"steps/*/{SUMMARY}")} | {last: folder}
        for step in sorted(kept):
            rows.append({"arm": arm.name, "seed": seed, "step": step} | flat(read_summary(kept[step])))
    return pd.DataFrame(rows, columns=None if rows else ["arm", "seed", "step"])


def curves(scale: str, arms: Sequence[str] = (), results: Path | None = None) -> pd.DataFrame:
    """One row a run and step: arm, seed, and the columns of training/curve.csv; NaN where nothing was logged."""
    tables = [
        pd.read_csv(folder / "training" / "curve.csv").assign(arm=arm.name, seed=seed)
        for arm, seed, folder in _finished(scale, arms, results)
        if (folder / "training" / "curve.csv").is_file()
    ]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame({"arm": [], "seed": [], "step": []})


def over_seeds(table: pd.DataFrame, quantities: Sequence[str], by: Sequence[str] = ("arm",)) -> pd.DataFrame:
    """Mean and 95% interval over the rows of each group.

    Columns: those of `by`, quantity, seeds, value, low, high (NaN of a single seed). Undefined numbers are not counted
    among the seeds.
    """
    rows = []
    for group, part in table.groupby([*by], sort=False):
        for quantity in quantities:
            values = part[quantity].dropna()
            value, low, high = mean_interval(values)
            keys = dict(zip(by, group, strict=True))
            rows.append(keys | {"quantity": quantity, "seeds": len(values), "value": value, "low": low, "high": high})
    return pd.DataFrame(rows)


def differences(
    table: pd.DataFrame, arms: Sequence[str], quantities: Sequence[str], partner: str = "opd"
) -> pd.DataFrame:
    """Each of `arms` minus `partner`, seed by seed, and whether they are the same by the rule of this module.

    `table` is that of `runs`. Columns: arm, quantity, seeds (that both have), difference, low, high, range (of the
    partner, max - min over all its seeds), verdict.
    """
    reference = table[table["arm"] == partner].set_index("seed")
    rows = []
    for arm in arms:
        ours = table[table["arm"] == arm].set_index("seed")
        for quantity in quantities:
            paired = (ours[quantity] - reference[quantity]).dropna()
            value, low, high = mean_interval(paired)
            span = float(reference[quantity].max() - reference[quantity].min())
            rows.append(
                {
                    "arm": arm,
                    "quantity": quantity,
                    "seeds": len(paired),
                    "difference": value,
                    "low": low,
                    "high": high,
                    "range": span,
                    "verdict": verdict(low, high, span),
                }
            )
    return pd.DataFrame(rows)


def verdict(low: float, high: float, span: float) -> str:
    """The rule of this module for the interval [low, high] of a difference and a seed-to-seed range `span` >= 0."""
    if math.isnan(low) or math.isnan(high):
        return UNDECIDED
    if -span <= low and high <= span:
        return SAME
    return OTHER if low > 0 or high < 0 else UNDECIDED


def rule() -> str:
    """The rule of sameness, as it stands in the documentation of this module, as a quotation."""
    paragraphs = inspect.cleandoc(__doc__ or "").split("\n\n")
    (found,) = [text for text in paragraphs if "laid down before" in text]
    return "> " + " ".join(found.split())


def at_norm(table: pd.DataFrame, norms: pd.Series, quantities: Sequence[str]) -> pd.DataFrame:
    """The numbers that each run of `along` had when its relative norm was that of `norms` (by seed).

    Between two measured steps a number is taken to be linear in the logarithm of the relative norm. Columns: arm, seed,
    rel_norm, quantities; all NaN but the first two where the run never was at that norm between its first and last
    measured step.
    """
    rows = []
    for (arm, seed), part in table.groupby(["arm", "seed"], sort=False):
        wanted = norms.get(seed, math.nan)
        known = part[part["rel_norm"] > 0].sort_values("rel_norm")
        inside = len(known) > 0 and known["rel_norm"].iloc[0] <= wanted <= known["rel_norm"].iloc[-1]
        row = {"arm": arm, "seed": seed, "rel_norm": wanted if inside else math.nan}
        for quantity in quantities:
            at = np.interp(math.log(wanted), np.log(known["rel_norm"]), known[quantity]) if inside else math.nan
            row[quantity] = float(at)
        rows.append(row)
    return pd.DataFrame(rows)


def flat(summary: dict[str, Any], above: str = "") -> dict[str, float]:
    """The numbers of a summary under dotted names, without layers; None becomes NaN."""
    found: dict[str, float] = {}
    for key, value in summary.items():
        if key in LEFT_OUT:
            continue
        if isinstance(value, dict):
            found |= flat(value, f"{above}{key}.")
        else:
            found[f"{above}{key}"] = math.nan if value is None else value
    return found


def _run(arm: Arm, seed: int, folder: Path, view: str) -> dict[str, Any]:
    scores, done = (_json(folder / "training" / f"{name}.json") for name in ("evaluation", "complete"))
    student = scores["student"]
    low, high = student["interval"]
    curve = folder / "training" / "curve.csv"
    tokens = pd.read_csv(curve)["num_tokens"].iloc[-1] if curve.is_file() else math.nan
    return {
        "arm": arm.name,
        "seed": seed,
        "partner": arm.partner,
        "regime": arm.regime,
        "accuracy": student["accuracy"],
        "low": low,
        "high": high,
        "n": student["n"],
        "source_accuracy": scores["source"]["accuracy"],
        "steps": done["steps"],
        "tokens": tokens,
        "seconds": done["training_seconds"],
        **flat(read_summary(folder if view == "bf16" else folder / view)),
    }


def _finished(scale: str, arms: Sequence[str], results: Path | None) -> Iterator[tuple[Arm, int, Path]]:
    """Every run with complete results, in the order of study.yaml."""
    root = results or data_root() / "results"
    for arm in find_scale(scale).arms.values():
        if arms and arm.name not in arms:
            continue
        for seed in arm.seeds:
            folder = root / arm.key(seed)
            if (folder / "training" / "complete.json").is_file() and (folder / SUMMARY).is_file():
                yield arm, seed, folder


def _json(file: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf8"))
    return content
