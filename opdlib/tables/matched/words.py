"""Sentences that were computed, for the page on matched arms: true for any runs, silent where there are none."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pandas as pd

from opdlib.quantities import label, written
from opdlib.registry.study import FULL
from opdlib.tables.matched import paper
from opdlib.tables.matched.arms import BESIDE, MAIN
from opdlib.tables.matched.shown import share_of
from opdlib.tables.paper import OPD_STYLE
from opdlib.tables.study import OTHER, SAME, UNDECIDED
from opdlib.tables.text import listed, seeds

JOINT = "projection.joint.0.1"
"""The number that says whether a change lies in the source's leading directions."""


def runs(state: pd.DataFrame, scale: str) -> str:
    """How many of the planned runs there are, and which command gives the others."""
    planned, finished = int(state["planned"].sum()), int(state["finished"].sum())
    text = f"**{scale}**: {finished} of {planned} planned runs of these arms have results."
    lacking = state[state["missing"] != ""]
    without = lacking[lacking["finished"] == 0]["arm"]
    if len(without):
        text += f" Not run: {listed([*without])}; `opd study {scale} --arms {' '.join(without)}` runs them."
    partly = lacking[lacking["finished"] > 0]
    if len(partly):
        parts = [f"{row.arm} ({row.finished} of {row.planned} seeds)" for row in partly.itertuples()]
        text += f" Not complete: {listed(parts)}; `opd study {scale} --arms {' '.join(partly['arm'])}` runs the rest."
    never = state[state["planned"] == 0]["arm"]
    if len(never):
        text += f" This scale does not have {listed([*never])}."
    return text


def sparse(table: pd.DataFrame, scale: str) -> str:
    """Whether OPD at this scale lies where the paper's OPD-style pairs do, by relative norm and unchanged weights."""
    own = table[table["arm"] == FULL]
    if own.empty:
        return f"**{scale}**: OPD was not run, so nothing is said."
    pairs = paper.rows(["rel_norm", "exact_zero"])
    style = pairs[pairs["regime"].isin(OPD_STYLE)]
    parts, inside = [], []
    for key in ("rel_norm", "exact_zero"):
        value, low, high = float(own[key].mean()), float(style[key].min()), float(style[key].max())
        inside.append(low <= value <= high)
        span = f"{written(key, low)} to {written(key, high)}"
        parts.append(f"{label(key)} {written(key, value)} (the paper's OPD-style pairs: {span})")
    verdict = (
        "within the paper's range in both" if all(inside) else "outside it in both" if not any(inside) else "mixed"
    )
    text = f"**{scale}**, {seeds(len(own))} of OPD: {listed(parts)}; {verdict}."
    times = over_chance(own)
    return f"{text} The {label(JOINT)} is {times:.2g} times chance." if times > 0 else text


def over_chance(runs: pd.DataFrame) -> float:
    """The mean joint projection of these runs over its chance level; NaN where it was not measured."""
    if JOINT not in runs or BESIDE[JOINT] not in runs:
        return math.nan
    return float((runs[JOINT] / runs[BESIDE[JOINT]]).mean())


def learned(accuracy: pd.DataFrame, scale: str) -> str:
    """Which arms learned something, and which did not."""
    if accuracy.empty:
        return f"**{scale}**: no run."
    texts = []
    for word, text in (("yes", "better than the source in every run"), ("in some seeds", "better in some seeds only")):
        if (accuracy["learned"] == word).any():
            texts.append(f"{text}: {listed(_arms(accuracy, word))}")
    nothing = _arms(accuracy, "no")
    texts.append(f"no sign of learning: {listed(nothing)}" if nothing else "no arm without a sign of learning")
    return f"**{scale}**: {'; '.join(texts)}."


def verdicts(table: pd.DataFrame, runs: pd.DataFrame, scale: str, when: str = "at the end") -> str:
    """Arm by arm: which numbers are the same as OPD's and which another (and by how much of OPD's number), and how many
    are undecided."""
    lines = []
    opd = runs[runs["arm"] == FULL]
    for arm, own in table.groupby("arm", sort=False):
        count = int(own["seeds"].max())
        if count < 2:
            lines.append(f"- `{arm}`, {scale}, {when}: {seeds(count)} in common with OPD, so that nothing can be said.")
            continue
        found = {word: own[own["verdict"] == word] for word in (SAME, OTHER, UNDECIDED)}
        others = [
            f"{label(key)} ({share_of(difference / opd[key].mean())})"
            for key, difference in zip(found[OTHER]["quantity"], found[OTHER]["difference"], strict=True)
        ]
        lines.append(
            f"- `{arm}`, {scale}, {when}, {seeds(count)}, {len(own)} numbers. "
            f"**The same** in {len(found[SAME])}: {listed([*map(label, found[SAME]['quantity'])])}. "
            f"**Another** in {len(others)}: {listed(others)}. "
            f"**Undecided** in {len(found[UNDECIDED])}."
        )
    return "\n".join(lines) or f"- {scale}, {when}: no arm can be compared with OPD."


def sizes(effects: pd.DataFrame, scale: str) -> str:
    """Which of data and loss moves more numbers, and which moves them further."""
    main = effects[effects["effect"].isin(MAIN)].dropna(subset=["low"])
    if main.empty:
        return f"**{scale}**: the four corners have no two seeds in common, so that data and loss cannot be separated."
    shown = main[(main["low"] != main["high"])]
    wide = shown.pivot_table(index="quantity", columns="effect", values="share").reindex(columns=[*MAIN])
    moved = {effect: int(((own["low"] > 0) | (own["high"] < 0)).sum()) for effect, own in shown.groupby("effect")}
    larger = int((wide["loss"].abs() > wide["data"].abs()).sum())
    largest = {effect: str(wide[effect].abs().idxmax()) for effect in ("data", "loss")}
    texts = [f"{effect} {share_of(wide[effect][key])} ({label(key)})" for effect, key in largest.items()]
    return (
        f"**{scale}**, {seeds(int(main['seeds'].min()))}, {len(wide)} numbers that vary. The interval excludes 0 in "
        f"{moved.get('data', 0)} for the data, in {moved.get('loss', 0)} for the loss and in "
        f"{moved.get('interaction', 0)} for their interaction. The loss moves {larger} numbers further than the data "
        f"does, and the data {len(wide) - larger}. The largest mean effects: {listed(texts)}."
    )


def _arms(accuracy: pd.DataFrame, word: str) -> list[str]:
    own = accuracy[accuracy["learned"] == word]
    return [f"`{arm}`" for arm in own["arm"]]


def norms(table: Mapping[str, pd.Series]) -> str:
    """At which relative norms arms are compared, and in how many seeds."""
    parts = []
    for when, norm in table.items():
        known = norm.dropna()
        mean = f", {written('rel_norm', float(known.mean()))} on average" if len(known) else ""
        parts.append(f"{when}: {seeds(len(known))}{mean}")
    return "; ".join(parts) + "."


def correlations(found: Mapping[str, float]) -> str:
    """Rank correlations of the paper's numbers with the relative norm."""
    parts = [f"{label(key)} {value:+.2f}" for key, value in found.items() if key != "rel_norm"]
    return f"Spearman's rank correlation with the relative norm: {listed(parts)}."
