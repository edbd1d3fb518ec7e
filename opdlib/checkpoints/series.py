"""Several checkpoints named at once: by a pattern, or by the folder that a training wrote them to. No torch."""

import re
from collections.abc import Iterable, Sequence
from glob import glob, has_magic
from pathlib import Path

from opdlib.errors import CheckpointError
from opdlib.foreign import read_value

STEP = re.compile(r"(?:(?:checkpoint|global_step|step)[-_]?|steps/)(\d{1,18})")
"""How trainers call the folder of a step; `steps/10` is how `opd train` does."""
COMPLETE = "complete.json"
"""Written last into the folder of a run of `opd train`: it says of how many steps `bf16` beside it is."""
END = "bf16"
"""The trained checkpoint of such a run, of the kind that `steps` holds."""
WEIGHTS = ("*.safetensors", "pytorch_model*.bin", "*.gguf")
"""Files that make a folder a checkpoint of its own."""


def listed(specs: Iterable[str], series: bool = False) -> list[str]:
    """The specs of all checkpoints that `specs` name, each once, in their order.

    A pattern (`runs/*/checkpoint-*`) stands for what it matches, a training folder for its checkpoints; both by step,
    then by name. A training folder has folders such as `checkpoint-10` and no weights of its own, or, with `series`,
    whether or not it has; a run of `opd train` has its kept steps and its end. Raises CheckpointError for a pattern
    that matches nothing, and with `series` for a folder without checkpoints.
    """
    found: list[str] = []
    for spec in specs:
        found += _matched(spec) if has_magic(spec) and not Path(spec).exists() else _of_folder(spec, series)
    return list(dict.fromkeys(found))


def step_of(spec: str) -> int | None:
    """The number of the step in the last part of a path that has one; None if none does.

    >>> step_of("runs/mine/checkpoint-500"), step_of("runs/mine/global_step_20/actor"), step_of("org/name")
    (500, 20, None)
    """
    path = Path(spec)
    steps = [found for place in (path, *path.parents) if (found := _stepped(place)) is not None]
    ended = path.expanduser().parent / COMPLETE
    if not steps and path.name == END and ended.is_file():
        do = "train again, or name the checkpoints one by one"
        done = read_value(ended, CheckpointError, do, "steps")
        if type(done) is not int or done < 0:
            raise CheckpointError(f"{ended}: steps is {done!r:.60}, wanted a whole number from 0; {do}")
        return done
    return steps[0] if steps else None


def names_of(specs: Sequence[str]) -> list[str]:
    """What each checkpoint is called beside the others: as many last parts of its path as tell all of them apart.

    >>> names_of(["a/checkpoint-10", "a/checkpoint-20"]), names_of(["a/bf16", "b/bf16", "org/name@v2"])
    (['checkpoint-10', 'checkpoint-20'], ['a-bf16', 'b-bf16', 'org-name-v2'])
    """
    parts = [_parts(spec) for spec in specs]
    for depth in range(1, max(map(len, parts), default=0) + 1):
        names = ["-".join(own[-depth:]) for own in parts]
        if len(set(names)) == len(names):
            return names
    return [f"{number}-{own[-1]}" for number, own in enumerate(parts, start=1)]


def training_folder(spec: str) -> list[str]:
    """The checkpoints in the folder `spec`, by step; empty if it is none or has none. Raises CheckpointError for two of
    one step."""
    folder = Path(spec).expanduser()
    inside = [*folder.iterdir(), *folder.glob("steps/*")] if folder.is_dir() else []
    steps: dict[int, Path] = {}
    for place in sorted(inside):
        if not place.is_dir() or (step := _stepped(place)) is None:
            continue
        if step in steps:
            raise CheckpointError(
                f"{spec}: {steps[step].relative_to(folder)} and {place.relative_to(folder)} are both step {step}; "
                "wanted one folder a step: move one away, or name the checkpoints one by one"
            )
        steps[step] = place
    ended = [folder / END] if steps and (folder / COMPLETE).is_file() and (folder / END).is_dir() else []
    return _by_step(map(str, (*steps.values(), *ended)))


def _stepped(place: Path) -> int | None:
    found = STEP.fullmatch(place.name) or STEP.fullmatch("/".join(place.parts[-2:]))
    return int(found[1]) if found else None


def _of_folder(spec: str, series: bool) -> list[str]:
    steps = training_folder(spec)
    if series and not steps:
        raise CheckpointError(f"{spec}: no folders such as checkpoint-10 in it; wanted a folder that a training wrote")
    own = any(match for pattern in WEIGHTS for match in Path(spec).expanduser().glob(pattern)) if steps else True
    return steps if series or not own else [spec]


def _matched(pattern: str) -> list[str]:
    found = _by_step(glob(str(Path(pattern).expanduser())))  # noqa: PTH207  # Path.glob takes no absolute pattern
    if not found:
        raise CheckpointError(f"{pattern}: matches nothing; wanted a pattern of checkpoints, quoted or not")
    return found


def _by_step(specs: Iterable[str]) -> list[str]:
    return sorted(specs, key=lambda spec: (step if (step := step_of(spec)) is not None else -1, spec))


def _parts(spec: str) -> list[str]:
    place, _, revision = spec.rpartition(":")[2].partition("@")
    parts = [part for part in Path(place).parts if part not in ("/", ".", "..")] or ["unnamed"]
    return [*parts[:-1], f"{parts[-1]}-{revision.replace('/', '-')}"] if revision else parts
