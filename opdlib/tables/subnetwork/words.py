"""Sentences that were computed, for the page on masked training: true for any runs, silent where there are none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from opdlib.quantities import MISSING, short
from opdlib.registry.study import FULL
from opdlib.tables import paper
from opdlib.tables.paper import OPD_STYLE
from opdlib.tables.subnetwork.compared import ABOVE, BELOW
from opdlib.tables.subnetwork.masked import MAGNITUDE, OWN, RANDOM, TRAINS, outside
from opdlib.tables.text import interval, listed, percent, points, seeds

ALONE = "A single seed has no interval, so nothing is decided."


def there(standing: pd.DataFrame, scale: str) -> str:
    """How many runs this page rests on, and what is missing."""
    planned, finished = int(standing["planned"].sum()), int(standing["finished"].sum())
    without = standing[(standing["finished"] == 0) & (standing["planned"] > 0)]["trains"]
    text = f"Scale `{scale}`: {finished} of {planned} runs are there."
    return f"{text} Not run: {listed(list(without))}." if len(without) else text


def regime(runs: pd.DataFrame, scale: str) -> str:
    """How far full OPD goes and how much it changes, beside the paper's OPD-style pairs."""
    own = runs[runs["arm"] == FULL]
    if own.empty:
        return f"Scale `{scale}`: full OPD was not run, so there is nothing to compare with."
    style = paper.overview()
    style = style[style["regime"].isin(OPD_STYLE)]
    norm, changed = float(own["rel_norm"].mean()), float(own["changed"].mean())
    low, high = float(1 - style["exact_zero"].max()), float(1 - style["exact_zero"].min())
    inside = low <= changed <= high
    return (
        f"At scale `{scale}`, full OPD ({seeds(len(own))}) moves the weights by {percent(norm, 3)} of their norm and "
        f"changes {percent(changed)} of them in bf16. The paper's six OPD-style pairs: "
        f"{percent(style['rel_norm'].min(), 3)} to {percent(style['rel_norm'].max(), 3)}, and {percent(low)} to "
        f"{percent(high)}. So this scale **is {'' if inside else 'not '}in the paper's sparse regime**"
        f"{'' if inside else ': it compares arms, and its densities are not those of the paper'}."
    )


def thresholds(masks: pd.DataFrame, overlaps: pd.DataFrame) -> str:
    """How many weights the masks hold, at the thresholds of the recipes and at the paper's."""
    parts = [
        f"above {short(float(own['threshold'].iloc[0]))}, {TRAINS[str(arm)]}: "
        f"{percent(float((own['inside'] / own['parameters']).mean()))} of the weights"
        for arm, own in masks[masks["kind"] == "delta"].groupby("arm", sort=False)
    ]
    if not parts:
        return "The masks were not counted yet; `opd study SCALE --overlaps` does it where the weights are."
    text = f"What the delta masks hold: {'; '.join(parts)}."
    at = overlaps[(overlaps["atol"] - 1e-5).abs() < 1e-9]["density_a"]
    return f"{text} Above the paper's 1e-5, full OPD's delta holds {percent(float(at.mean()))}." if len(at) else text


def untouched(runs: pd.DataFrame) -> str:
    """Whether anything outside of a mask moved."""
    counted = int(runs["moved_outside"].notna().sum())
    if not counted:
        return "Whether the runs stayed inside their masks was not counted yet."
    return f"In {counted} runs inside a mask, {outside(runs):.0f} weights outside of it moved in bf16."


def special(paired: pd.DataFrame) -> str:
    """Whether the own mask does better than masks that know less about the delta."""
    parts = []
    for arm, partner, better, no_better in (
        (
            *(OWN, RANDOM),
            "which weights are trained matters, and not only how many of each tensor",
            "nothing here makes the own mask more than a mask of this density",
        ),
        (
            *(OWN, MAGNITUDE),
            "the size of its weights does not explain the own mask",
            "a mask that knows the sizes of the weights alone does at least as well, as far as these runs tell",
        ),
        (
            *(MAGNITUDE, RANDOM),
            "the size of the weights accounts for a part",
            "matching the sizes of the weights gains nothing over a plain random mask, as far as these runs tell",
        ),
    ):
        row = _row(paired, arm, partner)
        if row is not None:
            told = f"So {better if row['verdict'] == ABOVE else no_better}."
            parts.append(f"- {_compared(row)} {told if row['seeds'] > 1 else ALONE}")
    return "\n".join(parts) or "The own mask and a random one were not both trained in, so nothing is said."


def recovered(means: pd.DataFrame) -> str:
    """The share of full OPD's gain that each mask keeps."""
    own = means[(means["arm"] != FULL) & means["kept"].notna()]
    if own.empty:
        return "No mask can be set beside full OPD yet."
    shares = [f"{percent(row['kept'], 0)} ({row['trains']})" for row in own.to_dict("records")]
    return f"Of full OPD's gain over the source, the masks keep {listed(shares)}."


def travelled(ends: pd.DataFrame) -> str:
    """What is left of the differences when full OPD is taken where it had come as far."""
    own = ends[ends["seeds"] > 0]
    if own.empty:
        return "The distance was not recorded on the way, so runs cannot be set beside each other at the same distance."
    below = own["verdict"] == BELOW
    if below.all():
        return "A shorter way alone does not explain what the masks lack: all are below full OPD at the same distance."
    ahead = ~below & (own["difference"] > 0)
    told = {
        "Below full OPD at the same distance, so that a shorter way alone does not explain what is lacking": below,
        "On average ahead of full OPD at the same distance, so that nothing is lacking there": ahead,
        "Not clearly below full OPD at the same distance, so that a shorter way may explain what is lacking": (
            ~below & ~ahead
        ),
    }
    groups = {what: [TRAINS[arm] for arm in own[those]["arm"]] for what, those in told.items()}
    return " ".join(f"{what}: {listed(names)}." for what, names in groups.items() if names)


def concluded(means: pd.DataFrame, paired: pd.DataFrame) -> str:
    """What was found of masked training in a sentence or two: what is kept, and what the own mask is ahead of."""
    kept = dict(zip(means["arm"], means["kept"], strict=True))
    found = {partner: _row(paired, OWN, partner) for partner in (RANDOM, MAGNITUDE)}
    told = [row["verdict"] for row in found.values() if row is not None]
    alone = all(row["seeds"] < 2 for row in found.values() if row is not None)
    if OWN not in kept or not told:
        return "Masked training: the own mask has no control to be set beside, so nothing is concluded."
    controls = [f"{percent(kept[arm], 0)} inside {TRAINS[arm]}" for arm, row in found.items() if row is not None]
    text = f"Of full OPD's gain, {percent(kept[OWN], 0)} remain inside the own mask, {listed(controls)}."
    if alone:
        return f"{text} {ALONE}"
    ahead = set(told) == {ABOVE}
    verdict = "ahead of each of them" if ahead else "not ahead of each of them, as far as these runs tell"
    return f"{text} The own mask is {verdict}."


def printed(differences: pd.DataFrame) -> str:
    """The paper's differences in units of what the sampling of answers alone gives."""
    own = differences[differences["noise"].notna()]
    parts = [
        f"{row['run']} {points(row['difference'])} points, {abs(row['difference']) / row['noise']:.1f} standard errors"
        for row in own.to_dict("records")
    ]
    return f"The paper's math runs, one each, with a bound on what sampling the answers adds: {'; '.join(parts)}."


def _compared(row: Mapping[Any, Any] | pd.Series) -> str:
    ours, theirs = TRAINS[str(row["arm"])], TRAINS[str(row["partner"])]
    return (
        f"{ours} beside {theirs}: {points(float(row['difference']))} points{_interval(row)}, "
        f"{seeds(int(row['seeds']))}: **{row['verdict']}**."
    )


def _interval(row: Mapping[Any, Any] | pd.Series) -> str:
    ends = interval(float(row["low"]), float(row["high"]), points)
    return "" if ends == MISSING else f" ({ends})"


def _row(paired: pd.DataFrame, arm: str, partner: str) -> pd.Series | None:
    found = paired[(paired["arm"] == arm) & (paired["partner"] == partner)]
    return None if found.empty else found.iloc[0]
