"""Between checkpoints and transformers: a model from tensors, tensors from a model, same names.

Of models that are shown images the names on the Hub are older than the module's: `visual.*` and `model.layers.*` are
`model.visual.*` and `model.language_model.*` in it. transformers' own table says which is which; a checkpoint may hold
either, and what is trained from it keeps the names of its source.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import save_file

from opdlib.checkpoints.checkpoint import Checkpoint
from opdlib.errors import CheckpointError, MissingDependencyError

PROCESSOR_FILES = (
    "processor_config.json",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
    "chat_template.json",
)
"""What a processor is loaded from beside its tokenizer's files."""


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
        module = transformers.AutoModelForImageTextToText.from_config(config)
    own = module.state_dict().keys()
    renamings = [step for step in get_model_conversion_mapping(module) if isinstance(step, WeightRenaming)]
    return {name: name if name in own else apply_renamings(name, renamings) for name in stored}


def load_config(checkpoint: Checkpoint) -> Any:
    """The transformers config of a checkpoint. Raises CheckpointError if there is none that transformers knows."""
    folder = _folder(checkpoint)
    try:
        return transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise _unusable(checkpoint, "config.json", error) from error


def load_model(checkpoint: Checkpoint) -> Any:
    """The causal language model of a checkpoint, or its image-text model, every weight upcast to float32.

    The tensors come from the checkpoint, not from its folder, so that a patch over a source loads too. Raises
    CheckpointError if config.json is missing or does not fit the tensors.
    """
    config = load_config(checkpoint)
    config.name_or_path = ""  # else the folder's path would travel into everything that is saved
    names = module_names(config, checkpoint.tensors)
    if shows_images(config):
        model = transformers.AutoModelForImageTextToText.from_config(config, dtype=torch.float32)
        # What transformers saves on the way keeps the module's names: it resumes from no others, and does not say so.
        model._weight_conversions = []
    else:
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    state = {names[name]: checkpoint.read(name).float() for name in checkpoint.tensors}
    try:
        missing, unexpected = model.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise CheckpointError(f"{checkpoint.spec}: {' '.join(str(error).split())}") from error
    wrong = sorted(set(missing) - set(checkpoint.tied)) + sorted(unexpected)
    if wrong:
        raise CheckpointError(
            f"{checkpoint.spec}: config.json describes another model than the tensors; "
            f"{len(wrong)} names differ, the first is {wrong[0]}"
        )
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
    try:
        reader = loader.from_pretrained(_folder(checkpoint), local_files_only=True, padding_side="left")
    except ImportError as error:
        why = " ".join(str(error).split())[:200]
        raise MissingDependencyError(
            f"{checkpoint.spec}: its {part} needs a package that is not installed ({why}); for most processors, "
            "torchvision: pip install torchvision"
        ) from error
    except (OSError, ValueError) as error:
        raise _unusable(checkpoint, part, error) from error
    if images and not isinstance(
        reader, transformers.ProcessorMixin
    ):  # transformers falls back to the tokenizer, and is silent
        raise CheckpointError(
            f"{checkpoint.spec}: found a tokenizer and no processor for images; put preprocessor_config.json there"
        )
    tokenizer = tokenizer_of(reader)
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
    tensors = {name: state[names[name]].detach().to("cpu", dtype).clone().contiguous() for name in source.tensors}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config.dtype = dtype
    config.save_pretrained(folder)
    _generation_config(source).save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(origin, local_files_only=True).save_pretrained(folder)
    for file in PROCESSOR_FILES:
        if (origin / file).is_file():
            shutil.copyfile(origin / file, folder / file)


def _folder(checkpoint: Checkpoint) -> Path:
    folder = checkpoint.folder
    if folder is None or not (folder / "config.json").is_file():
        raise CheckpointError(f"{checkpoint.spec}: no config.json, so no model can be built; put it beside the tensors")
    return folder


def _unusable(checkpoint: Checkpoint, part: str, error: Exception) -> CheckpointError:
    why = " ".join(str(error).split())[:200]
    return CheckpointError(
        f"{checkpoint.spec}: transformers cannot use its {part}, put one that it knows there ({why})"
    )


def _generation_config(checkpoint: Checkpoint) -> Any:
    folder = _folder(checkpoint)
    if (folder / "generation_config.json").is_file():
        return transformers.GenerationConfig.from_pretrained(folder, local_files_only=True)
    return transformers.GenerationConfig()
