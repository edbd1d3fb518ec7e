"""Every number that the project measures: what it is called, what it means, how it is written, what belongs beside it.

A number is known by its dotted key, that of `opd summary --json` with its parameters: `projection.joint.0.1`. Tables
and figures join by key; a label is only ever output. quantities.yaml, beside this module, has a record for each family
of keys, in which `{share}` stands for a parameter; `quantity` makes the record of a single key from it.
"""

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import yaml

MISSING = "-"
"""What is written for what is undefined."""

SIDES = ("joint", "left", "right")
MASKS = ("principal", "low")
SHARES = (0.01, 0.05, 0.1, 0.2)
"""Of rank and of weights, for projections and masks: those of the paper's Table 10."""
UPDATE_ATOL = (0.0, 1e-5)
"""A weight is updated if abs(delta) exceeds this: the paper's coverages take the first, its overlaps the second."""


def short(number: float) -> str:
    """A positive number in few characters, with two or three digits: 0, 0.05, 1e-4."""
    return (
        f"{number:.3g}" if number == 0 or number >= 1e-3 else f"{number:.1e}".replace(".0e", "e").replace("e-0", "e-")
    )


def short_percent(share: float) -> str:
    """A share in few characters, without needless digits: 10%."""
    return f"{100 * share:g}%"


def _percent(value: float) -> str:
    return f"{100 * value:.{2 if abs(value) >= 1e-3 or value == 0 else 4}f}%"


KINDS: Mapping[str, Callable[[float], str]] = {
    "count": lambda value: f"{value:,.0f}",
    "share": _percent,
    "norm": _percent,
    "ratio": lambda value: f"{value:.2f}" if abs(value) < 100 else f"{value:.0f}",
    "small": short,
}
"""Kind of a number -> how it is written. A share lies in [0, 1]; a norm is that of a change over that of a source and
has no upper end; both are written in percent, with two digits, four below a tenth of a percent. A ratio is a plain
number, ranks and exponents too; what is small (sines, drifts, thresholds) takes a power of ten."""


def as_text(kind: str, value: float) -> str:
    """A value for the eye, in the form of its kind; a dash for NaN."""
    return MISSING if math.isnan(value) else KINDS[kind](value)


def as_column(kind: str, values: Iterable[float]) -> list[str]:
    """Values that stand below each other: as `as_text`, each with the digits of the one that needs most."""
    listed = [*values]
    if KINDS[kind] is _percent:
        digits = 4 if any(0 < abs(value) < 1e-3 for value in listed) else 2
        text = [f"{100 * value:.{digits}f}%" for value in listed]
    elif kind == "ratio":
        digits = 2 if any(abs(value) < 100 for value in listed) else 0
        text = [f"{value:.{digits}f}" for value in listed]
    else:
        text = [as_text(kind, value) for value in listed]
    return [MISSING if math.isnan(value) else written for value, written in zip(listed, text, strict=True)]


PARAMETERS: Mapping[str, tuple[str, Callable[[str], str]]] = {
    "share": (r"\d+(?:\.\d+)?(?:e-\d+)?", lambda text: short_percent(float(text))),
    "atol": (r"\d+e-\d+", lambda text: short(float(text))),
    "count": (r"\d+", str),
    "layer": (r"\d+", str),
    "side": (r"joint|left|right", str),
    "mask": (r"principal|low", str),
    "composite": (r"principal_not_low|nonprincipal_or_low", lambda text: text.replace("_", " ")),
    "block": (r"[a-z_]+", lambda text: text.replace("_", " ")),
    "parts": (r"global|tensor|magnitude", str),
    "null": (
        r"visibility|permutation|permutation_row|permutation_column|spectrum",
        lambda text: text.replace("_", " "),
    ),
    "of": (r"[a-z_]+(?:\.[a-z0-9_.-]+)?", lambda key: quantity(key).label),
    "above": (r"(?:_\d+e-\d+)?", lambda text: f" (above {short(float(text[1:]))})" if text else ""),
}
"""Parameter of a key -> its pattern, and how it reads in a label."""


@dataclass(frozen=True)
class Quantity:
    """One number, or a family of them. Raises ValueError without a label, a definition, a source or a known kind."""

    key: str
    label: str
    kind: str
    """One of `KINDS`."""
    definition: str
    """What it is, in a sentence or two."""
    source: str
    """The paper's section or table, another paper, or `ours`."""
    axis: str = ""
    """What an axis of it is called, with its unit: the label unless said otherwise."""
    chance: str = ""
    """The key of what chance alone would give, or that number itself; empty if neither is known."""
    ceiling: str = ""
    """The key of the largest value that it can have, where that is a number of its own."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS or not all((self.key, self.label, self.definition, self.source)):
            wanted = f"a label, a definition, a source and one of the kinds {', '.join(KINDS)}"
            raise ValueError(f"quantities.yaml: {self.key}: wanted {wanted}; found {self}")
        if not self.axis:
            object.__setattr__(self, "axis", f"{self.label}{self.unit}")

    @property
    def scale(self) -> float:
        """What it is multiplied by to be drawn: 100 for percent."""
        return 100.0 if KINDS[self.kind] is _percent else 1.0

    @property
    def unit(self) -> str:
        """What follows its label on an axis."""
        return " (%)" if self.scale > 1 else ""


@cache
def families() -> Mapping[str, tuple[Quantity, ...]]:
    """The records of quantities.yaml by subject, in their order; their keys are templates."""
    content = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf8"))
    return {
        subject: tuple(Quantity(key=key, **record) for key, record in records.items())
        for subject, records in content.items()
    }


@cache
def _patterns() -> tuple[tuple[re.Pattern[str], Quantity], ...]:
    def pattern(key: str) -> re.Pattern[str]:
        escaped = key.replace(".", r"\.")
        return re.compile(re.sub(r"\{(\w+)\}", lambda found: f"(?P<{found[1]}>{PARAMETERS[found[1]][0]})", escaped))

    return tuple((pattern(family.key), family) for subject in families().values() for family in subject)


@cache
def find(key: str) -> Quantity | None:
    """The record of the number with this key; None if there is no such number."""
    expected = re.fullmatch(rf"nulls\.({PARAMETERS['null'][0]})\.(.+)", key)
    if expected and (observed := find(expected[2])):
        null = PARAMETERS["null"][1](expected[1])
        words = {"label": f"{observed.label}: {null}", "definition": f"{observed.definition} As the null expects it."}
        return replace(observed, key=key, **words, source="ours", axis="", chance="", ceiling="")
    for pattern, family in _patterns():
        found = pattern.fullmatch(key)
        if found:
            given = found.groupdict()
            called = {name: PARAMETERS[name][1](text) for name, text in given.items()}
            keys = {name: getattr(family, name).format(**given) for name in ("chance", "ceiling")}
            words = {name: getattr(family, name).format(**called) for name in ("label", "definition", "axis")}
            return Quantity(**asdict(family) | {"key": key} | keys | words)
    return None


def family_of(key: str) -> Quantity:
    """The record of its family, with parameters in braces. Raises LookupError for a key that nobody defined."""
    for pattern, family in _patterns():
        if pattern.fullmatch(key):
            return family
    raise _unknown(key)


def quantity(key: str) -> Quantity:
    """The record of the number with this key. Raises LookupError for one that nobody defined."""
    found = find(key)
    if found is None:
        raise _unknown(key)
    return found


def _unknown(key: str) -> LookupError:
    return LookupError(f"no quantity {key!r}; quantities.yaml, where every number is defined, has no such key")


def label(key: str) -> str:
    """What the number with this key is called."""
    return quantity(key).label


def written(key: str, value: float) -> str:
    """A value of the number with this key for the eye; a dash for NaN."""
    return as_text(quantity(key).kind, value)


ROWS: Mapping[str, str] = {
    "energy_at": "energy_at.{at:g}",
    "energy_top": "svd_energy.{at:g}",
    "energy_rank": "svd_energy_rank.{at:g}",
    "rank_share": "rank_share.{at:.0e}",
    "projection": "projection.{side}.{at:g}",
    "sine_mean": "sines.{side}.mean",
    "sine_max": "sines.{side}.max",
    "rotation": "rotation.{at:g}",
    "spectral_drift": "spectral_drift{side}",
    "density": "density{above}",
    "coverage": "coverage{above}.{side}.{at:g}",
    "coverage_ceiling": "coverage_ceiling{above}.{at:g}",
    "changed_in": "changed_in{above}.{side}.{at:g}",
}
"""Metric of a row of geometry.csv -> the key of its number; a metric that is not here is a key itself."""


def key_of(metric: str, side: str = "", at: float = math.nan, atol: float = math.nan) -> str:
    """The key of a row of geometry.csv. The update mask is exact nonzero unless the key says another tolerance."""
    if metric == "spectral_drift":
        side = {"source": "", "delta": "_delta"}[side]
    above = f"_{atol:.0e}" if atol > 0 else ""
    return ROWS.get(metric, metric).format(side=side, at=at, above=above)


def flat(summary: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Every number of a summary, which is nested, with its dotted key; None is undefined. Layers are numbered."""
    for name, value in summary.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{above}{name}.")
        elif name == "interval":
            yield from zip((f"{above}{name}.low", f"{above}{name}.high"), value, strict=True)
        elif isinstance(value, list):
            for layer in value:
                yield from flat({k: v for k, v in layer.items() if k != "layer"}, f"{above}{name}.{layer['layer']}.")
        elif not isinstance(value, str):
            yield f"{above}{name}", value
