"""Which files of a folder are one checkpoint: a single file, or shards that an index lists or whose names prove it."""

import itertools
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from opdlib.errors import CheckpointError
from opdlib.foreign import read_object

SHARD = re.compile(r"(.+)-(\d+)-of-(\d+)\.(safetensors|bin|pt|pth|gguf)")

Files = Mapping[Path, list[str] | None]
"""File -> the tensors that an index lists for it; None without an index."""


def files_in(folder: Path, single: str, indices: Sequence[Path], weights: Sequence[Path]) -> Files:
    """The files of the one checkpoint in `folder`: `single` is the name of a file that is a whole model by its name,
    `weights` are all files that may be one. Raises CheckpointError where they may be several, or are not all there."""
    whole = folder / single
    if len(indices) > 1 or (indices and whole.exists()):
        rivals = [p.name for p in indices] + [single] * whole.exists()
        raise CheckpointError(
            f"{folder}: holds {' and '.join(rivals)}, which may be two checkpoints; name the file you mean"
        )
    if indices:
        return files_of_index(indices[0])
    if whole.exists():
        return {whole: None}
    return _unlisted(folder, weights)


def whole_file(path: Path) -> Files:
    """A file that is a checkpoint by itself. Raises CheckpointError for one that is a shard of several by its name."""
    shard = SHARD.fullmatch(path.name)
    if shard and int(shard[3]) > 1:
        raise CheckpointError(
            f"{path}: is shard {int(shard[2])} of {int(shard[3])}, not a whole model; give the folder that holds all, "
            "or their index"
        )
    return {path: None}


def files_of_index(index: Path) -> Files:
    """The files beside `index` that it lists. Raises CheckpointError if it is damaged or a file is missing."""
    files = {
        index.parent / shard: names
        for shard, names in listed_in(str(index), read_object(index, CheckpointError, "copy the index again")).items()
    }
    for path in files:
        if not path.is_file():
            raise CheckpointError(f"{path}: missing, though {index.name} lists it; copy or download the shard again")
    return files


def listed_in(index: str, content: Mapping[str, Any]) -> dict[str, list[str]]:
    """File -> the tensors that the content of an index lists for it. Raises CheckpointError if it is damaged."""
    weight_map = content.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{index}: no 'weight_map' of tensor names to file names; copy the index again")
    files: dict[str, list[str]] = {}
    for name, shard in weight_map.items():
        if not isinstance(shard, str) or Path(shard).name != shard or "\\" in shard:
            raise CheckpointError(
                f"{index}: {name!r} is said to lie in {shard!r}; wanted the plain name of a file beside it. "
                "An index must not point outside its folder"
            )
        files.setdefault(shard, []).append(name)
    return files


def chosen(where: str, there: Sequence[str], read: Callable[[str], dict[str, Any]]) -> dict[str, list[str] | None]:
    """The safetensors files of the one checkpoint among the files of a folder elsewhere, and what an index lists for
    each; `read` gives what an index holds. Raises CheckpointError where there is none, or may be several."""
    weights = [f for f in there if f.endswith(".safetensors") and not Path(f).name.startswith("consolidated")]
    single = [file for file in weights if Path(file).name == "model.safetensors"] or weights
    indices = [file for file in there if file.endswith(".safetensors.index.json")]
    if len(indices) == 1:
        folder = indices[0].removesuffix(Path(indices[0]).name)
        return {folder + shard: names for shard, names in listed_in(indices[0], read(indices[0])).items()}
    if not indices and len(single) == 1:
        return {single[0]: None}
    raise CheckpointError(
        f"{where}: holds {len(weights)} safetensors files and {len(indices)} indices; wanted one model, in one file or "
        "listed by one index. Name the file or folder that is meant"
    )


def check_shard(path: Path, listed: Sequence[str] | None, held: Collection[str], places: Mapping[str, Path]) -> None:
    """Raise CheckpointError unless the shard `path` holds what the index lists, and nothing that lies in another shard
    too; `places` says where the tensors of the shards before it lie."""
    if listed is not None and sorted(listed) != sorted(held):
        stray = sorted(set(listed).symmetric_difference(held))
        raise CheckpointError(
            f"{path}: the index lists {len(listed)} tensors in this shard, the shard holds {len(held)}; "
            f"they differ in {stray[0]!r}. Index and shards must come from one save; copy them again"
        )
    for name in held:
        if name in places:
            raise CheckpointError(
                f"{path}: tensor {name!r} is also in {places[name].name}; a tensor belongs to one shard. "
                "Remove the file that is not part of the checkpoint"
            )


def _unlisted(folder: Path, weights: Sequence[Path]) -> Files:
    """Shards without an index are taken only if their own names prove that the set is complete."""
    shards = [m for p in weights if (m := SHARD.fullmatch(p.name))]
    if len(weights) == 1 and not shards:
        return {weights[0]: None}
    if len(shards) == len(weights) and len({(m[1], int(m[3])) for m in shards}) == 1:
        total, numbers = int(shards[0][3]), {int(m[2]) for m in shards}
        missing = next(number for number in itertools.count(1) if number not in numbers)
        if missing <= total:
            raise CheckpointError(f"{folder}: shard {missing} of {total} is missing; copy the checkpoint again")
        return dict.fromkeys(weights)
    raise CheckpointError(
        f"{folder}: {len(weights)} files of weights and no index ({weights[0].name}, {weights[1].name}, ...); "
        "name one file, or add the index that lists them"
    )
