"""The boundary to files that somebody else made, and to the packages that read them.

A file may hold anything, and so a package that reads it may raise anything. `foreign` is put around such a call, never
around code of ours: what the package raises becomes one of our errors, in one line that names the file. Files are read
here only if they are files: a pipe would be waited for, a device has no end.
"""

import errno
import json
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from opdlib.errors import MissingDependencyError, OpdError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What is wrong with a disk, and with no file that is read."""
DEEPEST = 50
"""Brackets of YAML within each other; PyYAML takes minutes for some thousands."""
LONGEST_REASON = 300
"""Characters of a foreign message that are passed on."""


@contextmanager
def foreign(place: object, kind: type[OpdError], do: str) -> Iterator[None]:
    """A call of another package, about the file `place`: what it raises becomes a `kind`, with what to `do`.

    Errors of ours pass, and so does what is no matter of the file: an interrupt, the end of the process. A package that
    is not there is a MissingDependencyError.
    """
    try:
        yield
    except OpdError:
        raise
    except ImportError as error:
        raise MissingDependencyError(
            f"{place}: needs a package that is not installed or too old ({reason(error)}); install it with pip"
        ) from error
    except OSError as error:
        if error.errno in FULL:
            raise
        raise kind(f"{place}: {reason(error)}; {do}") from error
    except Exception as error:  # theirs, of whatever kind
        raise kind(f"{place}: {reason(error)}; {do}") from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # how a package that is written in Rust gives up
            raise
        raise kind(f"{place}: {reason(error)}; {do}") from error


def reason(error: BaseException) -> str:
    """What an error of another package says, in one line and not at length; its name where it says nothing."""
    said = " ".join(str(error).partition("Exception raised from")[0].split()) or type(error).__name__  # torch goes on
    return said if len(said) <= LONGEST_REASON else f"{said[:LONGEST_REASON]}..."


def read_bytes(file: Path, kind: type[OpdError], do: str) -> bytes:
    """What a file holds, which must be one. Raises a `kind` that says what to `do`."""
    with foreign(file, kind, do):
        if not file.is_file():
            raise kind(f"{file}: {'is no regular file' if file.exists() else 'missing'}; {do}")
        return file.read_bytes()


def read_text(file: Path, kind: type[OpdError], do: str) -> str:
    """The text of a file, in UTF-8, with every end of a line as it stands. Raises a `kind` that says what to `do`."""
    content = read_bytes(file, kind, do)
    with foreign(file, kind, do):
        return content.decode()


def read_object(file: Path, kind: type[OpdError], do: str) -> dict[str, Any]:
    """What a JSON file holds, which must be an object. Raises a `kind` that says what to `do`."""
    text = read_text(file, kind, do)
    with foreign(f"{file}: not readable as JSON", kind, do):
        content = json.loads(text)
    if not isinstance(content, dict):
        raise kind(f"{file}: holds a {type(content).__name__}, wanted a JSON object; {do}")
    return content


def read_value(file: Path, kind: type[OpdError], do: str, *keys: str) -> Any:
    """What stands in a JSON file under these keys, one inside the other. Raises a `kind` that says what to `do`."""
    found: Any = read_object(file, kind, do)
    for key in keys:
        if not isinstance(found, dict) or key not in found:
            raise kind(f"{file}: no {'.'.join(keys)} in it; {do}")
        found = found[key]
    return found


class Loader(yaml.SafeLoader):
    """SafeLoader that does not let a repeated key overwrite the first, and takes every value as it is written: a few
    aliases of aliases stand for more than any memory holds."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.get_mark()
            raise yaml.constructor.ConstructorError(None, None, "an alias is not allowed, write the value", mark)
        return super().compose_node(parent, index)

    def fetch_flow_collection_start(self, token: type[yaml.Token]) -> None:
        if self.flow_level > DEEPEST:
            raise yaml.scanner.ScannerError(None, None, "nested too deep", self.get_mark())
        super().fetch_flow_collection_start(token)

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        found: int = super().construct_yaml_int(node)
        if found.bit_length() > 200:
            raise yaml.constructor.ConstructorError(None, None, "a number without end", node.start_mark)
        return found

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        found = super().construct_mapping(node, deep)
        if len(found) < len(node.value):
            seen = set()
            for key in (self.construct_object(key, deep=True) for key, _ in node.value):
                if key in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"key {key!r} occurs twice", node.start_mark)
                seen.add(key)
        return found


Loader.add_constructor("tag:yaml.org,2002:int", Loader.construct_yaml_int)


def read_yaml(file: Path, kind: type[OpdError], do: str) -> Any:
    """What a YAML file holds. Raises a `kind` that says what to `do`."""
    text = read_text(file, kind, do)
    with foreign(f"{file}: not readable as YAML", kind, do):
        return deepcopy(_parsed(text))


@lru_cache(maxsize=256)
def _parsed(text: str) -> Any:
    """What a YAML text holds. A page asks for the same recipes again and again, and PyYAML takes 10 ms for each."""
    return yaml.load(text, Loader=Loader)
