"""Files of torch.save: pytorch_model.bin, .pt, .pth. Only torch's own reader of weights opens them, so nothing runs."""

import pickle
import threading
import warnings
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import ZIP_STORED, ZipFile

import torch

from opdlib.checkpoints.checkpoint import Checkpoint, TensorInfo
from opdlib.checkpoints.opcodes import check_keys
from opdlib.checkpoints.shards import Files, check_shard, files_in, files_of_index, whole_file
from opdlib.checkpoints.watched import Watched
from opdlib.errors import CheckpointError
from opdlib.foreign import foreign

SUFFIXES = (".bin", ".pt", ".pth", ".ckpt")
TRAINER_STATE = (
    *("optimizer", "optim_", "scheduler", "scaler", "rng_state", "random_states", "training_args", "adapter_"),
    "data.pt",
)
"""How the files begin that a trainer writes beside the weights; the last is verl's, of its data."""
SHARES = ("model_world_size_", "extra_state_world_size_", "mp_rank_", "zero_pp_rank_", "bf16_zero_pp_rank_")
"""How the files begin that hold what one process of many had; see `ranks` and `zero`."""
ROOTS = ("model", "state_dict", "model_state_dict", "module", "app")
"""Keys under which trainers put the weights among other things."""
RENEWED = 1 << 26
"""Bytes read from a mapped file after which it is mapped anew, so that what was read can leave the memory."""

_globals = threading.Lock()  # torch keeps the list of what a pickle may name for the whole process


class PickledFile:
    """One file of torch.save. It is mapped: a tensor is read from disk when it is used. A file of torch before 1.6
    cannot be mapped, and stays in memory as long as the object does."""

    def __init__(self, path: Path, allowed: Sequence[Any] = ()):
        self.path, self._allowed = path, tuple(allowed)
        self._content, self._read = load(path, self._allowed), 0
        self._weights: tuple[Any, dict[str, Any]] = None, {}

    def content(self, size: int = 0) -> Any:
        """What the file holds; `size` says how many bytes of its tensors will be read now."""
        self._read += size
        if self._read > RENEWED and is_mapped(self.path):
            self._content, self._read = load(self.path, self._allowed), size
        return self._content

    def weights(self, size: int = 0) -> dict[str, Any]:
        """The state dict in it; see `content` and `weights_of`."""
        content, (of, weights) = self.content(size), self._weights
        if of is not content:
            weights = weights_of(content, self.path)
            self._weights = content, weights
        return weights

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_allowed": self._allowed}  # mapped again where it arrives

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["path"], state["_allowed"])  # type: ignore[misc]


class PickledCheckpoint(Checkpoint):
    """The weights of files of torch.save. Raises CheckpointError for a pickle that wants more than tensors and plain
    data, for one that holds no weights, and where files and index disagree."""

    def __init__(self, spec: str, files: Files, folder: Path):
        self.spec, self.folder, self.format = spec, folder, "torch"
        self.watched = Watched(files)
        self._files: dict[str, PickledFile] = {}
        self.tensors = {}
        for path, listed in sorted(files.items()):
            file = PickledFile(path)
            weights = file.weights()
            check_shard(path, listed, weights, {name: held.path for name, held in self._files.items()})
            for name, tensor in weights.items():
                if type(tensor) not in (torch.Tensor, torch.nn.Parameter) or tensor.layout is not torch.strided:
                    raise CheckpointError(
                        f"{path}: {name} is a {type(tensor).__name__} of layout {tensor.layout}; wanted plain tensors, "
                        "or the folder if this is the part of one process"
                    )
                self._files[name], self.tensors[name] = file, TensorInfo.of(tensor)
        self.check_sizes()

    def read(self, name: str) -> torch.Tensor:
        size, file = self.info(name).numel * self.dtype_of(name).itemsize, self._files[name]
        found: torch.Tensor = file.weights(size)[name]
        own = found.detach().contiguous().clone()  # nobody computes with a map, which may be cut short
        self.watched.check(file.path)
        return own


def load(path: Path, allowed: Sequence[Any] = (), content: BytesIO | None = None) -> Any:
    """What torch.load(weights_only=True) makes of `path`, mapped if it can be, or of `content`, a piece of it.
    `allowed` are classes that the pickle may name besides tensors. Raises CheckpointError in one line."""
    with (
        foreign(f"{path}: not a whole pickle of torch.save", CheckpointError, "copy or save the file again"),
        _globals,
        warnings.catch_warnings(),
        torch.serialization.safe_globals(list(allowed)),
    ):
        warnings.simplefilter("ignore")  # of pickles that are old
        check(path, content)
        try:
            return torch.load(
                content or path, map_location="cpu", weights_only=True, mmap=not content and is_mapped(path)
            )
        except pickle.UnpicklingError as error:
            raise CheckpointError(
                f"{path}: a pickle that wants more than weights ({_wanted(error)}), so it is refused and nothing of it "
                "was run; if you trust it, save its state dict alone with torch.save, or as safetensors"
            ) from error


def check(path: Path, content: BytesIO | None = None) -> None:
    """Raise CheckpointError, or what zipfile and pickletools raise, for a file of torch.save that takes more memory or
    time to read than its size asks for: torch compresses nothing, and see `opdlib.checkpoints.opcodes`."""
    if content is None and not is_mapped(path):
        with path.open("rb") as stream:
            for _ in range(4):  # as many pickles as torch wrote before 1.6: what it is, with which version, where, what
                if stream.tell() < path.stat().st_size:
                    check_keys(stream)
        return
    with ZipFile(BytesIO(content.getvalue()) if content else path) as archive:
        for item in archive.infolist():
            if item.compress_type != ZIP_STORED:
                raise CheckpointError(f"{path}: {item.filename} in it is compressed, which torch.save does not do")
            if item.filename.endswith("data.pkl"):
                check_keys(BytesIO(archive.read(item)))


def is_mapped(path: Path) -> bool:
    """Whether `path` is a zip archive, as torch writes since 1.6."""
    with path.open("rb") as stream:
        return stream.read(4) == b"PK\x03\x04"


def weights_of(content: Any, place: Path, kind: type = torch.Tensor, deepest: int = 8) -> dict[str, Any]:
    """The state dict in what a trainer saved: the mapping itself, or what stands under one of `ROOTS`. Its entries that
    are no tensors are left out. Raises CheckpointError if there is none, or more than one."""
    if isinstance(content, Mapping) and deepest:
        roots = [key for key in ROOTS if isinstance(content.get(key), Mapping) and content[key]]
        if len(roots) == 1:
            return weights_of(content[roots[0]], place, kind, deepest - 1)
        if roots:
            raise CheckpointError(f"{place}: weights under {' and '.join(roots)}; save the one that is meant alone")
        tensors = {name: value for name, value in content.items() if isinstance(value, kind)}
        if tensors and all(isinstance(name, str) for name in tensors):
            return tensors
    found = f"keys {', '.join(map(str, [*content][:4]))}" if isinstance(content, Mapping) else type(content).__name__
    raise CheckpointError(f"{place}: no weights in it ({found}); wanted a state dict, or one under {', '.join(ROOTS)}")


def holds(path: Path) -> bool:
    """Whether there is a pickle of weights at `path`: a file, an index of shards, or a folder with either."""
    if path.is_dir():
        return any(path.glob("*.bin.index.json")) or bool(_weights(path))
    return path.suffix in SUFFIXES or path.name.endswith(".bin.index.json")


def open_pickled(path: Path, spec: str) -> PickledCheckpoint:
    """Open a file of torch.save, an index of shards, or a folder with either, beside whatever a trainer left there.
    Raises CheckpointError with what was found and what to do."""
    if path.is_dir():
        files = files_in(path, "pytorch_model.bin", sorted(path.glob("*.bin.index.json")), _weights(path))
        return PickledCheckpoint(spec, files, path)
    files = files_of_index(path) if path.suffix == ".json" else whole_file(path)
    return PickledCheckpoint(spec, files, path.parent)


def _weights(folder: Path) -> list[Path]:
    files = (path for path in folder.iterdir() if path.suffix in SUFFIXES and path.is_file())
    return sorted(path for path in files if not path.name.startswith((*TRAINER_STATE, *SHARES)))


def _wanted(error: Exception) -> str:
    """What the pickle asked for, out of a message of many lines."""
    lines = [line.strip() for line in str(error).splitlines()]
    told = next((line for line in lines if "GLOBAL" in line or "Unsupported" in line or "WeightsUnpickler" in line), "")
    return told[:160].partition(" was not an allowed")[0] or "no file of torch.save"
