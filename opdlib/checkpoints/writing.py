"""Safetensors written tensor by tensor, into files and folders that appear whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from opdlib.checkpoints.checkpoint import TensorInfo
from opdlib.errors import OutputError

BYTES = {"U8": 1, "BF16": 2}
"""Bytes of one coordinate of each dtype that is written here."""


def write_safetensors(
    out: BinaryIO,
    metadata: Mapping[str, str] | None,
    infos: Mapping[str, TensorInfo],
    contents: Iterable[bytes | memoryview],
) -> None:
    """Write tensors in the order of `infos`; `contents` gives their bytes one by one, so only one need be in memory.

    With names in order, of one dtype, the bytes are those of `safetensors.torch.save_file`; other than there, the order
    of the metadata is kept, so equal input gives equal bytes.
    """
    header: dict[str, object] = {} if metadata is None else {"__metadata__": metadata}
    end = 0
    for name, info in infos.items():
        start, end = end, end + info.numel * BYTES[info.dtype]
        header[name] = {"dtype": info.dtype, "shape": info.shape, "data_offsets": (start, end)}
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    out.write(len(text).to_bytes(8, "little") + text)
    for content in contents:
        out.write(content)


@contextlib.contextmanager
def new_file(target: Path) -> Iterator[BinaryIO]:
    """A file to write; it becomes `target`, replacing what was there, if nothing is raised. Raises OutputError."""
    with _staged(target) as staging:
        with staging.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        staging.replace(target)


@contextlib.contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A folder that becomes `target`, which must be absent or empty, if nothing is raised. Raises OutputError."""
    if target.exists() and (target.is_file() or any(target.iterdir())):
        raise OutputError(f"{target}: is in the way; give a new folder, or a file that ends in .safetensors")
    with _staged(target) as staging:
        staging.mkdir()
        yield staging
        staging.replace(target)


@contextlib.contextmanager
def _staged(target: Path) -> Iterator[Path]:
    """A place beside `target` to build it; whatever is still there afterwards is removed."""
    staging = target.parent / f".{target.name}.{os.getpid()}.part"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield staging
    except OSError as error:
        raise OutputError(
            f"{target}: cannot be written ({error.strerror or error}) and was not; free space or name another place"
        ) from error
    finally:
        if staging.is_dir():
            shutil.rmtree(staging)
        elif staging.exists():
            staging.unlink()
