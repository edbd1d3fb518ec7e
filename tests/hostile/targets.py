"""One target for each reader: it takes the bytes of a file, and may raise an error of ours, and no other."""

import contextlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path

from opdlib.checkpoints import open_checkpoint
from opdlib.checkpoints.gguf_header import read_gguf_header
from opdlib.checkpoints.patched import PatchedCheckpoint
from opdlib.errors import OpdError
from opdlib.foreign import read_object
from opdlib.registry.recipes import load_recipe
from opdlib.results.open import open_results
from opdlib.train.run_folder import StepLog
from tests.hostile import made

CORPUS = Path(__file__).with_name("corpus.json")
"""What was found once: target -> name -> the file, a character for each byte (latin1)."""


class Targets:
    """The targets, in a folder of good files. They write what they are given beside it, over what was there."""

    def __init__(self, good: Path, here: Path):
        self.good, self.here = good, here
        self.source = open_checkpoint(good / "S")
        self.results = good / "results"

    @property
    def all(self) -> Mapping[str, tuple[Callable[[Path], object], str, bytes]]:
        """Name -> what reads, the name of the file, a good one."""
        good = self.good
        numbers = ("a", 9, made.struct.pack("<IQ2I", 4, 2, 1, 2))
        return {
            "safetensors": (self.read, "x.safetensors", (good / "S" / "model.safetensors").read_bytes()),
            "index": (self.read, "x.safetensors.index.json", json.dumps({"weight_map": {"a": "b"}}).encode()),
            "config": (self.config, "config.json", (good / "R" / "config.json").read_bytes()),
            "pickle": (self.read, "x.pt", (good / "x.pt").read_bytes()),
            "patch": (self.patch, "p.safetensors", (good / "P.safetensors").read_bytes()),
            "recipe": (load_recipe, "r.yaml", (good / "recipe.yaml").read_bytes()),
            "gguf": (read_gguf_header, "x.gguf", made.gguf([made.LLAMA, numbers], [("t", (2,), 0, 0)], data=bytes(64))),
            "summary": (self.summary, "summary.json", (self.results / "summary.json").read_bytes()),
            "tensors": (self.tensors, "tensors.csv", (self.results / "tensors.csv").read_bytes()),
            "steps": (lambda file: StepLog(file).rows(), "metrics.jsonl", b'{"step": 1, "loss": 0.5}\n{"step": 2}\n'),
        }

    def run(self, name: str, content: bytes) -> None:
        """Give `content` to one target."""
        read, file, _ = self.all[name]
        (self.here / file).write_bytes(content)
        with contextlib.suppress(OpdError):
            read(self.here / file)

    def read(self, file: Path) -> None:
        checkpoint = open_checkpoint(file)
        for tensor in checkpoint.tensors:
            checkpoint.read(tensor)

    def config(self, file: Path) -> None:
        read_object(file, OpdError, "")
        (self.here / "model.safetensors").write_bytes((self.good / "S" / "model.safetensors").read_bytes())
        _ = open_checkpoint(self.here / "model.safetensors").tied

    def patch(self, file: Path) -> None:
        patched = PatchedCheckpoint(file, self.source, "patch")
        for tensor in patched.tensors:
            patched.read(tensor)

    def summary(self, file: Path) -> None:
        self._result(file)
        _ = open_results(self.here / "results").numbers

    def tensors(self, file: Path) -> None:
        self._result(file)
        _ = open_results(self.here / "results").tensors

    def _result(self, file: Path) -> None:
        folder = self.here / "results"
        folder.mkdir(exist_ok=True)
        for path in self.results.iterdir():
            if path.is_file():
                (folder / path.name).write_bytes(path.read_bytes())
        (folder / file.name).write_bytes(file.read_bytes())
