"""One claim: a row of data/paper/claims.csv, its rule, and the verdict on a number."""

from __future__ import annotations

import operator
import re
from dataclasses import dataclass

import pandas as pd

from opdlib.claims.quantities import Value, quantity
from opdlib.errors import RegistryError
from opdlib.files import data_root
from opdlib.registry.pairs import Pair, find_pair
from opdlib.tables import Results

FINDINGS = ("sparsity", "layers", "rank", "subspace")

RULE = re.compile(
    r"(?:(?P<pair>[\w.-]+): )?(?P<left>[\w.-]+)(?: (?P<sign>[-/]) (?P<right>[\w.-]+))?"
    r"(?:; direction (?P<direction>\S+))?"
)


@dataclass(frozen=True)
class Range:
    """A closed interval, maybe open-ended."""

    low: float
    high: float

    @classmethod
    def parse(cls, text: str) -> Range:
        """`0.5` is a point, `0.1..0.2` an interval, `0.5..` and `..0.5` are open to one side."""
        low, dots, high = text.partition("..")
        return cls(float(low or "-inf"), float((high or "inf") if dots else low))

    def holds(self, value: float, tolerance: float = 0.0) -> bool:
        """Is `value` inside, give or take the tolerance?"""
        return self.low - tolerance <= value <= self.high + tolerance


@dataclass(frozen=True)
class Claim:
    """One row of claims.csv."""

    id: str
    finding: str
    statement: str
    locator: str
    paper_value: str
    unit: str
    """fraction, points (a difference of fractions), ratio or block."""
    tolerance: float
    rule: str

    @property
    def parts(self) -> dict[str, str | None]:
        """The rule, taken apart. Raises RegistryError if it cannot be read."""
        match = RULE.fullmatch(self.rule)
        if match is None:
            raise RegistryError(f"claims.csv: {self.id}: rule {self.rule!r} cannot be read; see opdlib.claims")
        return match.groupdict()

    @property
    def pair(self) -> Pair | None:
        """The pair the claim is about; None if it is about OPD-style pairs in general."""
        name = self.parts["pair"]
        return find_pair(name) if name else None

    def value(self, results: Results) -> Value:
        """Our number (or word) for this claim; None if it does not exist or is undefined."""
        parts = self.parts
        left = quantity(results, str(parts["left"]))
        if parts["right"] is None:
            return left
        right = quantity(results, parts["right"])
        if not isinstance(left, float) or not isinstance(right, float) or (parts["sign"] == "/" and right == 0):
            return None
        return float((operator.sub if parts["sign"] == "-" else operator.truediv)(left, right))

    def judge(self, ours: float | str) -> str:
        """The verdict on a number or word of ours."""
        if isinstance(ours, str):
            return "reproduced" if ours == self.paper_value else "not reproduced"
        if Range.parse(self.paper_value).holds(ours, self.tolerance):
            return "reproduced"
        direction = self.parts["direction"]
        return "direction" if direction and Range.parse(direction).holds(ours) else "not reproduced"


def load(finding: str | None = None) -> list[Claim]:
    """All claims, or those of one finding, in the order of the file."""
    rows = pd.read_csv(data_root() / "paper" / "claims.csv", dtype=str, keep_default_na=False).to_dict("records")
    claims = [Claim(**{str(k): v for k, v in row.items()} | {"tolerance": float(row["tolerance"])}) for row in rows]
    if finding not in (None, *FINDINGS):
        raise RegistryError(f"no finding {finding!r} in claims.csv; there are {', '.join(FINDINGS)}")
    return [claim for claim in claims if finding in (None, claim.finding)]
