"""Every error a user can cause, with one root.

A message names the thing, the place, what was found, what was wanted and what to do, in one line: the command line
prints it as it is. Each class is also the standard exception that fits it, so callers need not know this module. To add
one: derive from `OpdError` and from one standard exception, and say in the docstring when it is raised.
"""

from collections.abc import Sequence

LONGEST_WORD, LONGEST_LINE = 300, 3000
"""Characters that are shown of a name, and of a message."""


class OpdError(Exception):
    """Root of all errors that opdlib raises on purpose."""

    def __str__(self) -> str:
        return one_line(str(self.args[0]) if self.args else "")


def one_line(text: str) -> str:
    """The text in one line for a terminal, with the names in it that files chose: what cannot be printed is escaped,
    and of a very long word or text the middle is left out.

    >>> one_line("tensor 'a\\rb'")
    "tensor 'a\\\\rb'"
    """
    escaped = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return _shortened(" ".join(_shortened(word, LONGEST_WORD) for word in escaped.split(" ")), LONGEST_LINE)


def named(things: Sequence[object], most: int = 5) -> str:
    """The first of these things, and how many more there are.

    >>> named(["a", "b", "c"], 2)
    'a, b and 1 more'
    """
    more = f" and {len(things) - most} more" if len(things) > most else ""
    return ", ".join(map(str, things[:most])) + more


def _shortened(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most // 2]}...{text[-most // 3 :]}"


class CheckpointError(OpdError, ValueError):
    """A checkpoint cannot be found, opened, read or trusted."""


class AlignmentError(OpdError, ValueError):
    """Two checkpoints do not hold the same tensors."""


class MeasureError(OpdError, ValueError):
    """A tensor cannot be measured: NaN, Inf or a dtype that is no float."""


class PatchError(OpdError, ValueError):
    """A patch cannot be made, or does not belong to the source it is applied to."""


class RegistryError(OpdError, KeyError):
    """A pair, table or results folder is unknown or malformed."""


class ParameterError(OpdError, ValueError):
    """An option of a command or a parameter of a notebook has a wrong name or value."""


class RecipeError(OpdError, ValueError):
    """A training recipe has a wrong key or value, or names something that is not there."""


class StudyError(OpdError, RuntimeError):
    """A run of the study that was made in a process of its own failed; its log says why."""


class VerifyError(OpdError, ValueError):
    """A report is not as it was written, or its checkpoints give other numbers."""


class OutputError(OpdError, OSError):
    """Results cannot be written: no space, no permission, or a file is in the way."""


class MissingDependencyError(OpdError, ImportError):
    """An optional package is needed and not installed; the message gives the pip command."""


def needs_extra(error: ModuleNotFoundError) -> MissingDependencyError:
    """What to raise where something is missing that comes with the extra `opdlib[train]`."""
    return MissingDependencyError(f"{error.name} is not installed; run: pip install 'opdlib[train]'")
