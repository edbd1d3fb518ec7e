"""What may and what may not be concluded from the matched arms, in sentences computed from the tables."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial

import pandas as pd

from opdlib.quantities import label, written
from opdlib.registry.study import FULL
from opdlib.stats import LEVEL
from opdlib.tables.matched.arms import LONG
from opdlib.tables.matched.counts import counted
from opdlib.tables.matched.paper import part_of_rate, rows
from opdlib.tables.matched.words import JOINT, over_chance
from opdlib.tables.paper import OPD_STYLE
from opdlib.tables.study import OTHER, SAME
from opdlib.tables.text import listed, number, percent, seeds, with_interval


def equal_norm(end: pd.DataFrame, at: Mapping[str, pd.DataFrame], error: Mapping[str, float], scale: str) -> str:
    """What becomes of the differences at the end when the arms are compared at equal relative norm.

    `at`: comparisons at several norms by where that is (`at ...`); a number is settled if all of them say the same.
    `error`: `norm.middle_error`.
    """
    lines = []
    for arm, own in end[end["quantity"] != "rel_norm"].groupby("arm", sort=False):
        tables = {when: table[table["arm"] == arm].set_index("quantity") for when, table in at.items()}
        count = min((int(table["seeds"].min()) if len(table) else 0) for table in tables.values())
        if count < 2:
            lines.append(f"- `{arm}`, {scale}: {seeds(count)} at equal norm, so that nothing can be said.")
            continue
        words = pd.DataFrame({when: table["verdict"] for when, table in tables.items()})
        settled = words[words.eq(words.iloc[:, 0], axis=0).all(axis=1)].iloc[:, 0]
        others = [*settled[settled == OTHER].index]
        before = own.set_index("quantity")["verdict"]
        gone = [key for key in before[before == OTHER].index if settled.get(key) == SAME]
        small = [key for key in others if _within(tables, key, error)]
        left = {key: _left(own.set_index("quantity"), [*tables.values()][-1], key) for key in others}
        kept = [f"{label(key)} ({left[key]})" for key in others]
        agreed = f" ({listed([*map(label, gone)])})" if gone else ""
        text = (
            f"- `{arm}`, {scale}, {seeds(count)} at each of {len(tables)} norms. Another at the end: "
            f"{int((before == OTHER).sum())}, of which the same at every norm: {len(gone)}{agreed}. Of {len(words)} "
            f"numbers the same at every norm: {int((settled == SAME).sum())}; another at every norm: {len(others)}: "
            f"{listed(kept)}. (In brackets: the difference {[*tables][-1]}, as a part of that at the end.)"
        )
        if small:
            text += f" Of the latter, no more than the interpolation may be off: {listed([*map(label, small)])}."
        lines.append(text)
    return "\n".join(lines) or f"- {scale}: no arm can be compared with OPD at equal norm."


def _left(end: pd.DataFrame, at: pd.DataFrame, key: str) -> str:
    """What is left of the difference at the end, with its sign: 29%; a dash if there was none."""
    before, now = float(end["difference"].get(key, math.nan)), float(at["difference"][key])
    return percent(now / before if before else math.nan, 0)


def _within(tables: Mapping[str, pd.DataFrame], key: str, error: Mapping[str, float]) -> bool:
    """Whether the difference is smaller than a quarter of the middle step's error, at some norm."""
    return any(abs(float(table["difference"][key])) <= error.get(key, math.nan) / 4 for table in tables.values())


def rate(factors: pd.DataFrame, scale: str) -> str:
    """How much of the contrast between offline distillation and OPD rate and length alone make, and in which numbers
    they go the paper's way."""
    made = factors[(factors["change"] == "rate and length") & (factors["seeds"] > 0)].set_index("quantity")
    if made.empty:
        missing = f"**{scale}**: `{LONG}` has no run, so that nothing is said about rate and length."
        return f"{missing}{_data_and_loss(factors)}"
    data = factors[factors["change"] == "data and loss"].set_index("quantity")["value"]
    ours, paper = part_of_rate(factors), part_of_rate(factors, "paper")
    text = f"**{scale}**, {seeds(int(made['seeds'].max()))}."
    for key in [key for key in ("rel_norm", "sparsity.1e-05") if key in made.index]:
        text += (
            f" Data and loss multiply {label(key)} by {data[key]:.3g}, rate and length by {made['value'][key]:.3g}: "
            f"{ours[key]:.0%} of the whole on a logarithmic scale, and {paper[key]:.0%} of the paper's contrast."
        )
    shares = {
        way: [f"{label(str(key))} ({abs(share):.0%})" for key, share in paper[side].items()]
        for way, side in (("its way", paper > 0), ("the other way", paper < 0))
    }
    ways = "; ".join(f"{way}: {listed(parts)}" for way, parts in shares.items())
    return f"{text} Number by number, as a part of the paper's contrast on that scale, rate and length go {ways}."


def _data_and_loss(factors: pd.DataFrame) -> str:
    """What data and loss make by themselves of each number that the paper's contrast has."""
    own = factors[(factors["change"] == "data and loss") & (factors["seeds"] > 0)]
    whole = factors[factors["change"] == "paper"].set_index("quantity")["value"]
    told = [
        f"{label(r['quantity'])} by {with_interval(r['value'], r['low'], r['high'], partial(number, form='.3g'))} "
        f"where the paper's contrast is {whole[r['quantity']]:.3g}"
        for r in own.to_dict("records")
        if r["quantity"] in whole.index
    ]
    return f" Data and loss alone, {seeds(int(own['seeds'].max()))}, multiply {'; '.join(told)}." if told else ""


def views(bf16: pd.DataFrame, stored: pd.DataFrame, scale: str) -> str:
    """In how many numbers the two views give the same verdict."""
    keys = ["arm", "quantity"]
    both = bf16.dropna(subset=["low"]).merge(stored.dropna(subset=["low"]), on=keys, suffixes=("_bf16", "_stored"))
    if both.empty:
        return f"**{scale}**: no arm can be compared with OPD in both views."
    agree = both[both["verdict_bf16"] == both["verdict_stored"]]
    opposite = both[both["verdict_bf16"].isin([SAME, OTHER]) & both["verdict_stored"].isin([SAME, OTHER])].drop(
        agree.index, errors="ignore"
    )
    named = [f"{label(key)} (`{arm}`)" for arm, key in zip(opposite["arm"], opposite["quantity"], strict=True)]
    return (
        f"**{scale}**: the two views give one verdict in {len(agree)} of {len(both)} comparisons. The same in one view "
        f"and another in the other: {listed(named)}."
    )


def chance(differences: pd.DataFrame, scale: str) -> str:
    """How many tests there were, how many were another, and how many chance would give."""
    every = counted(differences)
    counts = every[every["tested"] > 0] if len(every) else every
    if counts.empty:
        return f"**{scale}**: no interval, so no test."
    tested = int(counts["tested"].sum())
    return (
        f"**{scale}**: {tested} differences were tested ({len(counts)} arms, {seeds(int(counts['seeds'].min()))}); "
        f"{int(counts[OTHER].sum())} are another. If no number differed, up to {LEVEL * tested:.0f} intervals of "
        f"{1 - LEVEL:.0%} would exclude 0. With intervals so wide that over all {tested} tests one false alarm has a "
        f"probability of at most {LEVEL:.0%}, {int(counts['strict'].sum())} remain another."
    )


def against_paper(effects: pd.DataFrame, factors: pd.DataFrame, opd: Mapping[str, float], scale: str) -> str:
    """By what each of data and loss alone multiplies OPD's numbers, by the ends of the interval, beside the paper's
    contrast. `opd`: OPD's mean by quantity. Where a scale lacks a corner, the effect that it does have is taken."""
    paper = factors[factors["change"] == "paper"].set_index("quantity")["value"]
    lines = []
    for effect, (candidates, change) in INSTEAD.items():
        known = [own for own in candidates if effects[effects["effect"] == own]["low"].notna().any()]
        if not known:
            lines.append(f"- {scale}: the effect of the {effect} has no interval, so nothing is concluded about it.")
            continue
        own = effects[effects["effect"] == known[0]].dropna(subset=["low"]).set_index("quantity")
        texts = []
        for key in [key for key in paper.index if key in own.index and opd.get(str(key))]:
            low, high = (1 + float(own[end][key]) / opd[str(key)] for end in ("low", "high"))
            texts.append(f"{label(str(key))} by {low:.3g} to {high:.3g} (paper's contrast: {paper[key]:.3g})")
        lines.append(
            f"- {scale}, {seeds(int(own['seeds'].min()))}: all else equal, {change} ({known[0]}) multiplies "
            f"{'; '.join(texts)}. The ranges are 95% intervals."
        )
    return "\n".join(lines)


INSTEAD = {
    "data": (("data", "data, under reverse KL"), "training on the teacher's samples instead of the student's"),
    "loss": (("loss", "loss, on teacher samples"), "cross-entropy instead of reverse KL"),
}
"""Effect -> the effects that stand for it, the best first, and what is changed."""


def undecided_is_not_the_same(differences: Sequence[pd.DataFrame], scale: str) -> str:
    """How many comparisons stay undecided, and with how many seeds."""
    table = pd.concat(differences) if differences else pd.DataFrame()
    if table.empty or table["low"].notna().sum() == 0:
        return f"- {scale}: nothing about sameness. There are not two seeds of any two arms."
    open_ones = int((~table["verdict"].isin([SAME, OTHER])).sum())
    return (
        f"- {scale}: that two arms are equal where the verdict is undecided. That is so in {open_ones} of {len(table)} "
        f"comparisons, with at most {seeds(int(table['seeds'].max()))}."
    )


def accuracy_gap(accuracy: pd.DataFrame, arms: Sequence[str], scale: str) -> str:
    """The lowest and highest mean accuracy among these arms."""
    own = accuracy[accuracy["arm"].isin([*arms])]
    if len(own) < 2:
        return f"- {scale}: fewer than two of the arms have an accuracy."
    ordered = own.sort_values("accuracy")
    best, worst = ordered.iloc[-1], ordered.iloc[0]
    return (
        f"- {scale}: mean accuracy of the matched arms lies between {written('accuracy', worst['accuracy'])} "
        f"(`{worst['arm']}`) and {written('accuracy', best['accuracy'])} (`{best['arm']}`); the source has "
        f"{written('accuracy', best['source'])}."
    )


def beyond_the_range(runs: pd.DataFrame, scale: str) -> str:
    """Whether this scale says anything about the paper's sparse regime."""
    own = runs[runs["arm"] == FULL]
    if own.empty:
        return f"- {scale}: anything. OPD was not run."
    pairs = rows(["exact_zero"])
    low = float(pairs[pairs["regime"].isin(OPD_STYLE)]["exact_zero"].min())
    mean = float(own["exact_zero"].mean())
    least, here, times = written("exact_zero", low), written("exact_zero", mean), over_chance(own)
    joint = "" if math.isnan(times) else f" The {label(JOINT)} is {times:.2g} times chance here"
    where = f"{joint}: nothing here shows an update that avoids the leading directions." if times > 1 else f"{joint}."
    if mean < low:
        return (
            f"- {scale}: how sparse OPD is, or what holds where most weights stay. OPD leaves {here} unchanged here, "
            f"and the least sparse of the paper's OPD-style pairs {least}.{where if joint else ''}"
        )
    return (
        f"- {scale}: what holds far from this density. OPD leaves {here} unchanged here, within or above the paper's "
        f"range, which begins at {least}.{where if joint else ''}"
    )
