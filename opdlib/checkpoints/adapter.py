"""LoRA adapters of PEFT: a base checkpoint, and what a low-rank product adds to some of its matrices.

The sum is what PEFT's `merge_and_unload` computes, kept in float32: base + scaling * B @ A, each when it is read.
"""

import math
import re
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from opdlib.checkpoints.checkpoint import Checkpoint, TensorInfo
from opdlib.checkpoints.local import LocalCheckpoint
from opdlib.checkpoints.names import canonical, embedding_of, is_head
from opdlib.checkpoints.pickled import PickledCheckpoint
from opdlib.errors import CheckpointError
from opdlib.foreign import foreign, read_object

CONFIG = "adapter_config.json"
FILES = ("adapter_model.safetensors", "adapter_model.bin")
WHOLE = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")

USED = {"r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern", "fan_in_fan_out", "init_lora_weights"}
WITHOUT_EFFECT = {
    *("peft_type", "task_type", "inference_mode", "auto_mapping", "peft_version", "base_model_name_or_path"),
    *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "modules_to_save", "bias"),
    *("lora_dropout", "megatron_config", "megatron_core", "loftq_config", "eva_config", "qalora_group_size"),
    *("revision", "runtime_config"),
}
"""Keys of the configuration that do not change what the stored tensors mean. A key that is in neither set and has a
value is another method than LoRA."""
PLAIN_STARTS = (None, True, False, "gaussian", "eva", "orthogonal")
"""Initializations that leave the base as it is; the others (PiSSA, OLoRA, CorDA, LoftQ) train over a changed base."""

SLOW = re.compile(r"\)[*+{]|(?:[*+{].*){4}", re.S)
"""What a pattern may not have: a group that is repeated, or more than three repeats. It could take for ever."""
LONGEST = 200
"""Characters of a module's path that patterns are matched with."""

PREFIX = "base_model.model."
FACTOR = re.compile(r"(.+)\.lora_(embedding_)?([AB])(?:\.default)?(?:\.weight)?")


@dataclass(frozen=True)
class Product:
    """What is added to one tensor: scaling * B @ A, or its transpose."""

    a: str
    b: str
    scaling: float
    transposed: bool


class AdaptedCheckpoint(Checkpoint):
    """A base with a LoRA adapter merged into it, tensor by tensor. Tensors that the adapter changes are float32, those
    that it stores whole (`modules_to_save`) replace the base's. Raises CheckpointError for other methods than LoRA,
    each by its name, and for tensors that do not fit the base."""

    def __init__(self, spec: str, adapter: Checkpoint, base: Checkpoint, config: Mapping[str, Any]):
        self.spec, self.folder, self.format = spec, base.folder, f"LoRA over {base.format}"
        self.adapter, self.base, self.watched = adapter, base, adapter.watched | base.watched
        self._products: dict[str, Product] = {}
        self._whole: dict[str, str] = {}
        factors: dict[str, dict[str, str]] = {}
        for stored in adapter.tensors:
            name = stored.removeprefix(PREFIX)
            if found := FACTOR.fullmatch(name):
                factors.setdefault(found[1], {})[(found[2] or "") + found[3]] = stored
            elif ".original_module." in name:
                continue  # as it was before, beside the copy that is trained
            elif "lora_" in name or "trainable_tokens" in name:
                raise CheckpointError(f"{spec}: holds {stored}, which plain LoRA has not; {_MERGE}")
            else:
                plain = re.sub(r"\.(modules_to_save(\.default)?|base_layer)\.", ".", name)
                self._whole[self._base_name(plain)] = stored
        for module, parts in factors.items():
            name = self._base_name(f"{module}.weight")
            self._products[name] = self._product(module, name, parts, config)
        changed = {name: adapter.tensors[stored] for name, stored in self._whole.items()}
        held = {**base.tensors, **changed}
        self.tensors = held | {name: TensorInfo(held[name].shape, "F32") for name in self._products}

    def read(self, name: str) -> torch.Tensor:
        self.info(name)
        start = self.adapter.read(self._whole[name]) if name in self._whole else self.base.read(name)
        product = self._products.get(name)
        if product is None:
            return start
        delta = self.adapter.read(product.b).float() @ self.adapter.read(product.a).float()
        return ((delta.mT if product.transposed else delta) * product.scaling).add_(start).contiguous()

    def origin(self) -> dict[str, str]:
        known = {"base": self.base.spec, "base revision": self.base.revision or ""}
        return super().origin() | {key: value for key, value in known.items() if value}

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """That of the base; an adapter that stores the head or the embedding trained the two apart."""
        apart = embedding_of(self._whole) or any(map(is_head, self._whole))
        return {**self.base.config, "tie_word_embeddings": False} if apart else self.base.config

    def _base_name(self, name: str) -> str:
        """What the base calls `name`, which the model that PEFT saw may have had under a longer path. A tensor that is
        stored whole and that the base lacks (a tied head) is new."""
        endings = [name.split(".", skipped)[-1] for skipped in range(name.count("."))]
        known = next((ending for ending in endings if ending in self.base.tensors), None)
        by_canonical = {canonical(own): own for own in self.base.tensors} if known is None else {}
        return known or by_canonical.get(canonical(name), name)

    def _product(self, module: str, name: str, parts: Mapping[str, str], config: Mapping[str, Any]) -> Product:
        info = self.adapter.tensors[self._whole[name]] if name in self._whole else self.base.tensors.get(name)
        if info is None:
            raise CheckpointError(
                f"{self.spec}: adapts {module}, which the base {self.base.spec} has no tensor for; give the base that "
                "it was trained on: lora:ADAPTER@BASE (a head that is tied to the embedding cannot be adapted alone)"
            )
        embedding = "embedding_A" in parts or "embedding_B" in parts
        if sorted(parts) != (["embedding_A", "embedding_B"] if embedding else ["A", "B"]):
            raise CheckpointError(f"{self.spec}: {module} has only {', '.join(parts.values())}; copy the adapter again")
        b, a = (self.adapter.tensors[part].shape for _, part in sorted(parts.items(), reverse=True))
        rank = _matched(config, "rank_pattern", "r", module)
        alpha = _matched(config, "alpha_pattern", "lora_alpha", module)
        if not (isinstance(rank, int) and isinstance(alpha, int | float)):
            raise CheckpointError(f"{self.spec}: {CONFIG} gives {module} rank {rank} and alpha {alpha}; wanted numbers")
        if len(a) != 2 or len(b) != 2 or not a[0] == b[1] == rank > 0:
            raise CheckpointError(
                f"{self.spec}: {module} has factors {b} and {a} where {CONFIG} says rank {rank}; wanted two matrices "
                "of that rank, copy the adapter again"
            )
        made, turned = (b[0], a[1]), (a[1], b[0])
        # PEFT sets fan_in_fan_out by the kind of module, whatever the configuration says; the shape shows the kind.
        transposed = turned == info.shape and (embedding or config.get("fan_in_fan_out") is True or made != info.shape)
        if info.shape != (turned if transposed else made):
            raise CheckpointError(
                f"{self.spec}: {module} adds a {made} matrix to {name}, which is {info.shape} in {self.base.spec}; "
                "give the base that the adapter was trained on: lora:ADAPTER@BASE"
            )
        with foreign(f"{self.spec}: lora_alpha in {CONFIG}", CheckpointError, "copy the adapter again"):
            scaling = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
        a_name, b_name = (parts[key] for key in sorted(parts))
        return Product(a_name, b_name, scaling, transposed)


def holds(path: Path) -> bool:
    """Whether `path` is a folder with an adapter of PEFT, or the file of its tensors."""
    return (path / CONFIG).is_file() or (path.name in FILES and (path.parent / CONFIG).is_file())


_above: ContextVar[tuple[Path, ...]] = ContextVar("adapters that are being opened over the base they name", default=())


def open_adapter(path: Path, spec: str, base: str = "") -> AdaptedCheckpoint:
    """Open an adapter over `base`, or without one over the base that its configuration names: a path, from the
    adapter's folder or from here, or a name on the Hub. Raises CheckpointError with what was found and what to do."""
    from opdlib.checkpoints import open_checkpoint

    folder = path if path.is_dir() else path.parent
    rival = next((folder / name for name in WHOLE if (folder / name).exists()), None)
    if rival and not base:
        raise CheckpointError(
            f"{folder}: holds {CONFIG} and {rival.name}, which may be two checkpoints; give {rival}, or "
            f"lora:{folder}@BASE"
        )
    file = next((folder / name for name in FILES if (folder / name).is_file()), None)
    if file is None:
        raise CheckpointError(f"{folder}: {CONFIG} without {' or '.join(FILES)}; copy the adapter again")
    config = _config(folder / CONFIG)
    opened = (LocalCheckpoint if file.suffix == ".safetensors" else PickledCheckpoint)(str(file), {file: None}, folder)
    if not base and folder.resolve() in _above.get():
        raise CheckpointError(f"{folder}: its base leads back to it; give another: lora:ADAPTER@BASE")
    token = _above.set((*_above.get(), folder.resolve()))
    try:
        under = open_checkpoint(base or _base(folder, config))
    except CheckpointError as error:
        raise CheckpointError(f"{folder}: its base cannot be opened: {error}; or give it: lora:ADAPTER@BASE") from error
    finally:
        _above.reset(token)
    return AdaptedCheckpoint(spec, opened, under, config)


def open_over(location: str, spec: str) -> AdaptedCheckpoint:
    """Open `ADAPTER@BASE` or `ADAPTER`: the adapter is a folder or a name on the Hub, the base any spec."""
    from opdlib.checkpoints.hub import NAME, download

    name, _, base = location.partition("@")
    path = Path(name).expanduser()
    downloaded = not path.exists() and NAME.fullmatch(name) is not None
    if downloaded:
        path = download(name)
    if not holds(path):
        raise CheckpointError(f"{spec}: no {CONFIG} in {path}; wanted lora:ADAPTER@BASE, with the folder of an adapter")
    made = open_adapter(path, spec, base)
    made.revision = path.name if downloaded else None  # the folder of a snapshot is named after its commit
    return made


def _base(folder: Path, config: Mapping[str, Any]) -> str:
    """The spec of the base that the adapter names, a path from its folder before one from here."""
    named, revision = config.get("base_model_name_or_path"), config.get("revision")
    if not isinstance(named, str) or not named:
        raise CheckpointError(f"{folder / CONFIG}: names no base_model_name_or_path; give it: lora:ADAPTER@BASE")
    if (folder / named).exists():
        return str(folder / named)
    return f"{named}@{revision}" if revision and not Path(named).exists() else named


def _config(file: Path) -> dict[str, Any]:
    config = read_object(file, CheckpointError, "copy the adapter again")
    kind = config.get("peft_type")
    if kind != "LORA":
        raise CheckpointError(f"{file}: an adapter of kind {kind}, of which only LORA is read; {_MERGE}")
    if config.get("use_dora"):
        raise CheckpointError(f"{file}: DoRA (use_dora), which is no low-rank change of the weights; {_MERGE}")
    if others := [key for key in sorted(config) if config[key] and key not in USED | WITHOUT_EFFECT]:
        raise CheckpointError(f"{file}: sets {others[0]}, which plain LoRA has not; {_MERGE}")
    if (start := config.get("init_lora_weights")) not in PLAIN_STARTS:
        raise CheckpointError(f"{file}: init_lora_weights {start!r} trains over a changed base; {_MERGE}")
    return config


def _matched(config: Mapping[str, Any], pattern: str, default: str, module: str) -> Any:
    """The value for `module`: of the first pattern that matches the end of its path, else the common one."""
    with foreign(f"{CONFIG}: {pattern}", CheckpointError, "copy the adapter again"):
        patterns = (config.get(pattern) or {}).items()
        if slow := next((key for key, _ in patterns if SLOW.search(key) or len(module) > LONGEST), None):
            raise CheckpointError(f"{CONFIG}: {pattern} has {slow!r}, which may take too long to match; {_MERGE}")
        return next((v for key, v in patterns if re.match(rf"(.*\.)?({key})$", module)), config.get(default))


_MERGE = "merge it with PEFT (merge_and_unload, then save_pretrained) and give the result"
