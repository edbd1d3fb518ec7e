"""The tables of the optimizer ablation as text. For display only: numbers are rounded, and a dash is undefined."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial

import pandas as pd

from opdlib.quantities import MISSING, as_text, find, quantity, short, written
from opdlib.registry.study import FULL
from opdlib.tables import study
from opdlib.tables.optimizers.state import published_state
from opdlib.tables.optimizers.sweep import OPTIMIZERS, published, wide
from opdlib.tables.text import number, percent, points, probability, with_interval

HEADINGS = {
    "exact_zero": "unchanged, bf16",
    "stored": "unchanged, masters",
    "projection_expected.joint.0.1": "chance",
    "coverage_ceiling.low.0.1": "ceiling",
}
"""Number -> its heading where that is not its label. `stored` is `exact_zero` in the other view."""
TINY = "< 0.0001"
"""What is written of a smaller p value."""
PLACE = {"low": "smallest", "high": "largest", "": "inside"}


def label(optimizer: str, rate: float) -> str:
    """What an arm is called: AdamW 1e-5."""
    return f"{OPTIMIZERS[optimizer]} {short(rate)}"


def names(arms: pd.DataFrame) -> dict[str, str]:
    """Arm -> what it is called, the one that all are compared with marked."""
    rows = arms[["arm", "optimizer", "learning_rate", "gradient"]].itertuples(index=False, name=None)
    marks = {FULL: f" ({FULL})"}
    return {a: f"{label(o, r)}{', zero gradient' if g == 'zero' else marks.get(a, '')}" for a, o, r, g in rows}


def cell(key: str, value: float, low: float, high: float) -> str:
    """Mean and interval; an interval ends where the quantity does, at 0 and, for a share, at 1."""
    kind = quantity("exact_zero" if key == "stored" else key).kind
    ends = max(low, 0.0), min(high, 1.0 if kind == "share" else math.inf)
    text, *around = (as_text(kind, x) for x in (value, *ends))
    return text if MISSING in around or around[0] == around[1] else f"{text} ({' to '.join(around)})"


def difference(value: float, low: float, high: float) -> str:
    """A difference of two shares in percentage points, with its interval where there is one."""
    return with_interval(value, low, high, partial(points, plain=True))


DIFFERENCE = (difference, "difference", "low", "high")


def recipes(arms: pd.DataFrame) -> pd.DataFrame:
    """Every arm of the sweep: what it takes, how many seeds it has, and the command for those that are missing."""
    columns: study.Columns = {
        "arm": "arm",
        "optimizer": (OPTIMIZERS.get, "optimizer"),
        "rate": (short, "learning_rate"),
        "momentum": (lambda name: "0.9" if name in ("adamw", "sgdm") else "none", "optimizer"),
        "scaled by sqrt(v)": (lambda name: "yes" if name in ("adamw", "rmsprop") else "no", "optimizer"),
        "gradient": (lambda kind: "zero" if kind == "zero" else "as it is", "gradient"),
        "clip": ("{:g}".format, "clip"),
        "clipped updates": (partial(percent, digits=0), "clipped"),
        "updates": "steps",
        "seeds": (lambda done, planned: f"{done} of {planned}" if done else "not run", "finished", "planned"),
        "missing": "missing",
    }
    table = study.shown(arms, columns)
    return table if any(table["missing"]) else table.drop(columns="missing")


def accuracies(runs: pd.DataFrame, tests: pd.DataFrame, arms: pd.DataFrame) -> pd.DataFrame:
    """Accuracy of every arm with runs, and its paired difference from `opd` (`compared.paired`)."""
    table = wide(runs, ["accuracy"]).merge(tests, on="arm", how="left", suffixes=("", " of it"))
    p = partial(probability, tiny=TINY)
    columns: study.Columns = {"arm": (names(arms).get, "arm"), "seeds": "seeds"}
    columns |= {"accuracy": (partial(cell, "accuracy"), "value", "low", "high")}
    columns |= {f"minus {FULL}": (difference, "difference", "low of it", "high of it")}
    return study.shown(table, columns | {"p": (p, "p"), "p, Holm": (p, "holm"), "so it is": "verdict"})


def best(table: pd.DataFrame) -> pd.DataFrame:
    """Each optimizer at its best rate (`compared.best`)."""
    columns: study.Columns = {
        "optimizer": (OPTIMIZERS.get, "optimizer"),
        "best rate": (short, "learning_rate"),
        "of": ("{} of {} rates".format, "rates", "swept"),
        "its place": (lambda edge, rates: PLACE[edge] if rates > 1 else "the only one", "edge", "rates"),
        "seeds": "seeds",
        "accuracy": (partial(cell, "accuracy"), "accuracy", "low", "high"),
        "rate chosen on other seeds": (partial(written, "accuracy"), "unseen"),
    }
    return study.shown(table, columns)


def grid(table: pd.DataFrame, arms: pd.DataFrame) -> pd.DataFrame:
    """`compared.grid` as a square: the first arm in rows, the second in columns."""
    called, rows = names(arms), []
    for first, own in table.groupby("first", sort=False):
        texts = map(difference, own["difference"], own["low"], own["high"])
        headings = "minus " + own["second"].map(called)
        rows.append({"accuracy of": called[str(first)]} | dict(zip(headings, texts, strict=True)))
    return study.text_table(rows, "accuracy of")


def pairs(table: pd.DataFrame, arms: pd.DataFrame) -> pd.DataFrame:
    """Optimizers against each other, each at its best rate (`compared.best_pairs`)."""
    called = names(arms).get
    columns: study.Columns = {"accuracy of": (called, "arm"), "minus": (called, "other"), "what the first has": "what"}
    columns |= {"best of": ({True: "rates that match", False: "all rates"}.get, "matched")}
    return study.shown(table, columns | {"seeds": "seeds", "difference": DIFFERENCE, "so it is": "verdict"})


def momentum(table: pd.DataFrame, arms: pd.DataFrame) -> pd.DataFrame:
    """Accuracy with momentum minus without, at matching rates (`compared.momentum`)."""
    columns: study.Columns = {side: (names(arms).get, side) for side in ("with", "without")}
    return study.shown(table, columns | {"seeds": "seeds", "accuracy": DIFFERENCE})


def states(table: pd.DataFrame, arms: pd.DataFrame, state: str) -> pd.DataFrame:
    """AdamW at each rate (`state.states`, of one of `STATES`), the paper's in the first row."""
    values = published_state(state)
    paper = pd.DataFrame({"arm": "paper", "quantity": [*values], "seeds": 1, "value": [*values.values()]})
    known = pd.concat([paper, table[table["state"] == state]], ignore_index=True)
    called = {"paper": f"paper, {label('adamw', float(published()['learning_rate'].iloc[0]))}"} | names(arms)
    return _by_arm(known, called, _state).rename_axis(columns="run")


def nulls(table: pd.DataFrame) -> pd.DataFrame:
    """`state.nulls`, one row a state and run."""
    columns: study.Columns = {"state": (heading, "state"), "run": "run"}
    return study.shown(table, columns | {name: (_state_number, name) for name in ("first", "last", "null")})


def numbers(table: pd.DataFrame, arms: pd.DataFrame) -> pd.DataFrame:
    """Mean and interval of each quantity for each arm with runs; `table` is that of `study.over_seeds`."""
    return _by_arm(table, names(arms), cell)


def gaps(table: pd.DataFrame, arms: pd.DataFrame) -> pd.DataFrame:
    """Differences in shares, in percentage points, for each arm (`compared.beside_adamw`)."""
    return _by_arm(table, names(arms), lambda _, *row: difference(*row))


def ways(table: pd.DataFrame, arms: pd.DataFrame) -> pd.DataFrame:
    """Step length, distance and straightness of each arm (`sweep.steps_taken`)."""
    means = study.over_seeds(table, ["step_length", "distance", "straightness"])
    shown = _by_arm(means, names(arms), lambda _, value, *__: number(value, ".3g"))
    return shown.drop(columns="seeds", errors="ignore")


def heading(key: str) -> str:
    """What a column of this number is called."""
    return HEADINGS.get(key) or (found.label if (found := find(key)) else key.replace("_", " "))


def _by_arm(table: pd.DataFrame, called: Mapping[str, str], write: Callable[..., str]) -> pd.DataFrame:
    """A row of text for each arm of a table of `study.over_seeds`, in the order of `called`: its seeds, and for each
    quantity what `write` makes of it (key, value, low, high)."""
    keys = table["quantity"].unique()
    cells = [write(*row) for row in table[["quantity", "value", "low", "high"]].itertuples(index=False, name=None)]
    wide = table.assign(text=cells).pivot_table("text", "arm", "quantity", aggfunc="first")
    wide = wide.reindex([arm for arm in called if arm in wide.index])
    seeds = table.groupby("arm")["seeds"].max().reindex(wide.index)
    columns = {"arm": wide.index.map(called), "seeds": seeds} | {heading(key): wide[key] for key in keys}
    return study.text_table(columns, "arm")


def _state(_: str, value: float, low: float, high: float) -> str:
    return with_interval(value, low, high, _state_number)


def _state_number(value: float) -> str:
    return number(value, ".3f")
