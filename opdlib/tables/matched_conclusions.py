"""What may and what may not be concluded from the matched arms, in sentences computed from the tables."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pandas as pd

from opdlib.tables import matched_paper
from opdlib.tables.matched import LONG, PARTNER
from opdlib.tables.matched_counts import LEVEL, counted
from opdlib.tables.matched_words import listed, seeds
from opdlib.tables.paper import OPD_STYLE
from opdlib.tables.quantities import written
from opdlib.tables.study import OTHER, SAME
from opdlib.tables.summary_names import name


def equal_norm(end: pd.DataFrame, at: Mapping[str, pd.DataFrame], error: Mapping[str, float], scale: str) -> str:
    """What becomes of the differences at the end when the arms are compared at equal relative norm.

    `at`: comparisons at several norms by what the norm is; a number is settled if all of them say the same. `error`:
    `matched_norm.middle_error`.
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
        text = (
            f"- `{arm}`, {scale}, {seeds(count)} at each of {len(tables)} norms: of the "
            f"{int((before == OTHER).sum())} numbers that are another at the end, {len(gone)} are the same at every "
            f"norm ({listed([*map(name, gone)])}). At every norm, {int((settled == SAME).sum())} of {len(words)} are "
            f"the same and {len(others)} another: {listed([*map(name, others)])}."
        )
        if small:
            text += f" Of the latter, no more than the interpolation may be off: {listed([*map(name, small)])}."
        lines.append(text)
    return "\n".join(lines) or f"- {scale}: no arm can be compared with OPD at equal norm."


def _within(tables: Mapping[str, pd.DataFrame], key: str, error: Mapping[str, float]) -> bool:
    """Whether the difference is smaller than a quarter of the middle step's error, at some norm."""
    return any(abs(float(table["difference"][key])) <= error.get(key, math.nan) / 4 for table in tables.values())


def rate(factors: pd.DataFrame, part: pd.Series, scale: str) -> str:
    """How much of the contrast between offline distillation and OPD rate and length alone make."""
    wide = factors.pivot_table(index="quantity", columns="change", values="value") if len(factors) else pd.DataFrame()
    if "all of it" not in wide:
        return f"**{scale}**: `{LONG}` was not run, so that rate and length cannot be told from data and loss."
    texts = []
    for key in [key for key in factors["quantity"].drop_duplicates() if key in wide.index]:
        row = wide.loc[key]
        paper = f", the paper's contrast {row['paper']:.3g}" if row.get("paper", math.nan) > 0 else ""
        share = part.get(key, math.nan)
        alone = (
            f" (rate and length make {share:.0%} of the whole, on a logarithmic scale)" if math.isfinite(share) else ""
        )
        texts.append(
            f"{name(key)}: data and loss {row['data and loss']:.3g}, rate and length {row['rate and length']:.3g}"
            f"{alone}{paper}"
        )
    count = int(factors[factors["change"] == "all of it"]["seeds"].max())
    return f"**{scale}**, {seeds(count)}, factors. " + "; ".join(texts) + "."


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
    named = [f"{name(key)} (`{arm}`)" for arm, key in zip(opposite["arm"], opposite["quantity"], strict=True)]
    return (
        f"**{scale}**: the two views give one verdict in {len(agree)} of {len(both)} comparisons. The same in one view "
        f"and another in the other: {listed(named)}."
    )


def chance(differences: pd.DataFrame, scale: str) -> str:
    """How many tests there were, how many were another, and how many chance would give."""
    counts = counted(differences)
    tested = int(counts["tested"].sum()) if len(counts) else 0
    if not tested:
        return f"**{scale}**: no interval, so no test."
    return (
        f"**{scale}**: {tested} differences were tested ({len(counts)} arms, {seeds(int(counts['seeds'].min()))}); "
        f"{int(counts[OTHER].sum())} are another. If no number differed, up to {LEVEL * tested:.0f} intervals of "
        f"{1 - LEVEL:.0%} would exclude 0. With intervals so wide that over all {tested} tests one false alarm has a "
        f"probability of at most {LEVEL:.0%}, {int(counts['strict'].sum())} remain another."
    )


def data_against_paper(effects: pd.DataFrame, factors: pd.DataFrame, opd: Mapping[str, float], scale: str) -> str:
    """The largest change of each number that the data alone may make, by the ends of its interval, beside the paper's
    contrast. `opd`: OPD's mean by quantity."""
    own = effects[(effects["effect"] == "data")].dropna(subset=["low"]).set_index("quantity")
    paper = factors[factors["change"] == "paper"].set_index("quantity")["value"] if len(factors) else pd.Series()
    keys = [str(key) for key in own.index if key in paper.index and opd.get(str(key))]
    if not keys:
        return f"- {scale}: the effect of the data has no interval, so nothing is concluded about it."
    texts = []
    for key in keys:
        low, high = (1 + float(own[end].loc[[key]].iloc[0]) / opd[key] for end in ("low", "high"))
        texts.append(f"{name(key)} by {low:.3g} to {high:.3g} (paper's contrast: {paper[key]:.3g})")
    return (
        f"- {scale}, {seeds(int(own['seeds'].min()))}: with loss, rate, length and batch held equal, training on the "
        f"teacher's samples instead of the student's multiplies {'; '.join(texts)}. Ranges are the 95% intervals."
    )


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
        f"- {scale}: mean accuracy of the matched arms lies between {written('', worst['accuracy'])} "
        f"(`{worst['arm']}`) and {written('', best['accuracy'])} (`{best['arm']}`); the source has "
        f"{written('', best['source'])}."
    )


def beyond_the_range(runs: pd.DataFrame, scale: str) -> str:
    """Whether this scale says anything about the paper's sparse regime."""
    own = runs[runs["arm"] == PARTNER]
    if own.empty:
        return f"- {scale}: anything. OPD was not run."
    pairs = matched_paper.rows(["exact_zero"])
    low = float(pairs[pairs["regime"].isin(OPD_STYLE)]["exact_zero"].min())
    mean = float(own["exact_zero"].mean())
    least, here = written("exact_zero", low), written("exact_zero", mean)
    if mean < low:
        return (
            f"- {scale}: how sparse OPD is, or what holds where most weights stay. OPD leaves {here} unchanged here, "
            f"and the least sparse of the paper's OPD-style pairs {least}."
        )
    return (
        f"- {scale}: what holds far from this density. OPD leaves {here} unchanged here, within or above the paper's "
        f"range, which begins at {least}."
    )
