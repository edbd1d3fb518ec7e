"""GGUF files, dequantized tensor by tensor under the names that transformers gives them.

transformers knows how each architecture was rearranged for llama.cpp (rotary pairs of q and k, offsets of norms,
experts in one tensor), gguf how each block of numbers was quantized; both are asked for one tensor at a time.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from opdlib.checkpoints.checkpoint import DTYPES, Checkpoint, TensorInfo
from opdlib.checkpoints.gguf_header import read_gguf_header
from opdlib.checkpoints.shards import SHARD
from opdlib.checkpoints.watched import Watched
from opdlib.errors import CheckpointError, MissingDependencyError
from opdlib.foreign import foreign

EXACT = {"F32": "F32", "F16": "F16", "BF16": "BF16"}
"""GGUF types that are no quantization, and their dtypes; what was quantized comes out as F32."""
LAYERS = 1000
"""At most: transformers takes 5 ms for each."""
LEFT_OUT = ("rope_freqs", "rope_factors")
"""Tables of llama.cpp that are no parameters."""


@dataclass(frozen=True)
class Place:
    """Where one tensor of the file lies, as gguf read it from the header."""

    name: str
    kind: Any
    offset: int
    dtype: Any
    shape: tuple[int, ...]
    """Of what is stored, in units of `dtype`."""
    size: int
    """Numbers in it."""


class GgufCheckpoint(Checkpoint):
    """The model of a GGUF file. Quantized tensors are dequantized to float32, others keep their dtype. Raises
    CheckpointError for a damaged file, an architecture that transformers cannot read, and tensors that it has no name
    for; MissingDependencyError if gguf or transformers is not installed."""

    def __init__(self, spec: str, path: Path):
        self.spec, self.folder, self.path = spec, None, path
        self.watched = Watched([path])
        places, self._processor, self._mapping, shapes, self._config = _read_header(path)
        self._places: dict[str, list[Place]] = {}
        for place in places:
            name = self._mapping.get(place.name) or self._mapping.get(place.name.removesuffix(".weight"))
            if name is not None:
                self._places.setdefault(name, []).append(place)
            elif not place.name.startswith(LEFT_OUT):
                raise CheckpointError(
                    f"{path}: transformers has no name for tensor {place.name} of a {self._config['model_type']} "
                    "model; give the checkpoint that the GGUF was made from"
                )
        for name, parts in self._places.items():
            if math.prod(shapes[name]) != sum(part.size for part in parts):
                raise CheckpointError(
                    f"{path}: {parts[0].name} holds {sum(part.size for part in parts)} numbers, transformers wants "
                    f"{shapes[name]} of its header; give the checkpoint that the GGUF was made from"
                )
        self.tensors = {
            name: TensorInfo(shapes[name], EXACT.get(parts[0].kind.name, "F32")) for name, parts in self._places.items()
        }
        quantized = sorted({p.kind.name for p in places} - set(EXACT))
        self.format = f"GGUF, dequantized from {', '.join(quantized)}" if quantized else "GGUF"

    @property
    def config(self) -> Mapping[str, Any]:
        """What the header says of the model, under the keys of config.json."""
        return self._config

    def read(self, name: str) -> torch.Tensor:
        from gguf import dequantize

        info = self.info(name)
        whole: dict[str, dict[str, torch.Tensor]] = {"tensors": {}}  # filled where a tensor is made of several
        weights = np.empty(0, np.float32)
        for place in self._places[name]:
            count = math.prod(place.shape)
            # Read, not mapped: a file that is cut short under a map would end the process without a word.
            stored = np.fromfile(self.path, place.dtype, count, offset=place.offset)
            self.watched.check()
            with foreign(f"{self.path}: {place.name}", CheckpointError, "copy the file again"):
                made = self._processor.process(
                    weights=dequantize(stored.reshape(place.shape), place.kind),
                    name=place.name,
                    tensor_key_mapping=self._mapping,
                    parsed_parameters=whole,
                )
            weights = made.weights
        tensor = whole["tensors"].get(name)
        return (torch.from_numpy(np.array(weights)) if tensor is None else tensor).to(DTYPES[info.dtype])


def holds(path: Path) -> bool:
    """Whether `path` is a GGUF file, or a folder with one."""
    return any(path.glob("*.gguf")) if path.is_dir() else path.suffix == ".gguf"


def open_gguf(path: Path, spec: str) -> GgufCheckpoint:
    """Open a GGUF file, or the only one of a folder. Raises CheckpointError, MissingDependencyError."""
    files = sorted(path.glob("*.gguf")) if path.is_dir() else [path]
    if len(files) > 1:
        raise CheckpointError(f"{path}: {len(files)} GGUF files ({files[0].name}, {files[1].name}, ...); name one")
    if (part := SHARD.fullmatch(files[0].name)) and int(part[3]) > 1:
        raise CheckpointError(f"{files[0]}: part {part[2]} of {part[3]}; join them first with llama-gguf-split --merge")
    return GgufCheckpoint(spec, files[0])


def _read_header(path: Path) -> tuple[list[Place], Any, dict[str, str], dict[str, tuple[int, ...]], dict[str, Any]]:
    """Places, transformers' processor of tensors, GGUF name -> its name, shapes by its names, configuration."""
    try:
        import gguf as _  # noqa: F401  (transformers imports it late and fails late)
        from transformers import AutoConfig, AutoModelForCausalLM
        from transformers import modeling_gguf_pytorch_utils as by_transformers
    except ImportError as error:
        raise MissingDependencyError(
            f"{path.name}: reading GGUF needs {error.name}, which is not installed; run: pip install 'opdlib[train]'"
        ) from error
    header = read_gguf_header(path)
    do = "wanted a GGUF of a language model that transformers knows; give the checkpoint that it was made from"
    with foreign(path, CheckpointError, do), _brief() as reader_of:
        reader, config = reader_of(path), by_transformers.load_gguf_checkpoint(str(path))["config"]
        layers = max((count for key, count in header.counts.items() if key.endswith(".block_count")), default=0)
        if layers > min(header.tensors, LAYERS):
            raise CheckpointError(
                f"{path}: announces {layers} layers for {header.tensors} tensors, and {LAYERS} are the most; {do}"
            )
        # A header without a tokenizer does not say how large the vocabulary is.
        config["vocab_size"] = next(int(t.shape[-1]) for t in reader.tensors if t.name == "token_embd.weight")
        with torch.device("meta"):
            made = AutoConfig.for_model(**config)
            model = AutoModelForCausalLM.from_config(made, trust_remote_code=False)
        architecture = by_transformers.read_field(reader, "general.architecture")[0]
        kind = by_transformers.TENSOR_PROCESSORS.get(architecture, by_transformers.TensorProcessor)
        processor = kind(config=config)
        mapping = by_transformers.get_gguf_hf_weights_map(model, processor)
    places = [
        Place(t.name, t.tensor_type, int(t.data_offset), t.data.dtype, tuple(t.data.shape), int(t.n_elements))
        for t in reader.tensors
    ]
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    return places, processor, mapping, shapes, config


@contextmanager
def _brief() -> Iterator[Any]:
    """gguf as transformers needs it here, which takes minutes of what seconds are enough for: a reader that passes over
    the tokens, which it gives, and the names of an architecture made once and not for every module."""
    import gguf
    from gguf.gguf_reader import GGUFReader
    from gguf.tensor_mapping import get_tensor_name_map
    from transformers import logging

    class Brief(GGUFReader):  # type: ignore[misc]
        def __init__(self, path: Path | str):
            self._long = read_gguf_header(Path(path)).long
            super().__init__(path)

        def _get_field_parts(self, at: int, kind: int) -> Any:
            return (self._long[at], [], [], []) if at in self._long else super()._get_field_parts(at, kind)

    logging.set_verbosity_error()  # transformers complains of a header without tokens
    gguf.GGUFReader, gguf.get_tensor_name_map = Brief, cache(get_tensor_name_map)
    try:
        yield Brief
    finally:
        gguf.GGUFReader, gguf.get_tensor_name_map = GGUFReader, get_tensor_name_map
