"""Two checkpoints side by side: aligned strictly, then one pair of tensors at a time."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

import torch

from opdlib.checkpoints.checkpoint import Checkpoint, TensorInfo
from opdlib.checkpoints.matrices import Matrices, Place, matrices, renamed
from opdlib.checkpoints.names import Param, bare, canonical, parse
from opdlib.errors import AlignmentError, MeasureError, ParameterError
from opdlib.measurement.refusals import refuse_dtypes, refuse_strangers, unequal
from opdlib.measurement.ties import Side, ties

VIEWS = ("bf16", "stored")
"""`bf16` rounds both checkpoints to bf16 first (the paper's view); `stored` subtracts what is stored."""


@dataclass(frozen=True)
class Match:
    """One parameter, and where it lies in the two checkpoints."""

    param: Param
    """By the name that the source gives it."""
    source: Place
    trained: Place

    @property
    def name(self) -> str:
        """What it is called in every table."""
        return self.param.name

    @property
    def info(self) -> TensorInfo:
        """Shape, that of both, and dtype in the source."""
        return self.source.info


@dataclass(frozen=True)
class Alignment:
    """Which parameters are compared, and a reason for every one that is not."""

    matches: tuple[Match, ...]
    """In order of the source's names."""
    left_out: dict[str, str]
    """Tensor -> why it is not compared: skipped by name, a buffer, or tied to another that is."""
    notes: dict[str, str]
    """Tensor -> what a reader of its numbers should know: compared in part, or not as its own matrix."""

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


def align(
    source: Checkpoint,
    trained: Checkpoint,
    skip: Sequence[str] = (),
    rename: Mapping[str, str] | None = None,
    whole: bool = False,
) -> Alignment:
    """Match every parameter of two checkpoints, from their headers alone (of heads that may be tied the values, too).

    A parameter is a matrix whatever the layout of the files (`opdlib.checkpoints.matrices`); with `whole` it is a
    stored tensor, for those who write tensors. Names are matched as they are first, then by what they stand for
    (`canonical` and `bare` of `opdlib.checkpoints.names`). `skip` holds names or shell patterns, `rename` beginnings
    of names. A head that is tied to the embedding is counted once; one that the source ties and the trained checkpoint
    does not is compared with the source's embedding. Of vocabularies of two sizes the shared rows are compared. Raises
    AlignmentError for tensors without a partner, for shapes that differ and for tied heads that are not; MeasureError
    for a dtype that is no float; ParameterError for a skip or a rename that names nothing; CheckpointError.
    """
    _check_renames(source, trained, rename or {})
    sides = [matrices(checkpoint, rename, whole) for checkpoint in (source, trained)]
    left_out = _skipped(source, trained, sides, skip)
    before, after = sides
    tied = ties(Side(source, before.places, left_out), Side(trained, after.places, left_out), whole)
    left_out = {**before.buffers, **after.buffers, **tied.counted_once, **left_out}
    notes = {**before.notes, **after.notes, **tied.notes}
    ours, theirs = (
        {name: place for name, place in side.places.items() if not {name, place.stored} & left_out.keys()}
        | {head: side.places[embedding] for head, embedding in stands_in.items()}
        for side, stands_in in zip(sides, tied.stands_in, strict=True)
    )
    partners = {name: name for name in ours if name in theirs}
    for meaning in (canonical, bare):
        others = _by_meaning(trained, meaning, set(theirs) - set(partners.values()))
        own = _by_meaning(source, meaning, set(ours) - set(partners))
        partners |= {own[name]: others[name] for name in own if name in others}
    refuse_strangers((source, ours), (trained, theirs), partners)
    matches = []
    for name, other in sorted(partners.items()):
        match = Match(parse(name), ours[name], theirs[other])
        refuse_dtypes((source, match.source), (trained, match.trained))
        if match.source.info.shape != match.trained.info.shape:
            rows = None if whole else _shared_rows(match)
            if rows is None:
                raise unequal(source, trained, match.name, match.source, match.trained)
            sizes = f"{match.info.shape[0]} rows in {source.spec}, {match.trained.info.shape[0]} in {trained.spec}"
            notes[name] = f"{sizes}; the first {rows} are compared"
            match = replace(match, source=match.source.first_rows(rows), trained=match.trained.first_rows(rows))
        if len(match.info.shape) == 3:
            notes[name] = "3-D, and of no layout that is known; it has no geometry"
        matches.append(match)
    if not matches:
        raise AlignmentError(
            f"{source.spec} and {trained.spec}: nothing is left to compare; the skip list names every tensor"
        )
    return Alignment(tuple(matches), left_out, notes)


def read_delta(source: Checkpoint, trained: Checkpoint, match: Match, view: str) -> Delta:
    """Read one parameter from both sides and put it in `view`."""
    return delta_of(match, match.source.read(source), match.trained.read(trained), view)


def delta_of(match: Match, source: torch.Tensor, trained: torch.Tensor, view: str) -> Delta:
    """Both sides of a parameter, as they are stored, in `view`: bf16 rounds to nearest, ties to even."""
    before, after = view_of(source, view), view_of(trained, view)
    if before.dtype != after.dtype:
        before, after = before.float(), after.float()
    return Delta(match, before, after)


def view_of(tensor: torch.Tensor, view: str) -> torch.Tensor:
    """The tensor as `view` sees it: rounded to bf16, or as it is stored."""
    return tensor.to(torch.bfloat16) if view == "bf16" else tensor


def check_finite(checkpoint: Checkpoint, place: Place, seen: torch.Tensor, view: str) -> None:
    """Raises MeasureError if `seen`, what lies at `place` in this view, holds NaN or Inf."""
    if not bool(torch.isfinite(seen).all()):
        raise not_finite(checkpoint, place, view)


def not_finite(checkpoint: Checkpoint, place: Place, view: str) -> MeasureError:
    """What is wrong with a tensor that is not finite in this view: as it is stored, or only once it is rounded."""
    stored = place.read(checkpoint)
    wrong = torch.nonzero(~torch.isfinite(view_of(stored, view)))
    at = [int(i) for i in wrong[0]]
    value = float(stored[tuple(at)])
    leave = "or leave the tensor out under skip (--skip NAME)"
    if bool(torch.isfinite(stored).all()):
        return MeasureError(
            f"{checkpoint.spec}: {place} holds {len(wrong)} numbers that are too large for bf16, the first {value:.6g} "
            f"at {at}; wanted weights that bf16 can hold. Look at them in view stored (--view stored), {leave}"
        )
    return MeasureError(
        f"{checkpoint.spec}: {place} holds {len(wrong)} NaN or Inf, the first {value} at {at}; wanted finite weights. "
        f"Copy or save the checkpoint again, {leave}"
    )


def _check_renames(source: Checkpoint, trained: Checkpoint, rename: Mapping[str, str]) -> None:
    for old, new in rename.items():
        if not any(renamed(name, {old: new}) != name for c in (source, trained) for name in c.tensors):
            raise ParameterError(
                f"rename {old}={new}: neither {source.spec} nor {trained.spec} has a name that begins with {old!r}; "
                f"names look like {next(iter(trained.tensors))!r}"
            )


def _skipped(source: Checkpoint, trained: Checkpoint, sides: Sequence[Matrices], skip: Sequence[str]) -> dict[str, str]:
    """What is left out by its stored name, or by the name that tables give it."""
    known = dict.fromkeys(name for c in (source, trained) for name in c.tensors)
    known |= dict.fromkeys(name for side in sides for name in side.places)
    left_out: dict[str, str] = {}
    for pattern in skip:
        named = [name for name in known if name == pattern or fnmatchcase(name, pattern)]
        if not named:
            raise ParameterError(
                f"skip {pattern!r}: neither {source.spec} nor {trained.spec} has such a tensor; "
                f"names look like {next(iter(source.tensors))!r}"
            )
        left_out |= dict.fromkeys(sorted(named), f"skipped: {pattern}")
    return left_out


def _by_meaning(checkpoint: Checkpoint, meaning: Callable[[str], str], names: set[str]) -> dict[str, str]:
    by: dict[str, str] = {}
    for name in sorted(names):
        known = by.setdefault(meaning(name), name)
        if known != name:
            raise AlignmentError(
                f"{checkpoint.spec}: {known!r} and {name!r} both stand for {meaning(name)!r}; skip one of them"
            )
    return by


def _shared_rows(match: Match) -> int | None:
    """How many rows two vocabularies of different sizes share; None for what is no vocabulary."""
    before, after = match.source.info.shape, match.trained.info.shape
    vocabulary = match.param.block in ("embedding", "lm_head") and match.source.cut is None is match.trained.cut
    return min(before[0], after[0]) if vocabulary and before and after and before[1:] == after[1:] else None
