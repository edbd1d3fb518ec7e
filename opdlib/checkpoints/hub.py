"""Checkpoints on the Hugging Face Hub, at a commit that is written down."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from opdlib.checkpoints import adapter
from opdlib.checkpoints.checkpoint import Checkpoint
from opdlib.checkpoints.formats import open_path
from opdlib.checkpoints.local import COMPANIONS, WEIGHTS
from opdlib.checkpoints.ranges import Http
from opdlib.checkpoints.remote import RemoteCheckpoint
from opdlib.checkpoints.shards import chosen, listed_in
from opdlib.errors import CheckpointError
from opdlib.foreign import read_object

NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w./-]+)?")

LEFT_ALONE = ("original/*", "consolidated*")
"""The same weights once more, in the format of those who trained them."""


def open_hub(spec: str) -> Checkpoint:
    """Open `org/name` or `org/name@revision`: from the Hub's own cache if it is whole there, else where it lies, a
    tensor at a time. An adapter, and what is no safetensors, is downloaded.

    A branch or tag is resolved to its commit first; `revision` of the result is that commit. Raises CheckpointError
    when the repository, the revision or the network is not there.
    """
    folder = _snapshot(spec, COMPANIONS)
    name, commit = spec.partition("@")[0], folder.name  # a snapshot lies in a folder that is named after its commit
    if not _whole(folder) and not adapter.holds(folder):
        there = _listed(spec, name, commit)
        if any(file.endswith(".safetensors") for file in there):
            files = chosen(spec, there, lambda index: read_object(folder / index, CheckpointError, "upload it again"))
            return RemoteCheckpoint(spec, files, Http(name, commit), f"{name}@{commit}", folder, commit)
    return open_path(folder if _whole(folder) else download(f"{name}@{commit}"), spec, revision=commit)


def download(spec: str) -> Path:
    """The folder of a whole snapshot, named after its commit; with pickles if it has no safetensors. Raises
    CheckpointError as `open_hub` does."""
    folder = _snapshot(spec, (WEIGHTS, *COMPANIONS))
    return folder if any(folder.glob(WEIGHTS)) else _snapshot(spec, ("*.bin", *COMPANIONS))


def _whole(folder: Path) -> bool:
    """Whether a snapshot has all of its safetensors on this machine; offline, what is there is all there is."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return True
    weights = {file.name for file in folder.glob(WEIGHTS) if not file.name.startswith("consolidated")}
    indices = [read_object(i, CheckpointError, "remove it") for i in folder.glob(f"{WEIGHTS}.index.json")]
    return bool(weights) and all({*listed_in(str(folder), index)} <= weights for index in indices)


def _listed(spec: str, name: str, commit: str) -> list[str]:
    """The files at the top of a repository."""
    from huggingface_hub import HfApi

    with _explained(spec):
        return [file for file in HfApi().list_repo_files(name, revision=commit) if "/" not in file]


def _snapshot(spec: str, patterns: Sequence[str]) -> Path:
    # Imported here: the Hub client costs half a second that local work need not pay.
    from huggingface_hub import snapshot_download

    name, _, revision = spec.partition("@")
    wanted, left = list(patterns), list(LEFT_ALONE)
    with _explained(spec):
        return Path(snapshot_download(name, revision=revision or None, allow_patterns=wanted, ignore_patterns=left))


@contextmanager
def _explained(spec: str) -> Iterator[None]:
    """What the Hub's client raises, as a CheckpointError of one line."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled

    try:
        yield
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(
            f"{spec}: no such local folder, and not to be had from the Hub ({reason}); "
            "check the name, the revision and the network, or give a local folder"
        ) from error
