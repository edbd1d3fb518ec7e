"""What a patch says of itself. No torch, so that committed results are held against a patch in no time."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter
from safetensors import safe_open

from opdlib.errors import PatchError
from opdlib.foreign import foreign

FORMAT, VERSION = "opdlib-patch", "1"


@dataclass(frozen=True)
class PatchHeader:
    """What a patch says of itself. All digests are SHA-256 as 64 hex digits."""

    source: str
    """Spec of the source; a relative path starts at the patch's own folder."""
    source_digest: str
    """`Checkpoint.digest` of the source."""
    result_digest: str
    """`Checkpoint.digest` of the trained checkpoint."""
    digests: Mapping[str, str]
    """`Checkpoint.tensor_digest` of every trained tensor, changed or not."""
    file_metadata: Mapping[str, str] | None
    """The safetensors metadata of the trained file, in its order; None if it had none."""

    def to_metadata(self) -> dict[str, str]:
        """The header as safetensors metadata, sealed by a digest of its own."""
        metadata = {
            "format": FORMAT,
            "version": VERSION,
            "source": self.source,
            "source_digest": self.source_digest,
            "result_digest": self.result_digest,
            "digests": json.dumps(self.digests, ensure_ascii=False, separators=(",", ":")),
            "file_metadata": json.dumps(self.file_metadata, ensure_ascii=False, separators=(",", ":")),
        }
        return metadata | {"header_digest": _seal(metadata)}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str], file: Path) -> PatchHeader:
        """The inverse of `to_metadata`. Raises PatchError if `file` is no patch, of another version or damaged."""
        if metadata.get("format") != FORMAT:
            raise PatchError(
                f"{file}: a safetensors file, but no patch; wanted one that `opd patch make` wrote "
                "(a checkpoint is opened without `patch:` before its name)"
            )
        if metadata.get("version") != VERSION:
            raise PatchError(
                f"{file}: a patch of version {metadata.get('version')}, this opdlib reads version {VERSION}; "
                "install the opdlib that made it, or make it again"
            )
        content = {key: value for key, value in metadata.items() if key != "header_digest"}
        if metadata.get("header_digest") != _seal(content):
            raise PatchError(f"{file}: its header is damaged; copy or make the patch again")
        with foreign(f"{file}: its header is no patch's", PatchError, "copy or make the patch again"):
            return _HEADER.validate_python(
                {name: content[name] for name in ("source", "source_digest", "result_digest")}
                | {name: json.loads(content[name]) for name in ("digests", "file_metadata")}
            )


_HEADER = TypeAdapter(PatchHeader)


def read_header(file: Path) -> PatchHeader:
    """The header of the patch `file`. Raises PatchError if there is no such file or it is no patch."""
    check_there(file)
    whole = foreign(f"{file}: not a whole safetensors file", PatchError, "copy or make the patch again")
    with whole, safe_open(file, framework="numpy") as opened:
        metadata = opened.metadata()
    return PatchHeader.from_metadata(metadata or {}, file)


def check_there(file: Path) -> None:
    """Raises PatchError if there is no such file."""
    if not file.is_file():
        raise PatchError(
            f"{file}: no such file; wanted a patch that `opd patch make` wrote (the registry's come with a checkout of "
            "the repository, not with an installed package)"
        )


def _seal(metadata: Mapping[str, str]) -> str:
    return hashlib.sha256(json.dumps(metadata, sort_keys=True).encode()).hexdigest()
