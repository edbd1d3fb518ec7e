"""The floors of the library: imports point downward only, and reading results needs no torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import opdlib

PACKAGE = Path(opdlib.__file__).parent

FLOORS: dict[str, int] = {
    "errors": 0,
    "names": 0,
    "locations": 0,
    "cache": 0,
    "output": 0,
    "process": 0,
    "metrics": 0,
    "checkpoints": 1,
    "pairs": 1,
    "results": 1,
    "patch": 1,
    "ledger": 1,
    "study": 1,
    "delta": 2,
    "sparsity_pass": 3,
    "geometry": 3,
    "overlap": 3,
    "measure": 3,
    "summary": 3,
    "rows": 3,
    "recording": 3,
    "tables": 4,
    "claims": 4,
    "figures": 4,
    "train": 4,
    "notebook": 5,
    "laboratory": 5,
    "study_overlaps": 5,
    "commands": 5,
    "arguments": 5,
    "cli": 5,
}
"""Module -> floor. A module may import its own floor and those below."""

FORBIDDEN = {
    "errors": {"*"},
    "names": {"*"},
    "metrics": {"*"},
    "tables": {"torch", "measure", "delta", "metrics", "checkpoints", "summary", "recording", "train"},
    "claims": {"torch", "measure", "delta", "metrics", "checkpoints", "summary", "recording", "train"},
    "figures": {"torch", "measure", "delta", "metrics", "checkpoints", "summary", "recording", "train"},
    "train": {
        "measure",
        "recording",
        "summary",
        "tables",
        "claims",
        "figures",
        "delta",
        "patch",
        "results",
        "geometry",
    },
    "results": {"torch", "checkpoints"},
    "study": {"torch", "checkpoints"},
}
"""Module -> what it must not import besides; `*` is every other module of opdlib."""

IMPORTERS_OF_TRAIN = {"commands", "laboratory", "study_overlaps", "train"}

FILES = sorted(PACKAGE.rglob("*.py"))


def module_of(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(file: Path) -> set[str]:
    """Names of imported modules: `torch`, or what follows `opdlib.` for our own; imports inside functions count too."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file.name}: relative import"
            assert node.module is not None
            found |= (
                {f"{node.module}.{alias.name}" for alias in node.names} if node.module == "opdlib" else {node.module}
            )
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name.removeprefix("opdlib.").split(".")[0] for name in found if name != "opdlib"}


def broken_rules(module: str, imported: set[str]) -> list[str]:
    own = imported & set(FLOORS) - {module}
    forbidden = FORBIDDEN.get(module, set())
    problems = [f"imports {m} from a floor above" for m in own if FLOORS[m] > FLOORS[module]]
    problems += [f"must not import {m}" for m in (own if "*" in forbidden else imported & forbidden)]
    if "train" in own and module not in IMPORTERS_OF_TRAIN:
        problems.append("train is for the command line only")
    return problems


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(PACKAGE)))
def test_imports_point_downward(file: Path) -> None:
    module = module_of(file)
    if module == "__init__":
        assert imports(file) == set()
        return
    assert module in FLOORS, f"{module} is on no floor; add it to FLOORS"
    assert broken_rules(module, imports(file)) == []


def test_the_rules_can_fail() -> None:
    assert broken_rules("metrics", {"names", "torch"}) == ["must not import names"]
    assert broken_rules("delta", {"measure", "checkpoints"}) == ["imports measure from a floor above"]
    assert broken_rules("figures", {"torch", "tables"}) == ["must not import torch"]
    assert broken_rules("notebook", {"train"}) == ["train is for the command line only"]
    assert broken_rules("measure", {"delta", "torch", "metrics"}) == []


@pytest.mark.parametrize(
    "statement",
    [
        "import opdlib",
        "import opdlib.pairs, opdlib.results",
        "import opdlib.tables, opdlib.claims, opdlib.figures",
        "import opdlib.cli",
    ],
)
def test_needs_no_torch(statement: str) -> None:
    code = f"import sys; {statement}; print('torch' in sys.modules, 'numba' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
