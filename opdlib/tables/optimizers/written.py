"""The tables of the optimizer ablation as text. For display only: numbers are rounded, and a dash is undefined."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import pandas as pd

from opdlib.quantities import short, written
from opdlib.registry.study import FULL
from opdlib.tables import study
from opdlib.tables.optimizers.cells import by, cell, difference, heading, label, names
from opdlib.tables.optimizers.state import WHEN, published_state
from opdlib.tables.optimizers.sweep import DELTA, OPTIMIZERS, published, wide
from opdlib.tables.text import number, percent, probability, with_interval

TINY = "< 0.0001"
"""What is written of a smaller p value."""


def recipes(scale: str, arms: pd.DataFrame) -> pd.DataFrame:
    """Every arm of the sweep: what it takes, how many seeds it has, and the command for those that are missing."""
    momentum = {"adamw": "0.9", "rmsprop": "none", "sgd": "none", "sgdm": "0.9"}
    rows = [
        {
            "arm": a["arm"],
            "optimizer": OPTIMIZERS[a["optimizer"]],
            "rate": short(a["learning_rate"]),
            "momentum": momentum[a["optimizer"]],
            "scaled by sqrt(v)": "yes" if a["optimizer"] in ("adamw", "rmsprop") else "no",
            "gradient": "zero" if a["gradient"] == "zero" else "as it is",
            "clip": f"{a['clip']:g}",
            "clipped updates": percent(a["clipped"], 0),
            "updates": str(a["steps"]),
            "seeds": f"{a['runs']} of {a['planned']}" if a["runs"] else "not run",
            "missing": f"opd study {scale} --arms {a['arm']}" if a["runs"] < a["planned"] else "",
        }
        for a in arms.to_dict("records")
    ]
    table = study.text_table(rows, "arm")
    return table if any(table["missing"]) else table.drop(columns="missing")


def accuracies(runs: pd.DataFrame, tests: pd.DataFrame, arms: pd.DataFrame) -> pd.DataFrame:
    """Accuracy of every arm with runs, and its paired difference from `opd` (`compared.paired`)."""
    tested = {
        arm: {
            f"minus {FULL}": difference(t["difference"], t["low"], t["high"]),
            "p": probability(t["p"], tiny=TINY),
            "p, Holm": probability(t["holm"], tiny=TINY),
            "so it is": str(t["verdict"]),
        }
        for arm, t in by(tests, "arm").items()
    }
    rows = [
        {"arm": names(arms)[row["arm"]], "seeds": str(row["seeds"]), "accuracy": cell("accuracy", row)}
        | tested.get(row["arm"], {})
        for row in wide(runs, ["accuracy"]).to_dict("records")
    ]
    return study.text_table(rows, "arm")


def best(table: pd.DataFrame) -> pd.DataFrame:
    """Each optimizer at its best rate (`best.best`)."""
    edge = {"low": "smallest", "high": "largest", "": "inside"}
    rows = [
        {
            "optimizer": OPTIMIZERS[b["optimizer"]],
            "best rate": short(b["learning_rate"]),
            "of": f"{b['rates']} of {b['swept']} rates",
            "its place": edge[b["edge"]] if b["rates"] > 1 else "the only one",
            "seeds": str(b["seeds"]),
            "accuracy": cell("accuracy", b | {"value": b["accuracy"]}),
            "rate chosen on other seeds": written("accuracy", b["unseen"]),
        }
        for b in table.to_dict("records")
    ]
    return study.text_table(rows, "optimizer")


def grid(table: pd.DataFrame, arms: pd.DataFrame) -> pd.DataFrame:
    """`compared.grid` as a square: the first arm in rows, the second in columns, with who is ahead."""
    called, rows = names(arms), []
    for first in dict.fromkeys(table["first"]):
        own = table[table["first"] == first].to_dict("records")
        told = {f"minus {called[r['second']]}": difference(r["difference"], r["low"], r["high"]) for r in own}
        rows.append({"accuracy of": called[first]} | told)
    return study.text_table(rows, "accuracy of")


def momentum(table: pd.DataFrame, arms: pd.DataFrame) -> pd.DataFrame:
    """Accuracy with momentum minus without, at matching rates (`compared.momentum`)."""
    called = names(arms)
    rows = [
        {"with": called[row["with"]], "without": called[row["without"]], "seeds": str(row["seeds"])}
        | {"accuracy": difference(row["difference"], row["low"], row["high"])}
        for row in table.to_dict("records")
    ]
    return study.text_table(rows, "with")


def states(table: pd.DataFrame, arms: pd.DataFrame, quantity: str) -> pd.DataFrame:
    """The state of AdamW at each rate (`state.states` of one of `STATES`), the paper's in the first row."""
    paper, rate = published_state(quantity), published()["learning_rate"].iloc[0]
    first = {"arm": f"paper, {label('adamw', float(rate))}", "seeds": "1"}
    scaled = arms[(arms["optimizer"] == "adamw") & (arms["gradient"] != "zero")]
    own = table[table["quantity"] == quantity].assign(quantity=table["when"])
    rows = _by_arm(own, scaled, dict(zip(WHEN, WHEN, strict=True)), _state)
    shown = study.text_table([first | {when: number(paper[when], ".3f") for when in WHEN}, *rows], "arm")
    return shown.rename_axis(columns="run")


def numbers(table: pd.DataFrame, arms: pd.DataFrame, quantities: Sequence[str] = DELTA) -> pd.DataFrame:
    """Mean and interval of each quantity for each arm with runs; `table` is that of `study.over_seeds`."""
    return study.text_table(_by_arm(table, arms, {q: heading(q) for q in quantities}, cell), "arm")


def gaps(table: pd.DataFrame, arms: pd.DataFrame, quantities: Sequence[str]) -> pd.DataFrame:
    """Differences in shares, in percentage points, for each arm (`compared.beside_adamw`)."""
    headings = {q: heading(q) for q in quantities}
    rows = _by_arm(table, arms, headings, lambda _, row: difference(row["value"], row["low"], row["high"]))
    return study.text_table(rows, "arm")


def ways(table: pd.DataFrame, arms: pd.DataFrame) -> pd.DataFrame:
    """Step length, distance and straightness of each arm (`sweep.steps_taken`)."""
    columns = {name: name.replace("_", " ") for name in ("step_length", "distance", "straightness")}
    rows = _by_arm(study.over_seeds(table, [*columns]), arms, columns, lambda _, row: number(row["value"], ".3g"))
    return study.text_table([{k: v for k, v in row.items() if k != "seeds"} for row in rows], "arm")


def _state(_: str, row: Mapping[str, Any]) -> str:
    return with_interval(row["value"], row["low"], row["high"], partial(number, form=".3f"))


def _by_arm(
    table: pd.DataFrame, arms: pd.DataFrame, headings: Mapping[str, str], write: Callable[[str, Mapping[str, Any]], str]
) -> list[dict[str, str]]:
    """A row of text for each arm of a table of `study.over_seeds`: what it is called, its seeds, and for each quantity
    of `headings` what `write` makes of it."""
    called, rows = names(arms), []
    for arm in [a for a in arms["arm"] if a in set(table["arm"])]:
        own = by(table[table["arm"] == arm], "quantity")
        row = {"arm": called[arm], "seeds": str(int(max(r["seeds"] for r in own.values())))}
        rows.append(row | {heading: write(quantity, own[quantity]) for quantity, heading in headings.items()})
    return rows
