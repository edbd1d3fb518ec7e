"""Between checkpoints and transformers: a model from tensors, tensors from a model, same names.

Nothing that lies in a checkpoint is run (`CODE`), and no model is built before its configuration is known to describe
the tensors that are there.

Of models that are shown images the names on the Hub are older than the module's: `visual.*` and `model.layers.*` are
`model.visual.*` and `model.language_model.*` in it. transformers' own table says which is which; a checkpoint may hold
either, and what is trained from it keeps the names of its source. Of a mixture of experts the module joins what most
checkpoints keep apart, every expert for itself; the same table says how, and what is trained is taken apart again.
"""

import itertools
import os
import re
import shutil
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from logging import CRITICAL
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers.generation import GenerationMode

from opdlib.checkpoints.checkpoint import Checkpoint
from opdlib.checkpoints.patch import write_tensors
from opdlib.errors import CheckpointError, MissingDependencyError, OutputError
from opdlib.foreign import foreign, reason

PROCESSOR_FILES = (
    "processor_config.json",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
    "chat_template.json",
)
"""What a processor is loaded from beside its tokenizer's files."""


CODE: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}
"""How transformers is told that a checkpoint is data: code beside it, or on the Hub, is neither run nor asked about."""
MOST = 1 << 20
"""Layers, heads or experts that a configuration may count: transformers makes lists of them before it looks further."""
KERNELS = re.compile(r"_?(attn|experts)_implementation(_internal)?")
COUNTS = re.compile(r"(num|n)_.*|.*layers?|depth")


@contextmanager
def transformers_on(place: object, part: str) -> Iterator[None]:
    """A call of transformers about a part of the checkpoint `place`. It says nothing beside what it raises, which
    becomes a CheckpointError."""
    transformers.logging.set_verbosity(CRITICAL)
    said = f"{place}: transformers cannot use its {part}"
    with foreign(said, CheckpointError, "put one that it knows there"), warnings.catch_warnings(), _unprinted():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _unprinted() -> Iterator[None]:
    """tokenizers prints what it does not know in a file as it stands, and not by way of Python: a terminal obeys it."""
    if sys.__stdout__ is None:
        yield
        return
    with Path(os.devnull).open("wb") as nothing, os.fdopen(os.dup(1), "wb") as shown:
        os.dup2(nothing.fileno(), 1)
        try:
            yield
        finally:
            os.dup2(shown.fileno(), 1)


def shows_images(config: Any) -> bool:
    """True for the config of an image-text model, False for that of a language model."""
    return type(config) in transformers.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING


def module_names(config: Any, stored: Iterable[str]) -> dict[str, str]:
    """Name in a checkpoint -> name in the module that `config` describes; of a language model the two are one.

    Renamings are all that is done: a checkpoint whose tensors would have to be split or joined keeps its names, which
    the module then does not have.
    """
    if not shows_images(config):
        return {name: name for name in stored}
    # Here, because they are no public names: another transformers may not have them, and language models need none.
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightRenaming, apply_renamings

    with torch.device("meta"):
        module = _built(config)
    own = module.state_dict().keys()
    renamings = [step for step in get_model_conversion_mapping(module) if isinstance(step, WeightRenaming)]
    return {name: name if name in own else apply_renamings(name, renamings) for name in stored}


def load_config(checkpoint: Checkpoint) -> Any:
    """The transformers config of a checkpoint. Raises CheckpointError if there is none that transformers knows, or one
    that names code or counts beyond reason."""
    folder = _folder(checkpoint)
    for key, value in _said(checkpoint.config):
        if KERNELS.fullmatch(key) and "/" in str(value):
            raise CheckpointError(f"{folder / 'config.json'}: {key} is {value!r}, code from the Hub; remove the key")
        if COUNTS.fullmatch(key) and isinstance(value, int) and value > MOST:
            raise CheckpointError(f"{folder / 'config.json'}: {key} is {value}; wanted at most {MOST}")
    with transformers_on(checkpoint.spec, "config.json"):
        return transformers.AutoConfig.from_pretrained(folder, **CODE)


def _said(content: Any) -> Iterator[tuple[str, Any]]:
    """Every key of a JSON document with its value, at whatever depth."""
    for key, value in content.items() if isinstance(content, Mapping) else ():
        yield key, value
        yield from _said(value)


def _built(config: Any, **options: Any) -> Any:
    """The module that `config` describes, with random weights."""
    auto = transformers.AutoModelForImageTextToText if shows_images(config) else transformers.AutoModelForCausalLM
    return auto.from_config(config, trust_remote_code=False, **options)


def _check_fit(checkpoint: Checkpoint, config: Any) -> None:
    """Raises CheckpointError if `config` describes another model than the tensors: told from a module without weights,
    which is given up when it has more parts than those tensors can fill."""
    most, parts = 1000 + 50 * len(checkpoint.tensors), itertools.count()

    def enough(*_: Any) -> None:
        if next(parts) > most:
            raise ValueError(f"describes more parts than the {len(checkpoint.tensors)} tensors fill")

    hook = torch.nn.modules.module.register_module_module_registration_hook(enough)
    try:
        with transformers_on(checkpoint.spec, "config.json"), torch.device("meta"):
            module = _built(config)
            own = module.state_dict()
            beside = sum(buffer.numel() for name, buffer in module.named_buffers() if name not in own)
            names = module_names(config, checkpoint.tensors)
            own = _apart(module, own) if _joins(module, names.values()) else own
    finally:
        hook.remove()
    wanted = {name: tuple(tensor.shape) for name, tensor in own.items()}
    found = {names[name]: info.shape for name, info in checkpoint.tensors.items()}
    unequal = [name for name in sorted({*wanted} & {*found}) if wanted[name] != found[name]]
    wrong = [
        *sorted({*wanted} - {*found, *checkpoint.tied}),
        *sorted({*found} - {*wanted}),
        *(f"{name}, {list(found[name])} for {list(wanted[name])}" for name in unequal),
    ]
    if wrong:
        raise CheckpointError(
            f"{checkpoint.spec}: config.json describes another model than the tensors; "
            f"{len(wrong)} names differ, the first is {wrong[0]}"
        )
    if beside > MOST + sum(info.numel for info in checkpoint.tensors.values()):
        raise CheckpointError(
            f"{checkpoint.spec}: config.json asks for {beside} numbers beside the tensors; "
            "wanted no more than there are weights"
        )


def check_model(checkpoint: Checkpoint, images: bool = False) -> None:
    """Raises what `load_model` and `load_reader` would raise of a checkpoint's files, and reads no weight."""
    _check_fit(checkpoint, load_config(checkpoint))
    _generation_config(checkpoint)
    load_reader(checkpoint, images)


def load_model(checkpoint: Checkpoint) -> Any:
    """The causal language model of a checkpoint, or its image-text model, every weight upcast to float32.

    The tensors come from the checkpoint, not from its folder, so that a patch over a source loads too. Raises
    CheckpointError if config.json is missing or does not fit the tensors.
    """
    config = load_config(checkpoint)
    _check_fit(checkpoint, config)
    config.name_or_path = ""  # else the folder's path would travel into everything that is saved
    names = module_names(config, checkpoint.tensors)
    state = {names[name]: checkpoint.read(name).float() for name in checkpoint.tensors}
    with transformers_on(checkpoint.spec, "config.json"):
        model = _built(config, dtype=torch.float32)
        if _joins(model, state):
            model = type(model).from_pretrained(None, config=config, state_dict=state, dtype=torch.float32, **CODE)
        else:
            model.load_state_dict(state, strict=False)
    # What transformers saves on the way keeps the module's names: it resumes from no others, and does not say so.
    model._weight_conversions = []
    model.generation_config = _generation_config(checkpoint)
    return model


def cut_head(teacher: Any, rows: int) -> None:
    """Drop the rows of embedding and head behind the first `rows`, in place: padding that no tokenizer reads or writes.

    Models of one family are padded to different widths (Qwen2.5-VL-3B to 151,936 tokens, 7B to 152,064); distributions
    are compared over the rows that both have.
    """
    if teacher.config.get_text_config().vocab_size > rows:
        teacher.resize_token_embeddings(rows)


def scoring_device() -> torch.device:
    """Where a model is scored that is not being trained: a GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def load_reader(checkpoint: Checkpoint, images: bool = False) -> Any:
    """What turns prompts into a model's input: the tokenizer, or with `images` the processor, padding on the left.
    Raises CheckpointError if the checkpoint has none, MissingDependencyError if it needs another package."""
    loader, part = (transformers.AutoProcessor, "processor") if images else (transformers.AutoTokenizer, "tokenizer")
    folder = _folder(checkpoint)
    with transformers_on(checkpoint.spec, part):
        try:
            reader = loader.from_pretrained(folder, padding_side="left", **CODE)
        except ImportError as error:
            raise MissingDependencyError(
                f"{checkpoint.spec}: its {part} needs a package that is not installed ({reason(error)}); for most "
                "processors, torchvision: pip install torchvision"
            ) from error
    if images and not isinstance(
        reader, transformers.ProcessorMixin
    ):  # transformers falls back to the tokenizer, and is silent
        raise CheckpointError(
            f"{checkpoint.spec}: found a tokenizer and no processor for images; put preprocessor_config.json there"
        )
    tokenizer = tokenizer_of(reader)
    if not isinstance(tokenizer.eos_token_id, int):
        raise CheckpointError(f"{checkpoint.spec}: its tokenizer has no end of sequence; name one as eos_token")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return reader


def tokenizer_of(reader: Any) -> Any:
    """The tokenizer of what `load_reader` gives."""
    return reader.tokenizer if isinstance(reader, transformers.ProcessorMixin) else reader


def save_state(state: dict[str, torch.Tensor], source: Checkpoint, folder: Path, dtype: torch.dtype) -> None:
    """Write a model's weights, given by their names in it, in `dtype` into the existing `folder`. Tensor names, config,
    tokenizer and processor are the source's, so that the two align by name."""
    origin, config = _folder(source), load_config(source)
    names = module_names(config, source.tensors)
    if not state.keys() >= {*names.values()}:
        with torch.device("meta"):
            module = _built(config)
        state, names = _apart(module, state), {name: name for name in source.tensors}
    tensors = {name: state[names[name]].detach().to("cpu", dtype).clone().contiguous() for name in source.tensors}
    write_tensors(folder / "model.safetensors", tensors)
    config.dtype = dtype
    parts = config, _generation_config(source), transformers.AutoTokenizer.from_pretrained(origin, **CODE)
    with foreign(folder, OutputError, "free space or choose another place"):
        for part in parts:
            part.save_pretrained(folder)
    for file in PROCESSOR_FILES:
        if (origin / file).is_file():
            shutil.copyfile(origin / file, folder / file)


def _joins(model: Any, names: Iterable[str]) -> bool:
    """Whether the module joins tensors of these names, which it does not have itself, to others."""
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter, apply_converters

    steps = [step for step in get_model_conversion_mapping(model) if isinstance(step, WeightConverter)]
    strange = set(names) - model.state_dict().keys()
    return any(apply_converters(name, steps)[1] is not None for name in strange)


def _apart(module: Any, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A module's state in the form in which such models are published."""
    from transformers.core_model_loading import revert_weight_conversion

    apart: dict[str, torch.Tensor] = revert_weight_conversion(module, state)
    return apart


def _folder(checkpoint: Checkpoint) -> Path:
    folder = checkpoint.folder
    if folder is None or not (folder / "config.json").is_file():
        raise CheckpointError(f"{checkpoint.spec}: no config.json, so no model can be built; put it beside the tensors")
    return folder


def _generation_config(checkpoint: Checkpoint) -> Any:
    """Raises CheckpointError for one that transformers does not know, or that asks for more than the next token."""
    folder = _folder(checkpoint)
    if not (folder / "generation_config.json").is_file():
        return transformers.GenerationConfig()
    with transformers_on(checkpoint.spec, "generation_config.json"):
        config = transformers.GenerationConfig.from_pretrained(folder, **CODE)
        mode = config.get_generation_mode()
    if mode not in (GenerationMode.GREEDY_SEARCH, GenerationMode.SAMPLE):
        raise CheckpointError(
            f"{folder / 'generation_config.json'}: asks for {mode.value}; wanted greedy search or sampling"
        )
    return config
