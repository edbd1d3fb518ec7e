"""The house: imports point to what stands before, the library opens without torch, and training stays apart."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import opdlib

PACKAGE = Path(opdlib.__file__).parent

FLOORS = (
    ("errors", "foreign", "files", "quantities"),
    ("metrics",),
    ("checkpoints", "registry", "stats"),
    ("measurement",),
    ("results",),
    ("train",),
    ("study",),
    ("tables", "claims", "figures"),
    ("notebook", "report", "cli"),
)
"""The reading order of the library. A folder imports itself and what stands before it here."""

ORDER = {name: place for place, name in enumerate(name for floor in FLOORS for name in floor)}

FORBIDDEN = {
    "quantities": {"*"},
    "metrics": {"*"},
    "checkpoints": {"quantities"},
    "train": {"quantities", "measurement", "results"},
    **{name: {"torch", "metrics", "measurement", "train", "study"} for name in ("tables", "claims", "figures")},
    **{name: {"torch"} for name in ("registry", "stats", "quantities")},
}
"""Folder -> what it must not import besides; `*` is everything of opdlib."""

ABOVE_TRAINING = {"train", "study", "cli"}

FILES = sorted(PACKAGE.rglob("*.py"))


def folder_of(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(source: str) -> set[str]:
    """`torch`, or what follows `opdlib.` for our own; imports inside functions count too."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            assert node.module is not None
            own = node.module == "opdlib"
            found |= {f"opdlib.{alias.name}" for alias in node.names} if own else {node.module}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name.removeprefix("opdlib.").split(".")[0] for name in found if name != "opdlib"}


def broken_rules(folder: str, imported: set[str]) -> list[str]:
    own = imported & set(ORDER) - {folder}
    forbidden = FORBIDDEN.get(folder, set())
    problems = [f"imports {name}, which stands after it" for name in own if ORDER[name] > ORDER[folder]]
    problems += [f"must not import {name}" for name in (own if "*" in forbidden else imported & forbidden)]
    if "train" in own and folder not in ABOVE_TRAINING:
        problems.append("train is for study and cli alone")
    return problems


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(PACKAGE)))
def test_imports_point_to_what_stands_before(file: Path) -> None:
    folder = folder_of(file)
    if folder in ("__init__", "__main__"):
        return
    assert folder in ORDER, f"{folder} is on no floor; it wants a room in one of {FLOORS}"
    assert broken_rules(folder, imports(file.read_text(encoding="utf8"))) == []


def test_the_rules_can_fail() -> None:
    assert broken_rules("metrics", {"files", "torch"}) == ["must not import files"]
    assert broken_rules("checkpoints", {"measurement"}) == ["imports measurement, which stands after it"]
    assert broken_rules("figures", {"torch", "tables"}) == ["must not import torch"]
    assert broken_rules("notebook", {"train"}) == ["train is for study and cli alone"]
    assert broken_rules("results", {"measurement", "torch", "metrics"}) == []


def test_there_are_nine_floors_and_no_long_module() -> None:
    assert len(FLOORS) <= 9
    lengths = {str(f.relative_to(PACKAGE)): len(f.read_text(encoding="utf8").splitlines()) for f in FILES}
    assert {name: length for name, length in lengths.items() if length > 300} == {}
    assert sorted(lengths.values())[len(lengths) // 2] < 150


@pytest.mark.slow
@pytest.mark.parametrize(
    "statement",
    [
        "import opdlib",
        "import opdlib.registry.pairs, opdlib.results.layout, opdlib.results.open",
        "import opdlib.tables, opdlib.claims, opdlib.figures, opdlib.report.inputs, opdlib.report.make",
        "import opdlib.cli.main",
        "from opdlib import notebook; notebook.load('smollm2-opd', view='stored')",
    ],
)
def test_needs_no_torch(statement: str) -> None:
    code = f"import sys; {statement}; print('torch' in sys.modules, 'numba' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
