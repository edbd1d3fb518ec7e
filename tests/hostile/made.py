"""Hostile files, made by construction: each function gives the bytes of one kind of file, or writes a folder of it."""

import hashlib
import json
import shutil
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from safetensors import safe_open
from safetensors.numpy import save

from opdlib.checkpoints import open_checkpoint
from opdlib.checkpoints.patch import make
from opdlib.train.fresh import Architecture, write_fresh
from tests.conftest import moved, pico_weights, write_checkpoint
from tests.registry.recipe_files import recipe_content

DEEP = "[" * 100_000
LONG_NUMBER = "1" * 5000
READER = Architecture("0123456789+=* :CalcuteRsn\n", hidden=16, mlp=24, layers=2, heads=2, key_value_heads=1)

Tensor = tuple[str, Sequence[int], int, int]
"""Name, shape, type and offset in a GGUF."""


def base(folder: Path) -> Path:
    """Good files, which the hostile ones differ from in one thing: a pair `S`, `T` with its patch, two models that can
    be asked, `R` and `R2`, and a recipe."""
    weights, config = pico_weights(layers=1), {"tie_word_embeddings": True}
    write_checkpoint(folder / "S", weights, config=config)
    write_checkpoint(folder / "T", moved(weights), config=config)
    make(open_checkpoint(folder / "S"), open_checkpoint(folder / "T"), folder / "P.safetensors")
    for seed, name in enumerate(("R", "R2")):
        (folder / name).mkdir()
        write_fresh(READER, seed, folder / name)
    (folder / "recipe.yaml").write_text(recipe(folder))
    return folder


def changed(folder: Path, source: Path, **files: bytes | str | None) -> Path:
    """A copy of the folder `source` with other files in it; a double underscore stands for a dot, None removes."""
    shutil.copytree(source, folder)
    for name, content in files.items():
        file = folder / name.replace("__", ".")
        if content is None:
            file.unlink()
        else:
            file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def with_json(file: Path, **keys: Any) -> str:
    """The JSON object in `file` with other values for these keys."""
    return json.dumps(json.loads(file.read_text()) | keys)


def safetensors(header: Mapping[str, Any] | bytes, data: bytes = b"") -> bytes:
    """A safetensors file with this header, true or not."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


def tensor(shape: Sequence[int], start: int, stop: int, dtype: str = "BF16") -> dict[str, Any]:
    """An entry of a safetensors header."""
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


def text(value: str | bytes) -> bytes:
    """A string of a GGUF."""
    content = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(content)) + content


def gguf(
    values: Sequence[tuple[str | bytes, int, bytes]] = (),
    tensors: Sequence[Tensor] = (),
    *,
    magic: bytes = b"GGUF",
    version: int = 3,
    announced: tuple[int, int] | None = None,
    data: bytes = b"",
) -> bytes:
    """A GGUF with these values (key, type, bytes) and tensors; `announced` are other numbers of both."""
    counts = announced or (len(tensors), len(values))
    parts = [magic, struct.pack("<IQQ", version, *counts)]
    parts += [text(key) + struct.pack("<I", kind) + content for key, kind, content in values]
    for name, shape, kind, offset in tensors:
        parts += [text(name), struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)]
    head = b"".join(parts)
    return head + bytes(-len(head) % 32) + data


LLAMA = ("general.architecture", 8, text("llama"))


def patch(file: Path, tensors: Mapping[str, np.ndarray[Any, Any]] | None = None, **metadata: str | None) -> bytes:
    """The patch in `file` with other metadata (None leaves one out), sealed as if it had been made so."""
    with safe_open(file, "np") as stream:
        told = dict(stream.metadata())
        content = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118  (it is no dict)
    told = {key: value for key, value in (told | metadata).items() if value is not None and key != "header_digest"}
    seal = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
    return save(dict(tensors) if tensors is not None else content, told | {"header_digest": seal})


def recipe(folder: Path, without: str = "", **changes: Any) -> str:
    """A recipe over the models in `folder`, with other values for some keys."""
    content = recipe_content("opd", str(folder / "R"), str(folder / "R2")) | {"precision": "fp32"} | changes
    return yaml.safe_dump({key: value for key, value in content.items() if key != without})


def with_tensor(folder: Path, name: str, value: torch.Tensor, source: bool = False) -> Path:
    """A checkpoint as `S` or `T` with one more tensor, or with another one of that name."""
    weights = pico_weights(layers=1)
    return write_checkpoint(folder, (weights if source else moved(weights)) | {name: value})
