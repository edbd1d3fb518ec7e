"""Parts of updates, put back on the source and scored: what each kept, and what it then solved.

Shares are fractions in [0, 1]. A part is named by the rule that keeps it (`opd edit`); beside it stand its rest and its
random controls, see `opdlib.results.study.SURGERY`.
"""

from functools import partial
from pathlib import Path

import pandas as pd

from opdlib.registry.study import FULL
from opdlib.results.study import ENERGY, PART, REST, SHORT, SIZE, TURNED, open_study
from opdlib.tables import study
from opdlib.tables.written import interval, percent

WHOLE, NOTHING = "scale:1", "none"
"""The parts that are the whole update, and the source."""
KINDS = {
    PART: "the part",
    REST: "the rest",
    SIZE: "random, as many",
    ENERGY: "random, as much energy",
    SHORT: "everything, as much energy as the rest",
    TURNED: "with the source's spectrum",
}
"""Kind -> what the page calls it."""
SHORTER = "everything, as much energy"
"""What it calls the control of singular directions, in which no coordinate is without a share."""
ARMS = {FULL: "OPD", "adamw-1e-4": "OPD, 1e-4", "offline": "offline", "rlvr": "RLVR", "sgd-3e-2": "SGD"}
"""Arm -> what the page calls it."""
QUESTIONS = {
    "directions": ("singular", "scale", "none"),
    "coordinates": ("largest", "visible", "mask"),
    "blocks": ("block", "layers"),
}
"""What a figure asks -> how the rules of its parts begin."""
KEY = ["arm", "part", "kind"]
SHOWN: study.Columns = {
    "part": "part",
    "what is kept": "called",
    "seeds": "seeds",
    "energy": (percent, "energy"),
    "coordinates": (percent, "kept"),
    "relative norm": (partial(percent, digits=3), "rel_norm"),
    "solved": (percent, "accuracy"),
    "95% interval": (interval, "low", "high"),
    "of the gain": (partial(percent, digits=0), "gain"),
}
"""Columns of `over_seeds` for `opdlib.tables.study.shown`."""


def parts(scale: str, root: Path | None = None) -> pd.DataFrame:
    """One row a run and part: the columns of `opdlib.results.study.SURGERY`, called (the kind in words) and gain: what
    it solves more than the source, over what the whole update does. NaN where one of the two was not scored, or the
    whole update gains nothing."""
    table = study.of_arms(open_study(scale, root).surgery, scale)
    run = pd.MultiIndex.from_frame(table[["arm", "seed"]])
    own = table[table["kind"] == PART].set_index(["arm", "seed"])
    start, end = (own[own["part"] == part]["accuracy"].reindex(run).reset_index(drop=True) for part in (NOTHING, WHOLE))
    gain = (table["accuracy"] - start) / (end - start).where(end > start)
    shorter = table["part"].str.startswith("singular") & (table["kind"] == ENERGY)
    return table.assign(called=table["kind"].map(KINDS).mask(shorter, SHORTER), gain=gain.astype(float))


def over_seeds(table: pd.DataFrame) -> pd.DataFrame:
    """One row an arm, part and kind of `parts`: arm, part, kind, called, seeds, the means of energy, kept, rel_norm,
    accuracy and gain, and low and high: the lowest and highest end of its seeds' intervals, which are over problems."""
    means = dict.fromkeys(("energy", "kept", "rel_norm", "accuracy", "gain"), "mean")
    found = table.groupby(KEY, sort=False).agg(
        {"called": "first", "seed": "count", **means, "low": "min", "high": "max"}
    )
    return found.rename(columns={"seed": "seeds"}).reset_index()


def asking(table: pd.DataFrame, question: str) -> pd.DataFrame:
    """The rows that a key of `QUESTIONS` is about."""
    own: pd.DataFrame = table[table["part"].str.split(":").str[0].isin(QUESTIONS[question])]
    return own.reset_index(drop=True)


def standing(scale: str, root: Path | None = None) -> pd.DataFrame:
    """For the eye: each arm that is taken apart, its runs and rows, and the command that makes what may be missing."""
    table = open_study(scale, root).surgery
    command = f"opd study {scale} --surgery --out data/study"
    rows = [
        {"arm": called, "runs": own["seed"].nunique(), "rows": len(own), "command for the rest": command}
        for arm, called in ARMS.items()
        for own in [table[table["arm"] == arm]]
    ]
    return study.text_table(rows, "arm")


def beside(table: pd.DataFrame) -> pd.DataFrame:
    """For the eye: a row for each part and kind of `over_seeds` that more than one arm has, a column for each arm: the
    share of the gain."""
    wide = table.pivot_table(index=["part", "called"], columns="arm", values="gain", sort=False)
    wide = wide[wide.notna().sum(axis="columns") > 1]
    text = {"part": [*wide.index.get_level_values(0)], "what is kept": [*wide.index.get_level_values(1)]}
    text |= {called: [percent(x, 0) for x in wide[arm]] for arm, called in ARMS.items() if arm in wide}
    return study.text_table(text, "part")


def compared(table: pd.DataFrame, part: str, over: str, kind: str = PART) -> pd.DataFrame:
    """A part and its control `over` (a kind), run by run: arm, seed, gain, control (the control's gain), difference (of
    accuracies), apart (their intervals do not overlap). Runs that lack one of the two are left out."""
    own, other = (table[(table["part"] == part) & (table["kind"] == which)] for which in (kind, over))
    both = own.merge(other, on=["arm", "seed"], suffixes=("", "_control")).rename(columns={"gain_control": "control"})
    apart = (both["low"] > both["high_control"]) | (both["high"] < both["low_control"])
    both = both.assign(difference=both["accuracy"] - both["accuracy_control"], apart=apart)
    return both[["arm", "seed", "gain", "control", "difference", "apart"]]
