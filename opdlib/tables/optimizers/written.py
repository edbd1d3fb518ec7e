"""The tables of the optimizer ablation as text. For display only: numbers are rounded, and a dash is undefined."""

from collections.abc import Mapping
from functools import partial

import pandas as pd

from opdlib.quantities import label, short, written
from opdlib.registry.study import FULL
from opdlib.tables import study
from opdlib.tables.optimizers.sweep import OPTIMIZERS, wide
from opdlib.tables.written import number, points, probability, with_interval


def names(arms: pd.DataFrame) -> dict[str, str]:
    """Arm -> what it is called, the one that all are compared with marked: AdamW 1e-5 (opd)."""
    rows = arms[["arm", "optimizer", "learning_rate"]].itertuples(index=False, name=None)
    return {a: f"{OPTIMIZERS[o]} {short(r)}{f' ({FULL})' if a == FULL else ''}" for a, o, r in rows}


def difference(value: float, low: float, high: float) -> str:
    """A difference of two shares in percentage points, with its interval where there is one."""
    return with_interval(value, low, high, partial(points, plain=True))


DIFFERENCE = (difference, "difference", "low", "high")


def accuracies(runs: pd.DataFrame, tests: pd.DataFrame, arms: pd.DataFrame) -> pd.DataFrame:
    """Accuracy of every arm with runs, and its paired difference from `opd` (`compared.paired`), judged if it has
    enough seeds."""
    table = wide(runs, ["accuracy"]).merge(tests, on="arm", how="left", suffixes=("", " of it"))
    table["verdict"] = table["verdict"].where(table["seeds of it"] >= study.ENOUGH)
    columns: study.Columns = {"arm": (names(arms).get, "arm"), "seeds": "seeds"}
    columns |= {"accuracy": (_accuracy, "value", "low", "high")}
    columns |= {f"minus {FULL}": (difference, "difference", "low of it", "high of it")}
    return study.shown(table, columns | {"p, Holm": (probability, "holm"), "verdict": "verdict"})


def grid(table: pd.DataFrame, arms: pd.DataFrame) -> pd.DataFrame:
    """`compared.grid` as a square: the first arm in rows, the second in columns."""
    called, rows = names(arms), []
    for first, own in table.groupby("first", sort=False):
        texts = map(difference, own["difference"], own["low"], own["high"])
        headings = "minus " + own["second"].map(called)
        rows.append({"accuracy of": called[str(first)]} | dict(zip(headings, texts, strict=True)))
    return study.text_table(rows, "accuracy of")


def pairs(table: pd.DataFrame, arms: pd.DataFrame) -> pd.DataFrame:
    """Optimizers against each other, each at its best rate (`compared.best_pairs`), judged if seeds are enough."""
    called, table = names(arms).get, table.copy()
    table["verdict"] = table["verdict"].where(table["seeds"] >= study.ENOUGH)
    columns: study.Columns = {"accuracy of": (called, "arm"), "minus": (called, "other"), "what the first has": "what"}
    columns |= {"best of": ({True: "rates that match", False: "all rates"}.get, "matched")}
    return study.shown(table, columns | {"seeds": "seeds", "difference": DIFFERENCE, "verdict": "verdict"})


def nulls(table: pd.DataFrame) -> pd.DataFrame:
    """`state.nulls`, one row a state and run."""
    columns: study.Columns = {"state": (label, "state"), "run": "run"}
    form = partial(number, form=".3f")
    return study.shown(table, columns | {name: (form, name) for name in ("first", "last", "null")})


def gaps(table: pd.DataFrame, arms: pd.DataFrame) -> pd.DataFrame:
    """Differences in shares, in percentage points, for each arm that has one (`compared.beside_adamw`)."""
    called, table = names(arms), table[table["seeds"] > 0]
    cells = [difference(*row) for row in table[["value", "low", "high"]].itertuples(index=False, name=None)]
    text = table.assign(text=cells).pivot_table("text", "arm", "quantity", aggfunc="first", sort=False)
    columns: Mapping[str, pd.Series] = {label(str(key)): text[key] for key in text}
    seeds = table.groupby("arm", sort=False)["seeds"].max()
    return study.text_table({"arm": text.index.map(called), "seeds": seeds} | {**columns}, "arm")


def _accuracy(value: float, low: float, high: float) -> str:
    """A share with its interval, which ends at 0 and at 1."""
    return with_interval(value, max(low, 0.0), min(high, 1.0), partial(written, "accuracy"))
