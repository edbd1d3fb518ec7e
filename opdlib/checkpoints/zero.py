"""Folders of DeepSpeed ZeRO, stages 1 to 3: `latest` and `global_stepN/`, the float32 masters of all processes.

The masters are flat: each process has a part of one long vector. What stands where is what DeepSpeed's `zero_to_fp32`
takes it to be; here a tensor is cut out when it is read.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from opdlib.checkpoints.checkpoint import DTYPES, Checkpoint, TensorInfo
from opdlib.checkpoints.pickled import PickledFile, check
from opdlib.checkpoints.watched import Watched
from opdlib.errors import CheckpointError
from opdlib.foreign import foreign, read_text

LATEST = "latest"
OPTIMIZER = re.compile(r"(?:bf16_)?zero_pp_rank_(\d{1,6})_mp_rank_(\d{1,4})_optim_states\.pt")
MODEL = re.compile(r"(?:zero_pp_rank_(\d{1,6})_)?mp_rank_(\d{1,4})_model_states\.pt")
DO = "copy the whole folder again, or make a checkpoint of it with DeepSpeed's zero_to_fp32.py"


class StandIn:
    """Takes the place of a class of DeepSpeed that a pickle names. It keeps what it is given, and does nothing."""

    def __init__(self, *given: Any):
        self.given = given

    def __setstate__(self, state: Any) -> None:
        self.state = state


@dataclass(frozen=True)
class Piece:
    """Numbers from `start` to `stop` of the vector `group` of process `rank`."""

    rank: int
    group: int
    start: int
    stop: int


@dataclass(frozen=True)
class Parts:
    """Where a tensor comes from: pieces of the masters, or what the model's files hold under `held`."""

    pieces: tuple[Piece, ...] = ()
    held: str = ""


class ZeroCheckpoint(Checkpoint):
    """The model of one step. Trained tensors are the float32 masters, frozen ones and buffers are as stored. Raises
    CheckpointError for missing files, several model-parallel ranks, and vectors that do not fit the shapes."""

    def __init__(self, spec: str, step: Path, folder: Path):
        self.spec, self.folder = spec, folder
        optimizers, models = _ranked(step, OPTIMIZER), _ranked(step, MODEL)
        self.watched = Watched([*optimizers, *models])
        self._masters = [_file(path) for path in optimizers]
        self._models = [_file(path) for path in models]
        with foreign(f"{step}: not the states that DeepSpeed writes", CheckpointError, DO):
            states = [self._optimizer(rank) for rank in range(len(self._masters))]
            stage, count = (_plain(states[0][key]) for key in ("zero_stage", "partition_count"))
            self._flat = "fp32_flat_groups" if stage == 3 else "single_partition_of_fp32_groups"
            sizes = [[vector.numel() for vector in state[self._flat]] for state in states]
            model = self._models[0].content()
            processes = max(count) if isinstance(count, list) else count
            if processes != len(states) or (stage == 3 and len(models) != processes):
                raise CheckpointError(f"{step}: states of {len(states)} processes, of {processes}; {DO}")
            if stage not in (1, 2, 3):
                raise CheckpointError(f"{step}: of ZeRO stage {stage!r}, wanted 1, 2 or 3; {DO}")
            if any("autoep" in str(key) and model[key] for key in model):
                raise CheckpointError(f"{step}: experts are spread over groups of their own; {DO}")
            self.format = f"DeepSpeed ZeRO {stage}, {processes} ranks"
            self._parts: dict[str, Parts] = {}
            infos: dict[str, TensorInfo] = {}
            lay_out = _by_rank if stage == 3 else _by_group
            paddings = states[0].get("param_alignment_paddings")
            for name, shape, pieces in lay_out(model["param_shapes"], sizes, paddings, step):
                infos[name], self._parts[name] = TensorInfo(shape, "F32"), Parts(pieces)
            infos |= self._whole(model)
            for name, other in (model.get("shared_params") or {}).items():
                if other in infos:
                    infos[name], self._parts[name] = infos[other], self._parts[other]
        self.tensors = infos
        self.check_sizes()

    def read(self, name: str) -> torch.Tensor:
        info, parts = self.info(name), self._parts[name]
        with foreign(f"{self.spec}: {name}", CheckpointError, DO):
            if parts.held:
                found = [self._held(0, parts.held, info.numel)]
                if found[0].numel() < info.numel:  # frozen in stage 3: every process has a share
                    found = [self._held(rank, parts.held, info.numel) for rank in range(len(self._models))]
            else:
                found = [
                    self._optimizer(p.rank, 4 * (p.stop - p.start))[self._flat][p.group].detach()[p.start : p.stop]
                    for p in parts.pieces
                ]
            whole = torch.cat([part.flatten() for part in found]) if found else torch.empty(0)
            made = whole[: info.numel].reshape(info.shape).to(DTYPES[info.dtype])
        self.watched.check()
        return made

    def _whole(self, model: Mapping[str, Any]) -> dict[str, TensorInfo]:
        """What no master stands for: buffers, in float32 as DeepSpeed restores them, and frozen parameters."""
        module, found = model.get("module") or {}, {}
        for name in (name for name in model.get("buffer_names") or () if name in module):
            stored = TensorInfo.of(module[name])
            found[name] = TensorInfo(stored.shape, "F32") if module[name].is_floating_point() else stored
        for name, shape in (model.get("frozen_param_shapes") or {}).items():
            found[name] = TensorInfo(tuple(shape), TensorInfo.of(model["frozen_param_fragments"][name]).dtype)
        self._parts |= {name: Parts(held=name) for name in found}
        return found

    def _optimizer(self, rank: int, size: int = 0) -> Any:
        return self._masters[rank].content(size)["optimizer_state_dict"]

    def _held(self, rank: int, name: str, size: int) -> torch.Tensor:
        content = self._models[rank].content(4 * size)
        frozen = content.get("frozen_param_fragments") or {}
        found: torch.Tensor = frozen[name] if name in frozen else content["module"][name]
        if found.numel() > max(size, self.watched.size):
            raise CheckpointError(f"{self.spec}: {name} holds more numbers than its files have bytes; {DO}")
        return found.detach()


def holds(path: Path) -> bool:
    """Whether `path` is the folder of a step, one with `latest` that names it, or a file of one."""
    if path.is_dir():
        below = "*/" if (path / LATEST).is_file() else ""
        return any(path.glob(f"{below}*_model_states.pt"))
    return bool(OPTIMIZER.fullmatch(path.name) or MODEL.fullmatch(path.name))


def open_zero(path: Path, spec: str) -> ZeroCheckpoint:
    """Open the step that `latest` names, or the folder of one. Raises CheckpointError."""
    if not path.is_dir():
        raise CheckpointError(f"{path}: the part of one process; give the folder, {path.parent}")
    step, folder = path, path if (path / "config.json").is_file() else path.parent
    if (path / LATEST).is_file():
        name = read_text(path / LATEST, CheckpointError, DO).strip()
        step, folder = path / name, path
        if Path(name).name != name or name in ("", "..") or not step.is_dir():
            raise CheckpointError(f"{path / LATEST}: names {name!r}, which is no folder beside it; {DO}")
    return ZeroCheckpoint(spec, step, folder)


def _ranked(step: Path, pattern: re.Pattern[str]) -> list[Path]:
    """The files of all processes, in order."""
    found = {path: match for path in step.iterdir() if (match := pattern.fullmatch(path.name))}
    if not found:
        raise CheckpointError(f"{step}: no {pattern.pattern.split('_')[-2]}_states.pt of DeepSpeed ZeRO in it; {DO}")
    if len({match[2] for match in found.values()}) > 1:
        raise CheckpointError(f"{step}: states of several model-parallel ranks, which are not joined; {DO}")
    ranks = {int(match[1] or 0): path for path, match in found.items()}
    if missing := sorted(set(range(len(ranks))) - set(ranks)):
        raise CheckpointError(f"{step}: the states of process {missing[0]} are missing; {DO}")
    return [ranks[rank] for rank in sorted(ranks)]


def _file(path: Path) -> PickledFile:
    """The file, with stand-ins for the classes of DeepSpeed that it names and nothing else that is no tensor."""
    with foreign(f"{path}: not a whole pickle of torch.save", CheckpointError, DO):
        check(path)
        named = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    return PickledFile(path, [(StandIn, name) for name in named if name.startswith("deepspeed.")])


def _plain(value: Any) -> Any:
    return value.given[0] if isinstance(value, StandIn) else value


Layout = Iterator[tuple[str, tuple[int, ...], tuple[Piece, ...]]]


def _by_group(shapes: Sequence[Mapping[str, Any]], sizes: list[list[int]], paddings: Any, step: Path) -> Layout:
    """Stages 1 and 2: a group of parameters is one vector, cut into one part for each process."""
    for group, own in enumerate(shapes):
        tape = [(rank, group, of[group]) for rank, of in enumerate(sizes)]
        at = 0
        for number, (name, shape) in enumerate(own.items()):
            size = math.prod(shape)
            yield name, tuple(shape), tuple(_cut(tape, at, size))
            at += size + (paddings[group][number] if paddings else 0)
        unit, held = 2 * len(sizes), sum(size for *_, size in tape)
        if math.ceil(at / unit) != math.ceil(held / unit):
            raise CheckpointError(f"{step}: group {group} holds {held} numbers for parameters of {at}; {DO}")


def _by_rank(shapes: Sequence[Mapping[str, Any]], sizes: list[list[int]], paddings: Any, step: Path) -> Layout:
    """Stage 3: every parameter is cut into equal parts, and a process has its parts of all, one after the other."""
    at = 0
    tapes = [[(rank, group, size) for group, size in enumerate(of)] for rank, of in enumerate(sizes)]
    for name, shape in (item for own in shapes for item in own.items()):
        share = math.ceil(math.prod(shape) / len(sizes))
        yield name, tuple(shape), tuple(piece for tape in tapes for piece in _cut(tape, at, share))
        at += share
    if any(sum(of) < at for of in sizes):
        raise CheckpointError(f"{step}: holds {min(map(sum, sizes))} numbers a process for shares of {at}; {DO}")


def _cut(tape: Sequence[tuple[int, int, int]], start: int, size: int) -> Iterator[Piece]:
    """The pieces of vectors that lie end to end, from `start` on."""
    begin, stop = 0, start + size
    for rank, group, length in tape:
        low, high = max(start, begin), min(stop, begin + length)
        if low < high:
            yield Piece(rank, group, low - begin, high - begin)
        begin += length
