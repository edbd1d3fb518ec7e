"""What summary.json and provenance.json must hold before anything is computed of them: a seal says that a file is as it
was written, not that opdlib wrote it."""

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from opdlib.errors import OpdError

TABLES = {
    "tensors": (
        *("tensor", "part", "layer", "block", "module", "expert", "shape", "dtype_source", "dtype_trained", "size"),
        *("exact_zero", "within_ulp", "energy", "source_energy", "matrices", "no_matrix_because"),
    ),
    "sparsity": ("tensor", "rule", "threshold", "unchanged"),
    "energy": ("tensor", "share", "energy"),
    "curve": ("threshold", "below"),
    "magnitude": ("magnitude", "coordinates", "updated", "visible"),
    "geometry": ("tensor", "expert", "route", "metric", "side", "at", "atol", "value", "expected"),
    "undefined": ("tensor", "expert", "undefined", "reason"),
    "nulls": ("null", "tensor", "expert", "metric", "side", "at", "value"),
}
"""Table -> columns that it must have."""
NAMED = ("tensor", "part", "block", "module")
"""Columns of tensors.csv in which no cell is empty."""
TEXT = (
    *("tensor", "part", "block", "module", "shape", "dtype_source", "dtype_trained", "no_matrix_because"),
    *("rule", "route", "metric", "side", "undefined", "reason", "null", "key"),
)
"""Columns of words: a tensor may be called NA, 1e5 or true. All others of `TABLES` are numbers."""

MORE = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)
"""Whoever wrote a file may say more in it."""

LARGEST = 1e300
"""Numbers of a summary are below it; nothing that is measured comes near."""


def _numbers(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _numbers(own) for name, own in value.items()}
    if value is not None and not (type(value) in (int, float) and abs(value) < LARGEST):
        raise ValueError(f"{value!r:.80} is no number")
    return value


Numbers = Annotated[Any, AfterValidator(_numbers)]
"""A number of a summary, None where it is undefined, or several by name."""


class Explained(BaseModel):
    """What a null model says of one number."""

    model_config = MORE

    ratio: float | None
    interval: list[float | None] = Field(min_length=2, max_length=2)
    verdict: str


class Layer(BaseModel):
    """The numbers of one layer."""

    model_config = MORE
    __pydantic_extra__: dict[str, Numbers]

    layer: int


class Summary(BaseModel):
    """The numbers of a pair, in one view; section by section, all that is not named here is a number or several."""

    model_config = MORE
    __pydantic_extra__: dict[str, Numbers]

    pair: str
    view: str
    tensors: int = Field(ge=0, lt=2**63)
    parameters: int = Field(ge=0, lt=2**63)
    blocks: dict[str, dict[str, Numbers]]
    layers: list[Layer]
    nulls_scale: str = ""
    nulls: dict[str, dict[str, Numbers]] = {}
    explained: dict[str, dict[str, Explained]] = {}


class Origin(BaseModel):
    """Which checkpoint it was."""

    model_config = MORE

    spec: str
    digest: str


class Identity(BaseModel):
    """Which measurement it was; see `opdlib.measurement.schedule.identity`."""

    model_config = MORE

    source: str
    trained: str
    view: str
    skip: list[str]
    metrics: list[str]
    format: int
    rename: dict[str, str] = {}


class Compared(BaseModel):
    """What was compared, and with what."""

    model_config = MORE

    source: Origin
    trained: Origin
    identity: Identity
    tied_or_skipped: dict[str, str]
    renamed: dict[str, str]
    undefined: dict[str, str]
    device: str
    versions: dict[str, str]
    note: str = ""
    notes: dict[str, str] = {}


class Provenance(Compared):
    """The same of the results of one pair."""

    pair: str


class Several(BaseModel):
    """What was compared where there are several trained checkpoints; see `opdlib.results.several`."""

    model_config = MORE

    source: Origin
    trained: dict[str, Origin]
    identity: dict[str, object]


def check_fit(model: type[BaseModel], content: object, place: object, kind: type[OpdError], do: str) -> None:
    """Raise a `kind` that names the place and the key if the content is not what the model wants."""
    try:
        model.model_validate(content)
    except RecursionError as error:
        raise kind(f"{place}: nested too deep; {do}") from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise kind(f"{place}: {'.'.join(map(str, first['loc']))}: {first['msg']}; {do}") from None
