"""The paper's claims, data/paper/claims.csv: what each says, its value, its tolerance, and where our number comes from.

Columns of the file:

- `paper_value`: a number (0.7789), a range (0.6672..0.895, open to one side: ..0.1) or a word (mlp). No percent.
- `tolerance`: what the range is widened by on both sides. Those on sparsity and layers were written before our results
  existed, those on rank and subspaces after them: they are a fifth of the range of the paper's OPD-style rows, and for
  a single row half a percent and half of the last digit, or 0.002 for a coverage.
- `rule`: `[PAIR: ]QUANTITY[; direction RANGE]`. With a pair, the claim is about that row of the paper and is tested on
  that pair only; without, it is about OPD-style updates in general. A quantity is a key of `opdlib.quantities`, two of
  them with ` - ` or ` / ` between, or a name in `opdlib.claims.ours.DERIVED`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, get_args

import pandas as pd
from pydantic import BaseModel, Field, ValidationError, field_validator

from opdlib.errors import RegistryError
from opdlib.files import data_root
from opdlib.registry.entries import STRICT
from opdlib.registry.pairs import Pair, find_pair

Finding = Literal["sparsity", "layers", "rank", "subspace"]
FINDINGS: tuple[str, ...] = get_args(Finding)

RULE = re.compile(
    r"(?:(?P<pair>[\w.-]+): )?(?P<left>[\w.-]+)(?: (?P<sign>[-/]) (?P<right>[\w.-]+))?"
    r"(?:; direction (?P<direction>\S+))?"
)


@dataclass(frozen=True)
class Range:
    """An interval, maybe open-ended."""

    low: float = float("-inf")
    high: float = float("inf")
    closed: bool = True
    """Whether its ends belong to it."""

    @classmethod
    def parse(cls, text: str) -> Range:
        """`0.5` is a point, `0.1..0.2` an interval, `0.5..` and `..0.5` are open to one side."""
        low, dots, high = text.partition("..")
        return cls(float(low or "-inf"), float((high or "inf") if dots else low))

    def widened(self, tolerance: float) -> Range:
        """The same, larger on both sides."""
        return Range(self.low - tolerance, self.high + tolerance, self.closed)

    def holds(self, value: float) -> bool:
        """Is `value` inside? NaN is not."""
        return self.low <= value <= self.high if self.closed else self.low < value < self.high


class Claim(BaseModel):
    """One row of claims.csv."""

    model_config = STRICT

    id: str
    finding: Finding
    statement: str
    locator: str
    paper_value: str
    unit: Literal["fraction", "points", "ratio", "block"]
    """Points are a difference of fractions; the value of a block is a word."""
    tolerance: float = Field(ge=0)
    rule: str

    @field_validator("rule")
    @classmethod
    def _readable(cls, rule: str) -> str:
        if RULE.fullmatch(rule) is None:
            raise ValueError("cannot be read; see opdlib.registry.claims")
        return rule

    @property
    def parts(self) -> dict[str, str | None]:
        """The rule, taken apart: pair, left, sign, right, direction."""
        match = RULE.fullmatch(self.rule)
        return match.groupdict() if match else {}

    @property
    def pair(self) -> Pair | None:
        """The pair the claim is about; None if it is about OPD-style pairs in general."""
        name = self.parts["pair"]
        return find_pair(name) if name else None

    @property
    def direction(self) -> Range | None:
        """The wider range that still goes the paper's way; None if none was set."""
        text = self.parts["direction"]
        return Range.parse(text) if text else None


def claim_of(row: dict[str, str]) -> Claim:
    """The claim of one row of the file. Raises RegistryError with the first field that makes no sense."""
    try:
        return Claim.model_validate(row)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name, reason = str(first["loc"][0]), first["msg"].removeprefix("Value error, ")
        raise RegistryError(f"claims.csv: {row.get('id')}: {name} {first['input']!r} {reason}") from None


def load(finding: str | None = None) -> list[Claim]:
    """All claims, or those of one finding, in the order of the file."""
    if finding not in (None, *FINDINGS):
        raise RegistryError(f"no finding {finding!r} in claims.csv; there are {', '.join(FINDINGS)}")
    table = pd.read_csv(data_root() / "paper" / "claims.csv", dtype=str, keep_default_na=False)
    claims = [claim_of({str(name): text for name, text in row.items()}) for row in table.to_dict("records")]
    return [claim for claim in claims if finding in (None, claim.finding)]
