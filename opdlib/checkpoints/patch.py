"""Lossless sparse patches: a trained bf16 checkpoint as its difference from the source, in one small file.

    sizes = make(open_checkpoint("base"), open_checkpoint("trained"), Path("trained.patch.safetensors"))
    apply(open_checkpoint("base"), Path("trained.patch.safetensors"), Path("rebuilt"))

`open_checkpoint("patch:FILE")` reads the trained checkpoint from the patch without rebuilding it. Files appear whole or
not at all, and the same two checkpoints give the same bytes.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch

from opdlib.checkpoints import bf16
from opdlib.checkpoints.checkpoint import Checkpoint, TensorInfo
from opdlib.checkpoints.local import COMPANIONS, LocalCheckpoint
from opdlib.checkpoints.patch_header import PatchHeader, read_header
from opdlib.checkpoints.patched import PatchedCheckpoint, columns, flat_bits
from opdlib.errors import OutputError, PatchError
from opdlib.files import new_file, new_folder

Progress = Callable[[list[str]], Iterable[str]]
"""Hands on the names of the tensors while they are worked on; a progress bar, for example."""

BYTES = {"U8": 1, "BF16": 2, "F16": 2, "F32": 4}
"""Bytes of one coordinate of each dtype that is written here."""


@dataclass(frozen=True)
class PatchSizes:
    """What a patch saves: numbers of tensors and of coordinates, all and those whose bits changed, and of bytes, of all
    tensors of the trained checkpoint and of the patch file."""

    tensors: int
    changed_tensors: int
    coordinates: int
    changed: int
    full_bytes: int
    patch_bytes: int

    def __str__(self) -> str:
        return (
            f"{self.patch_bytes:,} bytes, {self.patch_bytes / max(1, self.full_bytes):.2%} of {self.full_bytes:,}: "
            f"{self.changed:,} of {self.coordinates:,} coordinates changed, in {self.changed_tensors} of "
            f"{self.tensors} tensors"
        )


def make(source: Checkpoint, trained: Checkpoint, file: Path, progress: Progress = iter) -> PatchSizes:
    """Write to `file` the patch that turns `source` into `trained`.

    Both must hold the same bf16 tensors; PatchError says where they do not. Raises OutputError if the file cannot be
    written. A source given as a relative path is recorded relative to the patch, so the two can move together.
    """
    _check(source, trained)
    if file.is_file() and (file in source.watched or file in trained.watched or not _is_patch(file)):
        raise OutputError(f"{file}: is in the way, it is no patch or one that is read here; give a new file")
    spec = _spec_from(source, file)
    digests: dict[str, str] = {}
    streams: dict[str, bytes] = {}
    changed = 0
    for name in progress(sorted(source.tensors)):
        before, after = flat_bits(source.read(name)), flat_bits(trained.read(name))
        digests[name] = hashlib.sha256(after.data).hexdigest()
        count = int(np.count_nonzero(before != after))
        if count:
            streams[name] = bf16.encode(before, after, columns(source.tensors[name]))
            changed += count
    metadata = trained.metadata if isinstance(trained, LocalCheckpoint) else {"format": "pt"}
    header = PatchHeader(spec, source.digest(), trained.digest(), digests, metadata)
    source.check_unchanged()
    trained.check_unchanged()
    infos = {name: TensorInfo((len(stream),), "U8") for name, stream in streams.items()}
    with new_file(file) as out:
        write_safetensors(out, header.to_metadata(), infos, streams.values())
    coordinates = sum(info.numel for info in source.tensors.values())
    return PatchSizes(len(source.tensors), len(streams), coordinates, changed, 2 * coordinates, file.stat().st_size)


def apply(source: Checkpoint, file: Path, out: Path, progress: Progress = iter) -> Path:
    """Rebuild the trained checkpoint of the patch `file` and return `out`.

    `out` is one file if it ends in .safetensors, else a new folder with model.safetensors and the configuration and
    tokenizer of the source. A trained checkpoint that was one file written by safetensors comes back with the very same
    bytes. Raises PatchError if `source` is the wrong one or the patch is damaged, OutputError if `out` cannot be
    written.
    """
    patched = PatchedCheckpoint(file, source, f"patch:{file}")
    if out.suffix == ".safetensors":
        with new_file(out, replace=False) as stream:
            _write_checkpoint(stream, patched, progress)
        return out
    with new_folder(out) as folder:
        with (folder / "model.safetensors").open("wb") as stream:
            _write_checkpoint(stream, patched, progress)
        copy_companions(source.folder, folder)
    return out


def verify(source: Checkpoint, file: Path, trained: Checkpoint, progress: Progress = iter) -> None:
    """Check that the patch `file` over `source` gives `trained`, bit for bit. Raises PatchError that names the first
    tensor that differs, or says why the patch cannot be read."""
    patched = PatchedCheckpoint(file, source, f"patch:{file}")
    _check(source, trained)
    for name in progress(sorted(patched.tensors)):
        ours, theirs = flat_bits(patched.read(name)), flat_bits(trained.read(name))
        differing = np.flatnonzero(ours != theirs)
        if differing.size:
            raise PatchError(
                f"{file}: {name} differs from {trained.spec} in {differing.size} of {ours.size} coordinates, "
                f"first at flat index {differing[0]}; the patch belongs to another checkpoint, make it again"
            )


def _check(source: Checkpoint, trained: Checkpoint) -> None:
    for one, other in ((source, trained), (trained, source)):
        if missing := sorted(set(one.tensors) - set(other.tensors)):
            raise PatchError(
                f"{other.spec}: lacks {len(missing)} of the {len(one.tensors)} tensors of {one.spec}, "
                f"first {missing[0]}; a patch needs the same names on both sides, so save both in the same way"
            )
    for name, info in sorted(source.tensors.items()):
        if info.shape != trained.tensors[name].shape:
            raise PatchError(
                f"{name} is {info.shape} in {source.spec} and {trained.tensors[name].shape} in {trained.spec}; "
                "a patch needs equal shapes"
            )
        for side in (source, trained):
            if (dtype := side.tensors[name].dtype) != "BF16":
                raise PatchError(
                    f"{side.spec}: {name} is stored as {dtype}, a patch holds BF16; "
                    "round the checkpoint first: tensor.to(torch.bfloat16), then safetensors.torch.save_file"
                )


def _is_patch(file: Path) -> bool:
    try:
        return bool(read_header(file).result_digest)
    except PatchError:
        return False


def _spec_from(source: Checkpoint, file: Path) -> str:
    """The source's spec as it should be read from the patch's place: pinned to its commit, relative to the patch."""
    if source.spec.startswith("patch:"):
        raise PatchError(f"{source.spec}: a patch cannot be a patch's source; apply it first and give the result")
    if source.revision:
        return f"{source.spec.partition('@')[0]}@{source.revision}"
    path = Path(source.spec)
    if path.exists() and not path.is_absolute():
        # The last part may be a link whose name matters: the Hub's cache links x.safetensors to a nameless file.
        relative = Path(os.path.relpath(path.parent.resolve() / path.name, file.parent.resolve())).as_posix()
        return f"./{relative}"  # never mistaken for a name on the Hub
    return source.spec


def copy_companions(folder: Path | None, to: Path) -> None:
    """Copy configuration and tokenizer that lie in `folder` beside its weights, where there are any, into `to`."""
    if folder is None or not (folder / "config.json").is_file():
        return  # a lone weights file; what lies beside it may be anything
    found = {path for pattern in COMPANIONS for path in folder.glob(pattern) if path.is_file()}
    for path in sorted(path for path in found if not path.name.endswith(".safetensors.index.json")):
        shutil.copyfile(path, to / path.name)


def _write_checkpoint(out: BinaryIO, patched: PatchedCheckpoint, progress: Progress) -> None:
    infos = {name: patched.tensors[name] for name in sorted(patched.tensors)}
    tensors = (flat_bits(patched.read(name)).data for name in progress(list(infos)))
    write_safetensors(out, patched.header.file_metadata, infos, tensors)


def write_tensors(file: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Write tensors of one dtype as safetensors would, in the order of their names; what the system says against it
    stays an OSError."""
    infos = {name: TensorInfo.of(tensors[name]) for name in sorted(tensors)}
    contents = (tensors[name].contiguous().flatten().view(torch.uint8).numpy().data for name in infos)
    with file.open("wb") as out:
        write_safetensors(out, {"format": "pt"}, infos, contents)


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
