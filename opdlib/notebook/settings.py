"""The parameters of a notebook: names and values are checked before anything is read."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import pandas as pd
import yaml

from opdlib.errors import ParameterError
from opdlib.quantities import short
from opdlib.registry.pairs import DEFAULT, find_pair
from opdlib.registry.study import find_scale
from opdlib.tables.written import headed

PLAIN = (bool, int, float, str, list, tuple, dict, set, type(None))
"""Types of the values that papermill can inject. Anything else in a namespace is a module or a function."""

OF_IPYTHON = ("In", "Out")

MARK = "_opdlib_names_checked"
"""Variable that `check` leaves in a notebook's namespace."""


@dataclass(frozen=True)
class Settings:
    """Checked parameters. A notebook uses some of them; the others keep their defaults."""

    pair: str = DEFAULT
    """Key of the registry."""
    source: str | None = None
    """Checkpoint before training; with `trained` it wins over `pair`."""
    trained: str | None = None
    """Checkpoint after training."""
    skip: tuple[str, ...] = ()
    """Tensors left out, by name or shell pattern."""
    atol: float | None = None
    """A weight counts as unchanged up to this absolute difference."""
    thresholds: tuple[float, ...] = ()
    """Absolute differences that are tabulated."""
    shares: tuple[float, ...] = ()
    """Shares that are tabulated, in (0, 1]: of coordinates by size, or of the rank of a matrix."""
    tops: tuple[int, ...] = ()
    """Numbers of leading singular values that are tabulated."""
    tolerances: tuple[float, ...] = ()
    """Sizes of a singular value relative to the largest, from which it counts for the rank."""
    scale: str | None = None
    """A scale of the study, on the pages that show many runs instead of a pair."""

    @property
    def compared(self) -> dict[str, Any]:
        """What is compared: the keywords of `opdlib.notebook.load`."""
        return {name: getattr(self, name) for name in ("pair", "source", "trained", "skip")}

    def table(self) -> pd.DataFrame:
        """What was chosen, for the reader: one row a parameter that is in use."""
        chosen = {f.name: getattr(self, f.name) for f in fields(self)}
        if self.source is not None or self.scale is not None:
            del chosen["pair"]
        rows = {name: _shown(value) for name, value in chosen.items() if value not in (None, ())}
        return headed(pd.DataFrame({"value": list(rows.values())}, index=pd.Index(list(rows), name="parameter")))


def check(namespace: MutableMapping[str, Any], *names: str) -> Settings:
    """The parameters called `names`, from a notebook's `globals()`. Call it in the cell after the parameters.

    papermill injects every name it is given and only warns about those that a notebook does not have; here any other
    plain variable is a misspelled parameter. Names are looked at once for each kernel: when someone runs the cell
    again, the variables of later cells are there too. Raises ParameterError for an unknown name, with those there are,
    and for a value that makes no sense; RegistryError for a pair or a scale that does not exist.
    """
    if MARK not in namespace:
        _refuse_unknown(namespace, names)
        namespace[MARK] = True
    settings = Settings(**{name: CHECKS[name](name, namespace[name]) for name in names})
    if (settings.source is None) != (settings.trained is None):
        raise ParameterError("source and trained go together: give both checkpoints, or neither and a pair")
    if settings.source is None:
        find_pair(settings.pair)
    return settings


def _refuse_unknown(namespace: Mapping[str, Any], names: Sequence[str]) -> None:
    found = {n for n, v in namespace.items() if isinstance(v, PLAIN) and not n.startswith("_") and n not in OF_IPYTHON}
    unknown = sorted(found - set(names))
    if unknown:
        close = difflib.get_close_matches(unknown[0], names, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else "."
        raise ParameterError(f"unknown parameter {unknown[0]!r}{hint} This notebook takes: {', '.join(names)}")


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(_shown(item) for item in value)
    return short(value) if isinstance(value, float) else str(value)


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ParameterError(f"parameter {name}: {value!r}; wanted a name or a path as text")
    return value


def _optional_text(name: str, value: Any) -> str | None:
    return None if value is None or value == "" else _text(name, value)


def _listed(name: str, value: Any) -> list[Any]:
    """papermill's `-p` hands over lists as text: it is read as YAML."""
    read = yaml.safe_load(value) if isinstance(value, str) else value
    return list(read) if isinstance(read, list | tuple) else [] if read is None else [read]


def _texts(name: str, value: Any) -> tuple[str, ...]:
    return tuple(_text(name, item) for item in _listed(name, value))


def _number(name: str, value: Any) -> float:
    """YAML 1.1 reads 1e-5 as text, so text that looks like a number is one."""
    try:
        number = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else -1.0
    except ValueError:
        number = -1.0
    if not 0 < number < float("inf"):
        raise ParameterError(f"parameter {name}: {value!r}; wanted a positive number")
    return number


def _numbers(name: str, value: Any) -> tuple[float, ...]:
    return tuple(_number(name, item) for item in _listed(name, value))


def _shares(name: str, value: Any) -> tuple[float, ...]:
    shares = _numbers(name, value)
    if any(share > 1 for share in shares):
        raise ParameterError(f"parameter {name}: {value!r}; wanted shares from 0 to 1, such as 0.01 for one percent")
    return shares


def _counts(name: str, value: Any) -> tuple[int, ...]:
    numbers = _numbers(name, value)
    if any(number != int(number) for number in numbers):
        raise ParameterError(f"parameter {name}: {value!r}; wanted whole numbers from 1 up")
    return tuple(int(number) for number in numbers)


def _scale(name: str, value: Any) -> str:
    return find_scale(_text(name, value)).name


CHECKS: dict[str, Callable[[str, Any], Any]] = {
    "pair": _text,
    "source": _optional_text,
    "trained": _optional_text,
    "skip": _texts,
    "atol": _number,
    "thresholds": _numbers,
    "shares": _shares,
    "tops": _counts,
    "tolerances": _numbers,
    "scale": _scale,
}
"""Parameter -> what makes a checked value of it."""
