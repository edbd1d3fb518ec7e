"""Files of entries by key, as data/ has them: read, and each entry checked by its pydantic model."""

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from opdlib.errors import RegistryError
from opdlib.files import data_root
from opdlib.foreign import read_yaml

STRICT = ConfigDict(extra="forbid", frozen=True)
"""An entry has no other keys than those of its model, and is not changed once it is read."""

Model = TypeVar("Model", bound=BaseModel)


def read_entries(name: str) -> dict[str, Any]:
    """The entries of the YAML file `name` of data/, by key. Raises RegistryError if it is no mapping or names a key
    twice."""
    content = read_yaml(data_root() / name, RegistryError, "repair the file")
    return mapping(content, name)


def mapping(content: object, place: str) -> dict[str, Any]:
    """`content`, which must be a mapping. Raises RegistryError that names the place."""
    if not isinstance(content, dict):
        raise RegistryError(f"{place}: wanted a mapping of keys to values, found {content!r}")
    return content


def checked(model: type[Model], content: object, place: str, **given: Any) -> Model:
    """The entry as a model; `given` are fields that the file does not say, because its structure does. Raises
    RegistryError that names the place, the key, what was found and what was wanted."""
    entry: Mapping[str, Any] = mapping(content, place)
    try:
        return model.model_validate({**given, **entry})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
    key, said = ".".join(map(str, first["loc"])), first["msg"].removeprefix("Value error, ")
    if first["type"] == "missing":
        said = f"{key} is missing"
    elif key:
        said = f"{key} is {first['input']!r}: {said}"
    fields = ", ".join(name for name in model.model_fields if name not in given)
    raise RegistryError(f"{place}: {said}; an entry has {fields}")
