"""Checkpoints on the Hugging Face Hub, at a commit that is written down."""

from __future__ import annotations

import re
from pathlib import Path

from opdlib.checkpoints.checkpoint import Checkpoint
from opdlib.checkpoints.formats import open_path
from opdlib.checkpoints.local import COMPANIONS, WEIGHTS
from opdlib.errors import CheckpointError

NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w./-]+)?")


def open_hub(spec: str) -> Checkpoint:
    """Open `org/name` or `org/name@revision`, downloading what is not yet in the Hub's own cache.

    A branch or tag is resolved to its commit first; `revision` of the result is that commit. Raises CheckpointError
    when the repository, the revision or the network is not there.
    """
    folder = download(spec)
    return open_path(folder, spec, revision=folder.name)


def download(spec: str) -> Path:
    """The folder of a snapshot, named after its commit; with pickles if it has no safetensors. Raises
    CheckpointError as `open_hub` does."""
    # Imported here: the Hub client costs half a second that local work need not pay.
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled

    name, _, revision = spec.partition("@")
    try:
        for weights in (WEIGHTS, "*.bin"):
            wanted = [weights, *COMPANIONS]
            folder = Path(snapshot_download(name, revision=revision or None, allow_patterns=wanted))
            if any(folder.glob(WEIGHTS)):
                break
        return folder
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(
            f"{spec}: no such local folder, and not to be had from the Hub ({reason}); "
            "check the name, the revision and the network, or give a local folder"
        ) from error
