"""Between checkpoints and transformers: a model from tensors, tensors from a model, same names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from opdlib.checkpoints import Checkpoint
from opdlib.errors import CheckpointError


def load_model(checkpoint: Checkpoint) -> Any:
    """The causal language model of a checkpoint, every weight upcast to float32.

    The tensors come from the checkpoint, not from its folder, so that a patch over a source loads
    too. Raises CheckpointError if config.json is missing or does not fit the tensors.
    """
    folder = _folder(checkpoint)
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise _unusable(checkpoint, "config.json", error) from error
    config.name_or_path = ""  # else the folder's path would travel into everything that is saved
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    state = {name: checkpoint.read(name).float() for name in checkpoint.tensors}
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


def load_tokenizer(checkpoint: Checkpoint) -> Any:
    """The checkpoint's tokenizer, padding on the left. Raises CheckpointError if it has none."""
    folder = _folder(checkpoint)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, padding_side="left")
    except (OSError, ValueError) as error:
        raise _unusable(checkpoint, "tokenizer", error) from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def stop_tokens(tokenizer: Any) -> list[int]:
    """The tokens that end a completion: end of sequence and newline.

    Raises CheckpointError if the tokenizer does not write a newline as one token.
    """
    newline = tokenizer.encode("\n", add_special_tokens=False)
    if len(newline) != 1:
        raise CheckpointError(f"the tokenizer writes a newline as {len(newline)} tokens; wanted one, to end answers")
    return [tokenizer.eos_token_id, *newline]


def save_state(state: dict[str, torch.Tensor], source: Checkpoint, folder: Path, dtype: torch.dtype) -> None:
    """Write a model's weights, by their names in it, in `dtype` into the existing `folder`.

    Tensor names, config and tokenizer are the source's, so that the two align by name.
    """
    tensors = {name: state[name].detach().to("cpu", dtype).clone().contiguous() for name in source.tensors}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    origin = _folder(source)
    config = AutoConfig.from_pretrained(origin, local_files_only=True)
    config.dtype = dtype
    config.save_pretrained(folder)
    _generation_config(source).save_pretrained(folder)
    AutoTokenizer.from_pretrained(origin, local_files_only=True).save_pretrained(folder)


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
        return GenerationConfig.from_pretrained(folder, local_files_only=True)
    return GenerationConfig()
