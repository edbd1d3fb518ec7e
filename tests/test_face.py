"""What `import opdlib` offers: the examples in its docstrings are run, and one object serves tables as folders do."""

import doctest
import inspect
import sys
from pathlib import Path

import pandas as pd
import pytest

import opdlib
from opdlib.checkpoints import short_name
from opdlib.cli.main import main
from opdlib.errors import MissingDependencyError, RegistryError
from opdlib.results.layout import SUMMARY
from opdlib.results.open import Results
from opdlib.tables import layers, sparsity
from tests.conftest import moved, pico_weights, write_checkpoint
from tests.train.conftest import write_pico


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the checkpoints that the examples name."""
    write_checkpoint(tmp_path / "base", pico_weights())
    write_checkpoint(tmp_path / "trained", moved(pico_weights()))
    write_checkpoint(tmp_path / "other", moved(pico_weights(), seed=2))
    write_pico(tmp_path / "reader", seed=0)
    monkeypatch.chdir(tmp_path)
    return tmp_path


EXAMPLES = [opdlib, *(getattr(opdlib, name) for name in opdlib.__all__), short_name]


@pytest.mark.parametrize("thing", EXAMPLES, ids=lambda thing: thing.__name__)
def test_examples(thing: object, here: Path) -> None:
    (example,) = doctest.DocTestFinder(recurse=False).find(thing, globs={"short_name": short_name})
    runner = doctest.DocTestRunner()
    runner.run(example)
    assert runner.tries > 0
    assert runner.failures == 0


@pytest.mark.slow
def test_measured_and_opened_are_one(here: Path) -> None:
    measured = opdlib.measure(Path("base"), opdlib.open_checkpoint("trained"), name="mine")
    opened = opdlib.open_results(measured.save("out"))
    assert isinstance(measured, Results)
    assert measured.folder is None
    assert measured.summary == opened.summary
    assert measured.provenance == opened.provenance
    assert opened.summary["pair"] == measured.title == "mine"
    for name in ("tensors", "layers", "matrices"):
        pd.testing.assert_frame_equal(getattr(measured, name), getattr(opened, name))
    pd.testing.assert_frame_equal(layers(measured), layers(opened))
    pd.testing.assert_frame_equal(sparsity(measured), sparsity(opened))
    again = opened.save("again")
    assert {p.name: p.read_bytes() for p in again.iterdir()} == {p.name: p.read_bytes() for p in Path("out").iterdir()}


@pytest.mark.slow
def test_save_writes_what_the_command_writes(here: Path) -> None:
    opdlib.measure("base", "trained").save("saved")
    assert main(["measure", "--source", "base", "--trained", "trained", "--out", "written"]) == 0
    written = {p.name: p.read_bytes() for p in Path("written").iterdir()}
    assert SUMMARY in written
    assert {p.name: p.read_bytes() for p in Path("saved").iterdir()} == written


def test_without_geometry_there_are_no_matrices(here: Path) -> None:
    measured = opdlib.measure("base", "trained", metrics=["sparsity"])
    assert measured.title == "trained"
    with pytest.raises(RegistryError, match="only its sparsity was measured"):
        _ = measured.matrices
    with pytest.raises(RegistryError, match=r"geometry\.csv"):
        measured.read("geometry")


def test_completion_knows_the_face() -> None:
    assert set(opdlib.__all__) <= set(dir(opdlib))
    assert all(inspect.getdoc(getattr(opdlib, name)) for name in opdlib.__all__)
    with pytest.raises(AttributeError, match="open_checkpoint"):
        _ = opdlib.open  # type: ignore[attr-defined]


def test_a_missing_extra_gives_the_pip_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    monkeypatch.delitem(sys.modules, "opdlib.train.evaluate", raising=False)
    for name in [m for m in sys.modules if m.startswith("opdlib.train")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(opdlib, "train", None, raising=False)
    with pytest.raises(MissingDependencyError, match=r"pip install 'opdlib\[train\]'"):
        _ = opdlib.evaluate
