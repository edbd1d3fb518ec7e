"""The tables of the optimizer ablation as text. For display only: numbers are rounded, and a dash is undefined."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import pandas as pd

from opdlib.quantities import short, written
from opdlib.tables import study
from opdlib.tables.optimizers.arms import BASE, DELTA, OPTIMIZERS, published, wide
from opdlib.tables.optimizers.cells import by, cell, difference, heading, label, most_seeds, names, table_of
from opdlib.tables.optimizers.state import WHEN, published_state
from opdlib.tables.text import number, percent, probability, with_interval
from opdlib.tables.written import headed

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
    table = headed(pd.DataFrame(rows).set_index("arm"))
    return table if any(table["missing"]) else table.drop(columns="missing")


def accuracies(runs: pd.DataFrame, tests: pd.DataFrame, arms: pd.DataFrame) -> pd.DataFrame:
    """Accuracy of every arm with runs, and its paired difference from `opd` (`compared.paired`)."""
    tested = by(tests, "arm")
    rows = []
    for row in wide(runs, ["accuracy"]).to_dict("records"):
        shown = {"arm": names(arms)[row["arm"]], "seeds": str(row["seeds"]), "accuracy": cell("accuracy", row)}
        if row["arm"] in tested:
            t = tested[row["arm"]]
            shown |= {f"minus {BASE}": difference(t["difference"], t["low"], t["high"])}
            shown |= {
                "p": probability(t["p"], tiny=TINY),
                "p, Holm": probability(t["holm"], tiny=TINY),
                "so it is": str(t["verdict"]),
            }
        rows.append(shown)
    return table_of(rows, "arm")


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
    return table_of(rows, "optimizer")


def grid(table: pd.DataFrame, arms: pd.DataFrame) -> pd.DataFrame:
    """`compared.grid` as a square: the first arm in rows, the second in columns, with who is ahead."""
    called, rows = names(arms), []
    for first in dict.fromkeys(table["first"]):
        own = table[table["first"] == first].to_dict("records")
        told = {f"minus {called[r['second']]}": difference(r["difference"], r["low"], r["high"]) for r in own}
        rows.append({"accuracy of": called[first]} | told)
    return table_of(rows, "accuracy of")


def momentum(table: pd.DataFrame, arms: pd.DataFrame) -> pd.DataFrame:
    """Accuracy with momentum minus without, at matching rates (`compared.momentum`)."""
    called = names(arms)
    rows = [
        {"with": called[row["with"]], "without": called[row["without"]], "seeds": str(row["seeds"])}
        | {"accuracy": difference(row["difference"], row["low"], row["high"])}
        for row in table.to_dict("records")
    ]
    return table_of(rows, "with")


def states(table: pd.DataFrame, arms: pd.DataFrame, quantity: str) -> pd.DataFrame:
    """The state of AdamW at each rate (`state.states` of one of `STATES`), the paper's in the first row."""
    paper, rate = published_state(quantity), published()["learning_rate"].iloc[0]
    first = {"run": f"paper, {label('adamw', float(rate))}", "seeds": "1"}
    rows = [first | {when: number(paper[when], ".3f") for when in WHEN}]
    scaled = arms[(arms["optimizer"] == "adamw") & (arms["gradient"] != "zero")]["arm"]
    for arm in scaled:
        own = by(table[(table["quantity"] == quantity) & (table["arm"] == arm)], "when")
        if own:
            row = {"run": names(arms)[arm], "seeds": most_seeds(own)}
            rows.append(row | {when: _state(own[when]) for when in WHEN})
    return table_of(rows, "run")


def numbers(table: pd.DataFrame, arms: pd.DataFrame, quantities: Sequence[str] = DELTA) -> pd.DataFrame:
    """Mean and interval of each quantity for each arm with runs; `table` is that of `study.over_seeds`."""
    called, rows = names(arms), []
    for arm in [a for a in arms["arm"] if a in set(table["arm"])]:
        own = by(table[table["arm"] == arm], "quantity")
        row = {"arm": called[arm], "seeds": most_seeds(own)}
        rows.append(row | {heading(q): cell(q, own[q]) for q in quantities})
    return table_of(rows, "arm")


def gaps(table: pd.DataFrame, arms: pd.DataFrame, quantities: Sequence[str]) -> pd.DataFrame:
    """Differences in shares, in percentage points, for each arm (`compared.beside_adamw`)."""
    called, rows = names(arms), []
    for arm in [a for a in arms["arm"] if a in set(table["arm"])]:
        own = by(table[table["arm"] == arm], "quantity")
        row = {"arm": called[arm], "seeds": most_seeds(own)}
        rows.append(row | {heading(q): difference(own[q]["value"], own[q]["low"], own[q]["high"]) for q in quantities})
    return table_of(rows, "arm")


def ways(table: pd.DataFrame, arms: pd.DataFrame) -> pd.DataFrame:
    """Step length, distance and straightness of each arm (`optimizers.steps_taken`)."""
    columns = ["step_length", "distance", "straightness"]
    known = study.over_seeds(table, columns) if len(table) else pd.DataFrame({"arm": [], "quantity": []})
    called, rows = names(arms), []
    for arm in [a for a in arms["arm"] if a in set(known["arm"])]:
        own = by(known[known["arm"] == arm], "quantity")
        rows.append({"arm": called[arm]} | {c.replace("_", " "): number(own[c]["value"], ".3g") for c in columns})
    return table_of(rows, "arm")


def _state(row: Mapping[str, Any]) -> str:
    return with_interval(row["value"], row["low"], row["high"], partial(number, form=".3f"))
