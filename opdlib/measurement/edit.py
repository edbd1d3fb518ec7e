"""A checkpoint that holds only a part of an update: to ask by intervention what a measurement can only suggest.

| rule | what of the update is kept |
| --- | --- |
| `singular:K` | of every matrix the K leading singular directions of its delta |
| `visible` | what bf16 shows: both sides rounded, then subtracted |
| `largest:P` | of every tensor the share P of coordinates that moved farthest |
| `random:P` | as many coordinates as `largest:P` has in every binade of abs(source), drawn |
| `mask:principal:P`, `mask:low:P` | the coordinates of that mask of the source (`opdlib.metrics.masks`) |
| `block:NAME`, `layers:A-B` | the tensors of a block; the layers from A to B, both included |
| `scale:C` | all of it, times C |
| `none` | nothing |

Several rules keep what all of them keep, no rule keeps everything. A vector is a matrix of one row, a fused tensor as
many matrices as it holds.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from opdlib.checkpoints.architectures import Cut
from opdlib.checkpoints.checkpoint import Checkpoint
from opdlib.checkpoints.matrices import matrices
from opdlib.checkpoints.names import BLOCKS, NUMBER, Param
from opdlib.checkpoints.patch import copy_companions, write_safetensors
from opdlib.errors import MeasureError, ParameterError
from opdlib.files import new_folder
from opdlib.measurement.align import Match, align, check_finite, view_of
from opdlib.metrics.draws import binades, drawn_alike, generator, largest
from opdlib.metrics.eigen import LinAlgError, largest_first
from opdlib.metrics.sparsity import count_of
from opdlib.metrics.spectrum import gram_of
from opdlib.metrics.subspace import rank_of

FORMS = (
    "singular:K, visible, largest:P, random:P, mask:principal:P, mask:low:P, block:NAME, layers:A-B, scale:C or none"
)


@dataclass(frozen=True)
class Rule:
    """One rule, read: its kind, and what follows the colon as a number, name or range."""

    kind: str
    number: float = math.nan
    block: str = ""
    layers: range = range(0)


@dataclass(frozen=True)
class Kept:
    """How much of an update an edited checkpoint holds."""

    rel_norm: float
    """Fro(edited - source) / Fro(source), over all tensors."""
    energy: float
    """Share of the update's squared norm that the edit holds, Fro(edited - source)^2 / Fro(trained - source)^2; above
    1 for `scale:C` with C > 1, NaN for an update that is zero."""
    changed: float
    """Share of all coordinates in which the edited checkpoint differs from the source."""


def parse_rule(text: str) -> Rule:
    """The rule that `text` writes. Raises ParameterError that says what is wrong with it."""
    kind, _, rest = text.partition(":")
    if kind == "mask":
        name, _, rest = rest.partition(":")
        kind = f"mask:{name}"
    if kind in ("visible", "none") and not rest and ":" not in text:
        return Rule(kind)
    if kind == "block" and rest in BLOCKS:
        return Rule(kind, block=rest)
    if kind == "block":
        raise ParameterError(f"rule {text!r}: no block {rest!r}; choose one of {', '.join(BLOCKS)}")
    if kind == "layers":
        first, dash, last = rest.partition("-")
        if dash and NUMBER.fullmatch(first) and NUMBER.fullmatch(last) and int(first) <= int(last):
            return Rule(kind, layers=range(int(first), int(last) + 1))
        raise ParameterError(f"rule {text!r}: wanted layers:A-B with numbers A <= B, counted from 0")
    limits = {"singular": "a whole number from 1 up", "scale": "a finite number"}
    limits |= dict.fromkeys(("largest", "random", "mask:principal", "mask:low"), "a share above 0 and at most 1")
    if kind not in limits:
        raise ParameterError(f"rule {text!r} is unknown; wanted {FORMS}")
    number = _number(rest)
    fits = {"singular": number >= 1 and number % 1 == 0, "scale": math.isfinite(number)}.get(kind, 0 < number <= 1)
    if not fits:
        raise ParameterError(f"rule {text!r}: {rest!r} is not {limits[kind]}")
    return Rule(kind, number)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def edit(
    source: Checkpoint,
    trained: Checkpoint,
    out: Path,
    keep: Sequence[str],
    *,
    complement: bool = False,
    restore_spectrum: bool = False,
    seed: int = 0,
    progress: Callable[[Sequence[Match]], Iterable[Match]] = iter,
) -> Kept:
    """Write to the new folder `out` the source with the part of the update that all rules of `keep` keep.

    Every tensor has the dtype of `trained`, whose configuration and tokenizer come along. `complement` keeps the
    rest instead. Part and rest add up to the update: to the bit where a coordinate is kept or not, and for
    `singular`, `visible` and `scale`, which share a coordinate out, to the last place of what is written.
    `restore_spectrum` then gives every matrix that differs from the source's the singular values of the source
    (ISO, arXiv 2607.19331). `seed` draws what is drawn, tensor by tensor. Raises ParameterError for a rule that
    cannot be read or names layers that do not exist, AlignmentError, MeasureError for NaN or Inf, OutputError.
    """
    rules = [parse_rule(text) for text in keep]
    view = "bf16" if any(rule.kind == "visible" for rule in rules) else "stored"
    if seed < 0:
        raise ParameterError(f"seed {seed}; wanted a whole number from 0 up")
    if out.suffix == ".safetensors":
        raise ParameterError(f"{out}: an edited checkpoint is a folder; give the name of a new one")
    alignment = align(source, trained, whole=True)
    _check_layers(rules, keep, [m.param for m in alignment.matches])
    cuts: dict[str, list[Cut]] = {}
    for place in matrices(trained).places.values():
        if place.cut:
            cuts.setdefault(place.stored, []).append(place.cut)
    sums = np.zeros(4)  # energy of the edit, of the update, of the source; coordinates that differ

    def contents() -> Iterator[memoryview]:
        for match in progress(alignment.matches):
            before, after = match.source.read(source), match.trained.read(trained)
            for checkpoint, place, tensor in ((source, match.source, before), (trained, match.trained, after)):
                check_finite(checkpoint, place, view_of(tensor, view), view)
            own, rng = cuts.get(match.trained.stored, []), generator(seed, match.name)
            edited = _edited(rules, match.param, before, after, own, rng, complement)
            is_bias = edited.ndim < 2 or match.name.endswith("bias")
            if restore_spectrum and not is_bias and bool((edited.double() != before.double()).any()):
                edited = _with_spectrum_of(before, edited, own)
            if not bool(torch.isfinite(edited).all()):
                raise MeasureError(f"{match.name}: what the rules {', '.join(keep)} leave is too large; scale it less")
            start, difference = before.double(), edited.double() - before.double()
            sums[:3] += [float(x.square().sum()) for x in (difference, after.double() - start, start)]
            sums[3] += int((difference != 0).sum())
            yield edited.contiguous().flatten().view(torch.uint8).numpy().data

    infos = {match.trained.stored: match.trained.info for match in alignment.matches}
    with new_folder(out) as folder:
        with (folder / "model.safetensors").open("wb") as stream:
            write_safetensors(stream, {"format": "pt"}, infos, contents())
        source.check_unchanged()
        trained.check_unchanged()
        copy_companions(trained.folder, folder)
    kept, whole, start = (float(x) for x in sums[:3])
    return Kept(
        rel_norm=math.sqrt(kept / start) if start else math.nan,
        energy=kept / whole if whole else math.nan,
        changed=float(sums[3]) / alignment.parameters,
    )


def _check_layers(rules: Sequence[Rule], texts: Sequence[str], params: Sequence[Param]) -> None:
    known = {p.layer for p in params if p.part == "language" and p.layer is not None}
    for rule, text in zip(rules, texts, strict=True):
        if rule.kind == "layers" and not set(rule.layers) <= known:
            there = f"0 to {max(known)}" if known else "none"
            raise ParameterError(f"rule {text!r}: the model's language layers are {there}")


def _edited(
    rules: Sequence[Rule],
    param: Param,
    before: Tensor,
    after: Tensor,
    cuts: Sequence[Cut],
    rng: np.random.Generator,
    complement: bool,
) -> Tensor:
    start, end = before.double(), after.double()
    delta = end - start
    part, inside = delta, torch.ones_like(delta, dtype=torch.bool)
    for rule in rules:
        if rule.kind == "visible":
            part = after.bfloat16().double() - before.bfloat16().double()
        elif rule.kind == "singular":
            part = _by_matrix(partial(_leading, k=int(rule.number)), cuts, part)
        elif rule.kind == "scale":
            part = part * rule.number
        else:
            inside &= _inside(rule, param, before, delta, cuts, rng)
    part = torch.where(inside, part, 0.0)
    kept = (start + part).to(after.dtype)
    return (end - (kept.double() - start)).to(after.dtype) if complement else kept


def _inside(
    rule: Rule, param: Param, before: Tensor, delta: Tensor, cuts: Sequence[Cut], rng: np.random.Generator
) -> Tensor:
    """The coordinates that a rule keeps: bool, of the tensor's shape or of one that spreads over it."""
    if rule.kind == "none":
        return torch.tensor(False)
    if rule.kind == "block":
        return torch.tensor(param.summary_block == rule.block)
    if rule.kind == "layers":
        return torch.tensor(param.part == "language" and param.layer in rule.layers)
    count = count_of(rule.number, delta.numel())
    if rule.kind == "mask:low":
        return largest(-before.double().abs(), count, rng)
    if rule.kind == "mask:principal":
        rebuilt = _by_matrix(lambda m: _leading(m, rank_of(rule.number, m.shape)), cuts, before.double())
        return largest(rebuilt.abs(), count, rng)
    far = largest(delta.abs(), count, rng)
    return far if rule.kind == "largest" else drawn_alike(far, binades(before), rng)


def _by_matrix(of: Callable[..., Tensor], cuts: Sequence[Cut], *tensors: Tensor) -> Tensor:
    """`of` applied to every matrix of tensors of one shape: those that `cuts` lead to, else each of the last two
    dimensions."""
    first = tensors[0]
    if first.numel() == 0:
        return first
    if not cuts:
        shape = (-1, *first.shape[-2:]) if first.ndim > 1 else (1, 1, -1)
        stacks = (tensor.reshape(shape) for tensor in tensors)
        return torch.stack([of(*own) for own in zip(*stacks, strict=True)]).reshape(first.shape)
    found, place = first.clone().flatten(), torch.arange(first.numel()).reshape(first.shape)
    for cut in cuts:
        found[cut.of(place).flatten()] = of(*(_rows(cut.of(tensor)) for tensor in tensors)).flatten()
    return found.reshape(first.shape)


def _rows(part: Tensor) -> Tensor:
    """A matrix as it is, a vector as one row; contiguous, so that no digit depends on how it lies."""
    return part.reshape(-1, part.shape[-1]).contiguous()


def _leading(matrix: Tensor, k: int) -> Tensor:
    """The matrix on its k leading singular directions, U_k S_k V_k^T."""
    if k >= min(matrix.shape):
        return matrix
    try:
        _, short = largest_first(gram_of(matrix), k)
    except LinAlgError:
        u, sigma, v = torch.linalg.svd(matrix, full_matrices=False)
        projected: Tensor = (u[:, :k] * sigma[:k]) @ v[:k]
        return projected
    return matrix @ short @ short.mT if matrix.shape[0] >= matrix.shape[1] else short @ (short.mT @ matrix)


def _with_spectrum_of(source: Tensor, edited: Tensor, cuts: Sequence[Cut]) -> Tensor:
    def restored(old: Tensor, new: Tensor) -> Tensor:
        u, _, v = torch.linalg.svd(new, full_matrices=False)
        turned: Tensor = (u * torch.linalg.svdvals(old)) @ v
        return turned

    return _by_matrix(restored, cuts, source.double(), edited.double()).to(edited.dtype)
