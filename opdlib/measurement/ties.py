"""Output heads that are the input embedding: which are counted once, and which are compared with an embedding."""

from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import torch

from opdlib.checkpoints.checkpoint import Checkpoint
from opdlib.checkpoints.matrices import Place
from opdlib.checkpoints.names import HEAD, bare, bias_behind, embedding_of, is_head, parse
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
        self.embedding = embedding_of(places)
        self.head = next((name for name in places if is_head(name) and name not in left_out), None)
        text = checkpoint.config.get("text_config")
        within = text.get("tie_word_embeddings") if isinstance(text, dict) else None
        declared = checkpoint.config.get("tie_word_embeddings", within)
        self.declared: bool | None = declared if isinstance(declared, bool) else None
        """What config.json says; None if it says nothing."""

    @cached_property
    def is_tied(self) -> bool:
        """Is there no head beside the embedding, or one of the same bytes?"""
        return self.head is None or self.embedding is None or self._equal(self.head, self.embedding)

    @cached_property
    def copies(self) -> dict[str, str]:
        """What lies outside the layers, is no head and may be stored once more: the name -> the parameter that it may
        be. T5 stores its one embedding three times, BERT the bias of its head twice."""
        found = {}
        for name, place in self._places.items():
            behind = bias_behind(name) or self.embedding
            known = None if behind is None or behind == name else self._places.get(behind)
            if behind and known and known.info.shape == place.info.shape and parse(name).layer is None:
                found[name] = behind
        return {name: behind for name, behind in found.items() if not is_head(name)}

    def is_copy(self, known: str) -> bool:
        """Is what has this bare name the same bytes as what it may be, or not stored at all?"""
        return all(name in self.copies and self._equal(name, self.copies[name]) for name in self.named(known))

    def named(self, known: str) -> list[str]:
        """Its names of this bare one."""
        return [name for name in self._places if bare(name) == known]

    def _equal(self, name: str, other: str) -> bool:
        places = self._places[name], self._places[other]
        if places[0].info != places[1].info:
            return False
        pair = [place.read(self._checkpoint) for place in places]
        return all(torch.equal(*(_bytes(t[:rows]) for t in pair)) for rows in (1, None))  # the first row decides often


def _bytes(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous().flatten().view(torch.uint8)


def ties(source: Side, trained: Side, whole: bool) -> Ties:
    """Look at the declarations of both and, where heads are stored, at their values.

    A head is the embedding where one side declares it and the other's does not differ; or, unless tensors are taken
    `whole`, where neither says anything and it does not differ on both; so is any other tensor that holds the embedding
    or the head's bias once more. A declared one that differs on that very side is refused (AlignmentError).
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
    if not whole:
        for known in dict.fromkeys(bare(name) for name in (*source.copies, *trained.copies)):
            if all(side.is_copy(known) for side in sides):
                for side in sides:
                    for name in side.named(known):
                        reason = f"equal to {side.copies[name]} wherever it is stored: counted once"
                        found.counted_once[name] = found.notes[name] = reason
    return found
