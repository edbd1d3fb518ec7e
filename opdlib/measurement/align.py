"""Two checkpoints side by side: aligned strictly, then one pair of tensors at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch

from opdlib.checkpoints.checkpoint import Checkpoint, TensorInfo
from opdlib.checkpoints.names import Param, canonical, parse
from opdlib.errors import AlignmentError, MeasureError, ParameterError

VIEWS = ("bf16", "stored")
"""`bf16` rounds both checkpoints to bf16 first (the paper's view); `stored` subtracts what is stored."""

DTYPES = ("BF16", "F16", "F32")
"""Stored dtypes that can be subtracted exactly in float64."""


@dataclass(frozen=True)
class Match:
    """One parameter, by the names that the two checkpoints give it."""

    param: Param
    source: str
    trained: str
    info: TensorInfo
    """Shape and dtype in the source."""
    trained_dtype: str


@dataclass(frozen=True)
class Alignment:
    """Which tensors are compared, and a reason for every one that is not."""

    matches: tuple[Match, ...]
    """In order of the source's names."""
    left_out: dict[str, str]
    """Tensor -> why it is not compared: skipped by name, or tied to another that is."""

    @property
    def parameters(self) -> int:
        """Number of coordinates that are compared."""
        return sum(m.info.numel for m in self.matches)


@dataclass(frozen=True)
class Delta:
    """The two tensors of one parameter, in the view that is to be subtracted."""

    match: Match
    source: torch.Tensor
    trained: torch.Tensor


def align(source: Checkpoint, trained: Checkpoint, skip: Sequence[str] = ()) -> Alignment:
    """Match every tensor of two checkpoints, from their headers alone (a stored tied head is read and compared).

    Names are matched as they are first, then with known prefixes replaced (`opdlib.checkpoints.names.PREFIXES`).
    `skip` holds names or shell patterns. A head that config.json ties to the embedding is counted once. Raises
    AlignmentError for tensors without a partner, for shapes that differ and for tied heads that are not;
    MeasureError for a dtype that is no float; ParameterError for a skip that names nothing.
    """
    left_out = _skipped(source, trained, skip)
    tied = {canonical(head): canonical(embedding) for c in (source, trained) for head, embedding in c.tied.items()}
    heads = [_tied_heads(checkpoint, tied, left_out) for checkpoint in (source, trained)]
    left_out |= heads[0] | heads[1]
    ours = {n: i for n, i in source.tensors.items() if n not in left_out}
    theirs = {n: i for n, i in trained.tensors.items() if n not in left_out}
    partners = {name: name for name in ours if name in theirs}
    renamed = _by_canonical(trained, [n for n in theirs if n not in partners])
    own = _by_canonical(source, [n for n in ours if n not in partners])
    partners |= {own[c]: renamed[c] for c in own if c in renamed}
    _refuse_strangers(source, trained, ours, theirs, partners)
    matches = []
    for name, other in sorted(partners.items()):
        _refuse_unequal(source, trained, name, other)
        matches.append(Match(parse(name), name, other, ours[name], theirs[other].dtype))
    if not matches:
        raise AlignmentError(
            f"{source.spec} and {trained.spec}: nothing is left to compare; the skip list names every tensor"
        )
    return Alignment(tuple(matches), left_out)


def read_delta(source: Checkpoint, trained: Checkpoint, match: Match, view: str) -> Delta:
    """Read one parameter from both sides and put it in `view`: bf16 rounds to nearest, ties to even."""
    before, after = view_of(source.read(match.source), view), view_of(trained.read(match.trained), view)
    if before.dtype != after.dtype:
        before, after = before.float(), after.float()
    return Delta(match, before, after)


def view_of(tensor: torch.Tensor, view: str) -> torch.Tensor:
    """The tensor as `view` sees it: rounded to bf16, or as it is stored."""
    return tensor.to(torch.bfloat16) if view == "bf16" else tensor


def _skipped(source: Checkpoint, trained: Checkpoint, skip: Sequence[str]) -> dict[str, str]:
    left_out: dict[str, str] = {}
    for pattern in skip:
        named = {n for c in (source, trained) for n in c.tensors if n == pattern or fnmatchcase(n, pattern)}
        if not named:
            raise ParameterError(
                f"skip {pattern!r}: neither {source.spec} nor {trained.spec} has such a tensor; "
                f"names look like {next(iter(source.tensors))!r}"
            )
        left_out |= dict.fromkeys(sorted(named), f"skipped: {pattern}")
    return left_out


def _tied_heads(checkpoint: Checkpoint, tied: dict[str, str], left_out: dict[str, str]) -> dict[str, str]:
    """The heads that are declared tied, after a look that those that are stored really equal the embedding."""
    by_canonical = {canonical(name): name for name in checkpoint.tensors}
    found = {}
    for head, embedding in tied.items():
        stored, target = by_canonical.get(head), by_canonical.get(embedding)
        if target is None or head in left_out:
            continue
        found[stored or head] = f"tied to {target}: one tensor, counted once"
        if stored and stored not in left_out and not _equal(checkpoint, stored, target):
            raise AlignmentError(
                f"{checkpoint.spec}: config.json ties {stored} to {target}, but the stored tensors differ; "
                f"say which is meant: set tie_word_embeddings to false, or skip {stored}"
            )
    return found


def _equal(c: Checkpoint, name: str, other: str) -> bool:
    return c.tensors[name] == c.tensors[other] and c.tensor_digest(name) == c.tensor_digest(other)


def _by_canonical(checkpoint: Checkpoint, names: list[str]) -> dict[str, str]:
    by: dict[str, str] = {}
    for name in names:
        known = by.setdefault(canonical(name), name)
        if known != name:
            raise AlignmentError(
                f"{checkpoint.spec}: {known!r} and {name!r} both stand for {canonical(name)!r}; skip one of them"
            )
    return by


def _refuse_strangers(
    source: Checkpoint,
    trained: Checkpoint,
    ours: dict[str, TensorInfo],
    theirs: dict[str, TensorInfo],
    partners: dict[str, str],
) -> None:
    alone, others = sorted(set(ours) - set(partners)), sorted(set(theirs) - set(partners.values()))
    if not alone and not others:
        return
    if not partners:
        raise AlignmentError(
            f"{source.spec} and {trained.spec} have no tensor name in common ({len(ours)} and {len(theirs)} tensors, "
            f"such as {alone[0] if alone else '-'} and {others[0] if others else '-'}); "
            "wanted a model and what was trained from it"
        )
    lists = [f"only in {c.spec}: {_listed(n)}" for c, n in ((source, alone), (trained, others)) if n]
    raise AlignmentError(
        f"tensors without a partner, {'; '.join(lists)}. Every tensor must be in both; "
        "list what should be left out under skip (--skip NAME)"
    )


def _listed(names: list[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _refuse_unequal(source: Checkpoint, trained: Checkpoint, name: str, other: str) -> None:
    before, after = source.tensors[name], trained.tensors[other]
    if before.shape != after.shape:
        raise AlignmentError(
            f"{name}: {list(before.shape)} in {source.spec}, {list(after.shape)} in {trained.spec}; a delta needs "
            "equal shapes. If the vocabulary was resized, leave the tensor out under skip (--skip NAME)"
        )
    for checkpoint, info, own_name in ((source, before, name), (trained, after, other)):
        if info.dtype not in DTYPES:
            raise MeasureError(
                f"{checkpoint.spec}: {own_name} is stored as {info.dtype}; wanted one of {', '.join(DTYPES)}. "
                "Dequantize the checkpoint first, or leave the tensor out under skip (--skip NAME)"
            )
