"""The parameters of a notebook: names and values are checked before anything is read."""

from __future__ import annotations

import difflib
from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Annotated, Any

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, ValidationError

from opdlib.errors import ParameterError
from opdlib.foreign import Loader, foreign
from opdlib.quantities import short
from opdlib.registry.pairs import DEFAULT, find_pair
from opdlib.registry.study import find_scale

if TYPE_CHECKING:
    import pandas as pd

PLAIN = (bool, int, float, str, list, tuple, dict, set, type(None))
"""Types of the values that papermill can inject. Anything else in a namespace is a module or a function."""

MARK = "_opdlib_names_checked"
"""Variable that `check` leaves in a notebook's namespace."""


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("wanted a name or a path as text")
    return value


def _listed(value: Any) -> list[Any]:
    """papermill's `-p` hands over lists as text: it is read as YAML."""
    with foreign("a list", ParameterError, "wanted values as in [a, b]"):
        read = yaml.load(value, Loader=Loader) if isinstance(value, str) else value
    return list(read) if isinstance(read, list | tuple) else [] if read is None else [read]


def _number(value: Any) -> float:
    """YAML 1.1 reads 1e-5 as text, so text that looks like a number is one."""
    try:
        number = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else -1.0
    except ValueError:
        number = -1.0
    if not 0 < number < float("inf"):
        raise ValueError("wanted a positive number")
    return number


def _shares(numbers: tuple[float, ...]) -> tuple[float, ...]:
    if any(number > 1 for number in numbers):
        raise ValueError("wanted shares from 0 to 1, such as 0.01 for one percent")
    return numbers


def _whole(numbers: tuple[float, ...]) -> tuple[float, ...]:
    if any(number != int(number) for number in numbers):
        raise ValueError("wanted whole numbers from 1 up")
    return tuple(int(number) for number in numbers)


Text = Annotated[str, BeforeValidator(_text)]
OptionalText = Annotated[Text | None, BeforeValidator(lambda value: None if value == "" else value)]
Texts = Annotated[tuple[Text, ...], BeforeValidator(_listed)]
Numbers = Annotated[tuple[Annotated[float, BeforeValidator(_number)], ...], BeforeValidator(_listed)]
OptionalScale = Annotated[str | None, BeforeValidator(lambda value: find_scale(_text(value)).name)]


class Settings(BaseModel):
    """Checked parameters. A notebook uses some of them; the others keep their defaults."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pair: Text = DEFAULT
    """Key of the registry."""
    source: OptionalText = None
    """Checkpoint before training; with `trained` it wins over `pair`."""
    trained: OptionalText = None
    """Checkpoint after training."""
    skip: Texts = ()
    """Tensors left out, by name or shell pattern."""
    atol: Annotated[float | None, BeforeValidator(_number)] = None
    """A weight counts as unchanged up to this absolute difference."""
    thresholds: Numbers = ()
    """Absolute differences that are tabulated."""
    shares: Annotated[Numbers, AfterValidator(_shares)] = ()
    """Shares that are tabulated, in (0, 1]: of coordinates by size, or of the rank of a matrix."""
    tops: Annotated[Numbers, AfterValidator(_whole)] = ()
    """Numbers of leading singular values that are tabulated, whole."""
    tolerances: Numbers = ()
    """Sizes of a singular value relative to the largest, from which it counts for the rank."""
    scale: OptionalScale = None
    """A scale of the study, on the pages that show many runs instead of a pair."""
    beside: OptionalScale = None
    """Another scale, whose runs stand beside those of `scale`."""

    @property
    def compared(self) -> dict[str, Any]:
        """What is compared: the keywords of `opdlib.notebook.load`."""
        return {name: getattr(self, name) for name in ("pair", "source", "trained", "skip")}

    @property
    def scales(self) -> list[str]:
        """The scales whose runs are shown, each once, the one that leads first."""
        return [*dict.fromkeys(name for name in (self.scale, self.beside) if name is not None)]

    def table(self) -> pd.DataFrame:
        """What was chosen, for the reader: one row a parameter that is in use."""
        import pandas as pd

        replaced = self.source is not None or self.scale is not None
        chosen = {name: value for name, value in self if not (name == "pair" and replaced)}
        rows = {name: _shown(value) for name, value in chosen.items() if value not in (None, ())}
        return pd.DataFrame({"value": rows}).rename_axis(columns="parameter")


def check(namespace: MutableMapping[str, Any], *names: str) -> Settings:
    """The parameters called `names`, from a notebook's `globals()`. Call it in the cell after the parameters.

    papermill injects every name it is given and only warns about those that a notebook does not have; here any other
    plain variable is a misspelled parameter. Names are looked at once for each kernel: when someone runs the cell
    again, the variables of later cells are there too. Raises ParameterError for an unknown name, with those there are,
    and for a value that makes no sense; RegistryError for a pair or a scale that does not exist.
    """
    if MARK not in namespace:
        plain = {name for name, value in namespace.items() if isinstance(value, PLAIN) and not name.startswith("_")}
        if unknown := sorted(plain - {*names, "In", "Out"}):  # the two are IPython's
            close = difflib.get_close_matches(unknown[0], names, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else "."
            raise ParameterError(f"unknown parameter {unknown[0]!r}{hint} This notebook takes: {', '.join(names)}")
        namespace[MARK] = True
    try:
        settings = Settings(**{name: namespace[name] for name in names})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise ParameterError(f"parameter {first['loc'][0]}: {first['input']!r}; {first['ctx']['error']}") from None
    if (settings.source is None) != (settings.trained is None):
        raise ParameterError("source and trained go together: give both checkpoints, or neither and a pair")
    if settings.source is None:
        find_pair(settings.pair)
    return settings


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(_shown(item) for item in value)
    return short(value) if isinstance(value, float) else str(value)
