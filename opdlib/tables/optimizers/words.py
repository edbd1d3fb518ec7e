"""Sentences on the optimizer ablation that were computed: true for whatever runs there are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from opdlib.quantities import as_text
from opdlib.registry.study import FULL
from opdlib.tables import paper, study
from opdlib.tables.optimizers.cells import difference, names
from opdlib.tables.optimizers.sweep import OPTIMIZERS, ZERO
from opdlib.tables.text import listed, points, seeds


def there(scale: str, arms: pd.DataFrame) -> str:
    """How many of the planned runs there are, and which arms have none."""
    without = arms[arms["runs"] == 0]
    told = f"Of {arms['planned'].sum()} planned runs at scale `{scale}`, **{arms['runs'].sum()}** are there."
    if without.empty:
        return f"{told} Every arm has runs."
    return f"{told} Arms without any: {', '.join(f'`{arm}`' for arm in without['arm'])}."


def regime(scale: str, runs: pd.DataFrame) -> str:
    """How far `opd` moves this model and how much of it changes, beside the paper's OPD-style pairs."""
    own = runs[runs["arm"] == FULL]
    if own.empty:
        return f"No run of `{FULL}` at scale `{scale}` is there, so nothing can be said of its size."
    published = paper.overview()
    pairs = published[published["regime"].isin(paper.OPD_STYLE)]
    norm, changed = own["rel_norm"].mean(), 1 - own["exact_zero"].mean()
    return (
        f"In this model (`{scale}`) `{FULL}` changes the weights by {_p('norm', norm)} of their norm (mean of "
        f"{seeds(len(own))}), and {_p('share', changed)} of the weights differ in bf16. In the paper's OPD-style "
        f"pairs the norm is {_span('norm', pairs['rel_norm'])}, and {_span('share', 1 - pairs['exact_zero'])} of "
        f"the weights differ: the changes here are {norm / pairs['rel_norm'].max():.1f} to "
        f"{norm / pairs['rel_norm'].min():.1f} times as large."
    )


def clipping(arms: pd.DataFrame) -> str:
    """How often the gradient was longer than the clip, and what that makes of a step of SGD."""
    known = arms.dropna(subset=["clipped"])
    known = known[known["gradient"] != "zero"]
    if known.empty:
        return "No gradient norms were logged."
    least = known.sort_values("clipped").iloc[0]
    often = (
        "In every update of every arm that has runs"
        if least["clipped"] == 1
        else f"In {_p('share', least['clipped'])} or more of the updates of every arm that has runs"
    )
    return (
        f"{often}, the gradient was longer than the clip of {least['clip']:g}. It is then cut to that length, and a "
        f"step of SGD is exactly {'' if least['clip'] == 1 else 'the clip times '}the learning rate long."
    )


def winners(chosen: pd.DataFrame) -> str:
    """Which optimizers have their best rate at an edge of what was swept, or nothing to choose from."""
    if chosen.empty:
        return "No optimizer has runs."
    edges = [OPTIMIZERS[o] for o in chosen[chosen["edge"] != ""]["optimizer"]]
    single = [OPTIMIZERS[o] for o in chosen[chosen["rates"] == 1]["optimizer"]]
    told = []
    if edges:
        told.append(f"The best rate is at an edge of the sweep for {listed(edges)}: a better one may lie beyond.")
    if single:
        told.append(f"Only one rate has runs for {listed(single)}.")
    return " ".join(told) or "No optimizer has its best rate at an edge of the sweep."


def grid(table: pd.DataFrame) -> str:
    """In how many pairs of rates AdamW is ahead of SGD, and in how many SGD is (`compared.grid`)."""
    if table.empty:
        return "There are no runs of both AdamW and SGD."
    other = table["verdict"] == study.OTHER
    ahead, behind = int((other & (table["difference"] > 0)).sum()), int((other & (table["difference"] < 0)).sum())
    same = int((table["verdict"] == study.SAME).sum())
    return (
        f"Of {len(table)} pairs of one rate each, AdamW is ahead of SGD in **{ahead}**, SGD of AdamW in **{behind}**; "
        f"in {same} they are the same and in {len(table) - ahead - behind - same} it is undecided."
    )


def against(table: pd.DataFrame, arms: pd.DataFrame) -> str:
    """The differences of `best.best_pairs`, each as a sentence with its verdict."""
    if table.empty:
        return "No two optimizers that are to be compared have runs."
    called = names(arms)
    told = [
        f"- {OPTIMIZERS[r['first']]} against {OPTIMIZERS[r['second']]} ({r['what']}"
        f"{'; over the rates that match' if r['matched'] else ''}): "
        f"{difference(r['difference'], r['low'], r['high'])} points over {seeds(int(r['seeds']))}, **{_ahead(r)}**. "
        f"Best rates: {called[r['arm']]} and {called[r['other']]}."
        for r in table.to_dict("records")
    ]
    return "\n".join(told)


def momentum(table: pd.DataFrame) -> str:
    """At how many matching rates momentum adds accuracy (`compared.momentum`)."""
    told = []
    for kind, name in {"rmsprop": "Where there is scaling", "sgd": "Where there is no scaling"}.items():
        own = table[table["kind"] == kind]
        if len(own):
            told.append(f"{name}, {_clear(own.rename(columns={'difference': 'value'}))}.")
    return " ".join(told) or "No two matching arms have runs."


def unchanged(table: pd.DataFrame, arms: pd.DataFrame) -> str:
    """How many weights each optimizer left as they were, at the rates with the smallest and the largest share."""
    own = table[(table["quantity"] == "exact_zero") & (table["seeds"] > 0)]
    called, told = names(arms), []
    for optimizer in [o for o in OPTIMIZERS if o in set(own["optimizer"])]:
        rates = own[own["optimizer"] == optimizer].sort_values("value")
        ends = [rates.iloc[0], rates.iloc[-1]] if len(rates) > 1 else [rates.iloc[0]]
        told.append(" to ".join(f"{_p('share', end['value'])} ({called[end['arm']]})" for end in ends))
    return f"Unchanged in bf16, means over seeds: {'; '.join(told)}." if told else "No run of any arm is there."


def beside(gaps: pd.DataFrame, arms: pd.DataFrame) -> str:
    """What other optimizers have at AdamW's norm (`compared.beside_adamw`): accuracy, unchanged weights."""
    told = []
    for quantity, name in {"accuracy": "Accuracy", "exact_zero": "Unchanged weights"}.items():
        own = gaps[(gaps["quantity"] == quantity) & (gaps["seeds"] > 0)].merge(arms[["arm", "optimizer"]], on="arm")
        for optimizer in [o for o in OPTIMIZERS if o in set(own["optimizer"])]:
            told.append(f"- {name}, {OPTIMIZERS[optimizer]}: {_clear(own[own['optimizer'] == optimizer])}.")
    return "\n".join(told) or "No run of another optimizer ends at a norm that AdamW had."


def zero(runs: pd.DataFrame) -> str:
    """What `adam-zero` changed. `runs`: `study.runs`, in either view."""
    own = runs[runs["arm"] == ZERO]
    if own.empty:
        return f"`{ZERO}` has not been run."
    moved = int((own["rel_norm"] != 0).sum())
    if moved:
        return f"**{moved} of {len(own)} runs changed weights**, by up to {own['rel_norm'].max():.2e} of their norm."
    return (
        f"Over {seeds(len(own))} not one weight changed: {_p('share', own['exact_zero'].min())} of them are "
        "exactly what they were. Without a delta there is no spectrum, no projection and no coverage."
    )


def _clear(table: pd.DataFrame) -> str:
    """The span of some differences, and how many of their intervals exclude zero."""
    least, most = (points(x, plain=True) for x in (table["value"].min(), table["value"].max()))
    above, below = int((table["low"] > 0).sum()), int((table["high"] < 0).sum())
    span = f"{least} points at the only rate" if len(table) == 1 else f"{least} to {most} points at {len(table)} rates"
    return f"{span}; the interval is above zero at {above}, below zero at {below}"


def _ahead(row: Mapping[Any, Any]) -> str:
    if row["verdict"] == study.OTHER:
        return f"{OPTIMIZERS[row['first' if row['difference'] > 0 else 'second']]} is ahead"
    return str(row["verdict"])


def _span(kind: str, values: pd.Series) -> str:
    return f"{_p(kind, values.min())} to {_p(kind, values.max())}"


def _p(kind: str, value: float) -> str:
    return as_text(kind, float(value))
