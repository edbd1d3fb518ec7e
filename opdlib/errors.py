"""Every error a user can cause, with one root.

A message names the thing, the place, what was found, what was wanted and what to do, in one line: the command line
prints it as it is. Each class is also the standard exception that fits it, so callers need not know this module. To add
one: derive from `OpdError` and from one standard exception, and say in the docstring when it is raised.
"""


class OpdError(Exception):
    """Root of all errors that opdlib raises on purpose."""


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

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class ParameterError(OpdError, ValueError):
    """An option of a command or a parameter of a notebook has a wrong name or value."""


class RecipeError(OpdError, ValueError):
    """A training recipe has a wrong key or value, or names something that is not there."""


class StudyError(OpdError, RuntimeError):
    """A run of the study that was made in a process of its own failed; its log says why."""


class OutputError(OpdError, OSError):
    """Results cannot be written: no space, no permission, or a file is in the way."""


class MissingDependencyError(OpdError, ImportError):
    """An optional package is needed and not installed; the message gives the pip command."""


def needs_extra(error: ModuleNotFoundError) -> MissingDependencyError:
    """What to raise where something is missing that comes with the extra `opdlib[train]`."""
    return MissingDependencyError(f"{error.name} is not installed; run: pip install 'opdlib[train]'")
