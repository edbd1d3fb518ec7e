"""The paper's claims, data/paper/claims.csv: one row a claim, every column one thing, no rule inside a cell.

| column | what it says |
| --- | --- |
| `id`, `clause`, `finding` | its name, the clause of the abstract that it belongs to, the page that shows it |
| `statement`, `locator` | in our words, and where the paper has it |
| `subject` | `OPD`: updates of OPD in general; a key of pairs.yaml: that row of the paper; a scale of study.yaml: \
arms of it, or of one over the same source, where it has too few runs; `paper`: the paper's own OPD-style rows |
| `arm` | of the scale: whose number it is, or, of an overlap, the run beside OPD |
| `quantity`, `operation`, `other` | the number: a quantity, and what is done with it and another quantity or arm |
| `low`, `high` | what the paper has: a range, open where a cell is empty |
| `unit`, `tolerance` | fraction, points (a difference of fractions) or ratio; what widens the range on both sides |
| `judged` | `mean`: the mean must lie in the range; `interval`: all of the interval must |
| `wide_low`, `wide_high` | the wider range that still goes the paper's way; both empty if none was set |
| `direction` | the side of its control on which the claim puts the number: above or below; empty if it takes no side |
| `control`, `control_arm`, `control_key` | what else could give the number (`opdlib.claims.controls`), \
of which arm, and the number that decides |
| `contrast_own`, `contrast_other` | the paper's two numbers whose distance says how small a difference of arms is |
| `fixed` | `before` or `after` our numbers could be seen |
| `accepts` | of a range that says little, what else it lets through: chance, nearly everything, by construction |

Tolerances on sparsity and layers were written before our results existed, those on rank and subspaces after them: they
are a fifth of the range of the paper's OPD-style rows, and for a single row half a percent and half of the last digit,
or 0.002 for a coverage. Those about arms were written when runs could be seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Literal, get_args

import pandas as pd
from pydantic import BaseModel, Field, model_validator

from opdlib.errors import RegistryError
from opdlib.files import data_root
from opdlib.registry.entries import STRICT, checked
from opdlib.registry.pairs import Pair, find_pair
from opdlib.registry.study import study

Finding = Literal["sparsity", "layers", "optimizers", "rank", "subspace", "subnetwork", "matched"]
FINDINGS: tuple[str, ...] = get_args(Finding)
OPD, PAPER = "OPD", "paper"
"""Subjects that are neither a pair nor a scale."""

OfArms = Literal["minus arm", "over arm", "minus best", "best minus best", "share of loss"]
OfCurves = Literal["first", "mean", "last", "last minus first"]
Operation = Literal["value", "minus", "over", "smallest row", OfArms, OfCurves]
Null = Literal["visibility", "permutation", "spectrum", "chance"]
Control = Literal["", Null, "parameters", "magnitude", "averaging", "unrelated", "noise", "arm", "equal norm"]


@dataclass(frozen=True)
class Range:
    """An interval with its ends, maybe open to a side."""

    low: float = float("-inf")
    high: float = float("inf")

    def widened(self, tolerance: float) -> Range:
        """The same, larger on both sides."""
        return Range(self.low - tolerance, self.high + tolerance)

    def holds(self, value: float) -> bool:
        """Is `value` inside? NaN is not."""
        return self.low <= value <= self.high


class Claim(BaseModel):
    """One row of claims.csv."""

    model_config = STRICT

    id: str
    clause: str
    finding: Finding
    statement: str
    locator: str
    subject: str
    arm: str
    quantity: str
    operation: Operation
    other: str
    low: float | None
    high: float | None
    unit: Literal["fraction", "points", "ratio"]
    tolerance: float = Field(ge=0)
    judged: Literal["mean", "interval"]
    wide_low: float | None
    wide_high: float | None
    direction: Literal["", "above", "below"]
    control: Control
    control_arm: str
    control_key: str
    contrast_own: float | None
    contrast_other: float | None
    fixed: Literal["before", "after"]
    accepts: Literal["", "chance", "nearly everything", "by construction"]

    @model_validator(mode="after")
    def _whole(self) -> Claim:
        if self.clause not in clauses():
            raise ValueError(f"no clause {self.clause!r} in clauses.csv; there are {', '.join(clauses())}")
        if self.low is None and self.high is None:
            raise ValueError("the paper's range has neither low nor high")
        if self.control and not self.direction:
            raise ValueError(f"control {self.control!r} needs a direction")
        if self.subject not in (OPD, PAPER, *study()):
            try:
                find_pair(self.subject)
            except RegistryError as error:
                raise ValueError(str(error)) from error
        return self

    @property
    def pair(self) -> Pair | None:
        """The pair whose row of the paper it is about; None if it is about none."""
        return None if self.subject in (OPD, PAPER, *study()) else find_pair(self.subject)

    @property
    def scale(self) -> str:
        """The scale of the study whose arms it is about; empty if it is about none."""
        return self.subject if self.subject in study() else ""

    @property
    def range(self) -> Range:
        """What the paper has, without tolerance."""
        return _range(self.low, self.high)

    @property
    def wide(self) -> Range | None:
        """The wider range that still goes the paper's way; None if none was set."""
        return None if self.wide_low is None and self.wide_high is None else _range(self.wide_low, self.wide_high)


def _range(low: float | None, high: float | None) -> Range:
    return Range(Range().low if low is None else low, Range().high if high is None else high)


NUMBERS = ("low", "high", "wide_low", "wide_high", "contrast_own", "contrast_other")


def claim_of(row: dict[str, str]) -> Claim:
    """The claim of one row of the file. Raises RegistryError with the first field that makes no sense."""
    content = {name: None if name in NUMBERS and not text else text for name, text in row.items()}
    return checked(Claim, content, f"claims.csv: {row.get('id')}")


@cache
def clauses() -> Mapping[str, str]:
    """What the abstract says, clause by clause, in our words: data/paper/clauses.csv."""
    table = pd.read_csv(data_root() / "paper" / "clauses.csv", dtype=str)
    return dict(zip(table["clause"], table["says"], strict=True))


def load(finding: str | None = None) -> list[Claim]:
    """All claims, or those of one finding, in the order of the file."""
    if finding not in (None, *FINDINGS):
        raise RegistryError(f"no finding {finding!r} in claims.csv; there are {', '.join(FINDINGS)}")
    table = pd.read_csv(data_root() / "paper" / "claims.csv", dtype=str, keep_default_na=False)
    claims = [claim_of({str(name): text for name, text in row.items()}) for row in table.to_dict("records")]
    return [claim for claim in claims if finding in (None, claim.finding)]
