"""Output heads that are the input embedding: which are counted once, and which are compared with an embedding."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import torch

from opdlib.checkpoints.checkpoint import EMBEDDINGS, HEAD, Checkpoint
from opdlib.checkpoints.matrices import Place
from opdlib.errors import AlignmentError


@dataclass(frozen=True)
class Ties:
    """What follows for two checkpoints."""

    counted_once: dict[str, str] = field(default_factory=dict)
    """Head -> why it is not compared."""
    stands_in: tuple[dict[str, str], dict[str, str]] = field(default_factory=lambda: ({}, {}))
    """Of the source and of the trained checkpoint: head of the other -> own embedding that is compared with it."""
    notes: dict[str, str] = field(default_factory=dict)
    """Head -> what it is compared with."""


class Side:
    """One of two checkpoints, its parameters by name, and the names that are left out."""

    def __init__(self, checkpoint: Checkpoint, places: Mapping[str, Place], left_out: Container[str]):
        self._checkpoint, self._places = checkpoint, places
        self.spec = checkpoint.spec
        self.embedding = next((name for name in places if name.endswith(EMBEDDINGS)), None)
        self.head = next((name for name in places if name.endswith(HEAD) and name not in left_out), None)
        text = checkpoint.config.get("text_config")
        within = text.get("tie_word_embeddings") if isinstance(text, dict) else None
        declared = checkpoint.config.get("tie_word_embeddings", within)
        self.declared: bool | None = declared if isinstance(declared, bool) else None
        """What config.json says; None if it says nothing."""

    @cached_property
    def is_tied(self) -> bool:
        """Is there no head beside the embedding, or one of the same bytes?"""
        if self.head is None or self.embedding is None:
            return True
        head, embedding = self._places[self.head], self._places[self.embedding]
        if head.info != embedding.info:
            return False
        pair = head.read(self._checkpoint), embedding.read(self._checkpoint)
        return all(torch.equal(*(_bytes(t[:rows]) for t in pair)) for rows in (1, None))  # the first row decides often


def _bytes(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous().flatten().view(torch.uint8)


def ties(source: Side, trained: Side, whole: bool) -> Ties:
    """Look at the declarations of both and, where heads are stored, at their values.

    A head is the embedding where one side declares it and the other's does not differ; or, unless tensors are taken
    `whole`, where neither says anything and it does not differ on both. A declared one that differs on that very side
    is refused (AlignmentError).
    """
    found = Ties()
    sides = source, trained
    if source.embedding is None or trained.embedding is None:
        return found
    for side in sides:
        if side.declared and not side.is_tied:
            raise AlignmentError(
                f"{side.spec}: config.json ties {side.head} to {side.embedding}, but the stored tensors differ; "
                f"say which is meant: set tie_word_embeddings to false, or skip {side.head}"
            )
    declared = source.declared or trained.declared
    if declared and all(side.is_tied for side in sides):
        for side in sides:
            found.counted_once[side.head or HEAD] = f"tied to {side.embedding}: one tensor, counted once"
    elif declared and not whole:
        for own, (side, other) in enumerate((sides, sides[::-1])):
            if side.head is None and other.head is not None and side.embedding is not None:
                found.stands_in[own][other.head] = side.embedding
                found.notes[other.head] = f"compared with {side.embedding} of {side.spec}, which is tied to its head"
    elif not whole and (source.head or trained.head) and all(s.declared is None and s.is_tied for s in sides):
        for head in filter(None, (source.head, trained.head)):
            reason = f"equal to {source.embedding} wherever it is stored, though no config.json ties it: counted once"
            found.counted_once[head] = found.notes[head] = reason
    return found
