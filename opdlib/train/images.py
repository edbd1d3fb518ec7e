"""Models that are shown images: how a config says so, and what a checkpoint's tensors are called inside one.

The names on the Hub are older than the module's: `visual.*` and `model.layers.*` are `model.visual.*` and
`model.language_model.*` in it. transformers' own table says which is which; a checkpoint may hold either, and what is
trained from it keeps the names of its source.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from transformers import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING, AutoModelForImageTextToText


def shows_images(config: Any) -> bool:
    """True for the config of an image-text model, False for that of a language model."""
    return type(config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING


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
        module = AutoModelForImageTextToText.from_config(config)
    own = module.state_dict().keys()
    renamings = [step for step in get_model_conversion_mapping(module) if isinstance(step, WeightRenaming)]
    return {name: name if name in own else apply_renamings(name, renamings) for name in stored}
