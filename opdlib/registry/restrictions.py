"""What a training may change, where it may not change everything: weights in a mask, or an update of low rank."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

EXACT = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
"""A recipe has no other keys than those of its model, and no value is taken for another."""


class Mask(BaseModel):
    """Training inside a mask: every other coordinate keeps the source's bits (`opdlib.train.masks`)."""

    model_config = EXACT

    kind: Literal["delta", "random", "magnitude", "smallest"]
    """delta: where the owner's weights changed by more than `threshold`. The others hold, tensor by tensor, as many
    coordinates: random ones, random ones within each binade of the source's abs(weight), or the smallest weights."""
    of: str = Field(min_length=1)
    """The owner: a trained checkpoint over the same source, or `recipe:NAME`, run with this run's seed."""
    threshold: float = Field(ge=0, strict=False)
    """abs(delta) in view bf16 above which a coordinate is in the owner's mask; the paper's is 1e-5."""


class Lora(BaseModel):
    """Training of a low-rank update beside frozen weights (LoRA, by PEFT): W + scale B A in every linear layer. The
    trained checkpoint is merged; the factors lie beside it, in `adapter/`."""

    model_config = EXACT

    rank: int = Field(ge=1, le=65536)
    """Of B A."""
    alpha: float = Field(gt=0, strict=False)
    """scale is alpha / rank, with `rslora` alpha / sqrt(rank)."""
    rslora: bool = False
    targets: tuple[str, ...] = Field(default=(), strict=False)
    """Names of the layers, such as q_proj; none: every linear layer but the head."""
