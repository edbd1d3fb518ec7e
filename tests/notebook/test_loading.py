"""Results that a notebook stands on: taken where they are, measured where they are not, never stale."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import opdlib.files
from opdlib import notebook
from opdlib.checkpoints import open_checkpoint, patch
from opdlib.errors import AlignmentError, ParameterError, RegistryError
from opdlib.registry.pairs import registry
from opdlib.results.layout import SUMMARY, read_provenance
from opdlib.results.measure import measure_into
from tests.conftest import moved, pico_weights, reseal, write_checkpoint
from tests.notebook.outputs import shown

pytestmark = pytest.mark.notebook

# A data folder with one pair, whose trained side is a patch, stands in for the repository's.

PAIRS = """
pico-opd-s0:
  aliases: [pico-opd]
  title: Pico OPD
  source: {source}
  trained: patch:data/patches/pico.safetensors
  regime: OPD
lost-opd:
  title: Lost OPD
  source: {source}
  trained: null
  regime: OPD
  why: nobody kept it
"""


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with a patch and its committed results, both views, and the float32 weights beside them."""
    source = write_checkpoint(tmp_path / "source", pico_weights())
    exact = moved(pico_weights(), dtype=torch.float32)
    masters = write_checkpoint(tmp_path / "masters", exact)
    trained = write_checkpoint(tmp_path / "trained", {n: w.to(torch.bfloat16) for n, w in exact.items()})
    data = tmp_path / "data"
    (data / "patches").mkdir(parents=True)
    (data / "pairs.yaml").write_text(PAIRS.format(source=source))
    patch.make(open_checkpoint(str(source)), open_checkpoint(str(trained)), data / "patches" / "pico.safetensors")
    out = data / "results" / "pico-opd-s0"
    for folder, view, checkpoint in ((out, "bf16", trained), (out / "stored", "stored", masters)):
        before, after = open_checkpoint(str(source)), open_checkpoint(str(checkpoint))
        measure_into(folder, before, after, name="pico-opd-s0", view=view, note="a note")
    monkeypatch.setattr(opdlib.files, "PACKAGE", tmp_path / "opdlib")
    monkeypatch.setenv("OPDLIB_CACHE", str(tmp_path / "cache"))
    registry.cache_clear()
    yield tmp_path
    registry.cache_clear()


def test_committed_results_are_taken_by_key(repository: Path) -> None:
    results = notebook.load("pico-opd")
    assert results.folder == repository / "data/results/pico-opd-s0"
    assert results.title == "Pico OPD"
    assert results.pair is not None
    stored = notebook.load_stored(results, "pico-opd")
    assert stored is not None
    assert stored.view == "stored"
    assert stored.pair == results.pair


def test_without_patch_and_checkpoints_they_are_taken_all_the_same(repository: Path) -> None:
    """As in an installed wheel, which ships no patch."""
    shutil.rmtree(repository / "data/patches")
    shutil.rmtree(repository / "source")
    assert notebook.load("pico-opd").view == "bf16"


@pytest.mark.parametrize("side", ["source", "trained"])
def test_results_of_another_patch_are_refused(repository: Path, side: str) -> None:
    folder = repository / "data/results/pico-opd-s0"
    reseal(folder, identity=read_provenance(folder)["identity"] | {side: "0" * 64})
    with pytest.raises(RegistryError, match=rf"pico-opd-s0.*{side} with digest 000000000000.*measure the pair again"):
        notebook.load("pico-opd")


def test_a_stored_view_over_another_source_is_refused(repository: Path) -> None:
    results = notebook.load("pico-opd")
    shutil.rmtree(repository / "data/patches")
    folder = repository / "data/results/pico-opd-s0/stored"
    reseal(folder, identity=read_provenance(folder)["identity"] | {"source": "0" * 64})
    with pytest.raises(RegistryError, match="over another source"):
        notebook.load_stored(results, "pico-opd")


def test_checkpoints_of_a_known_content_need_no_measuring(repository: Path) -> None:
    results = notebook.load(source=str(repository / "source"), trained=str(repository / "trained"))
    assert results.folder == repository / "data/results/pico-opd-s0"
    assert results.title == "trained"
    assert not (repository / "cache" / "results").exists()


def test_other_checkpoints_are_measured_once_into_the_cache(repository: Path) -> None:
    other = write_checkpoint(repository / "other", moved(pico_weights(), seed=5))
    results = notebook.load(source=str(repository / "source"), trained=str(other))
    assert results.folder.parent == repository / "cache" / "results"
    assert results.title == "other"
    assert results.pair is None
    written = (results.folder / SUMMARY).stat().st_mtime_ns
    assert notebook.load(source=str(repository / "source"), trained=str(other)).folder == results.folder
    assert (results.folder / SUMMARY).stat().st_mtime_ns == written


def test_changed_weights_are_measured_again(repository: Path) -> None:
    other = write_checkpoint(repository / "other", moved(pico_weights(), seed=5))
    first = notebook.load(source=str(repository / "source"), trained=str(other))
    write_checkpoint(other, moved(pico_weights(), seed=6))
    second = notebook.load(source=str(repository / "source"), trained=str(other))
    assert first.folder != second.folder
    assert first.summary["rel_norm"] != second.summary["rel_norm"]


def test_a_skip_list_is_another_measurement(repository: Path) -> None:
    whole, part = notebook.load("pico-opd"), notebook.load("pico-opd", skip=["model.norm.weight"])
    assert part.summary["tensors"] == whole.summary["tensors"] - 1
    assert part.title == "Pico OPD"
    assert part.folder.parent == repository / "cache" / "results"


def test_a_run_with_rows_only_says_what_makes_the_rest() -> None:
    told = r"'smollm2-bf16-rlvr-s0': only its rows .* run: opd study smollm2-bf16 --arms rlvr"
    with pytest.raises(ParameterError, match=told):
        notebook.load("smollm2-bf16-rlvr-s0")


def test_skip_lists_of_equal_length_keep_their_own_results(repository: Path) -> None:
    norm = notebook.load("pico-opd", skip=["model.norm.weight"])
    biases = notebook.load("pico-opd", skip=["*.bias"])
    assert biases.folder != norm.folder
    assert biases.summary["tensors"] != norm.summary["tensors"]
    written = (norm.folder / SUMMARY).stat().st_mtime_ns
    again = notebook.load("pico-opd", skip=["model.norm.weight"])
    assert (again.folder, (again.folder / SUMMARY).stat().st_mtime_ns) == (norm.folder, written)


def test_results_of_an_earlier_format_in_the_cache_are_measured_again(repository: Path) -> None:
    """Whether they lie where results lie now, or under the names that folders had before."""
    first = notebook.load("pico-opd", skip=["model.norm.weight"])
    summary, identity = first.summary, first.provenance["identity"]
    before = first.folder.with_name(f"{identity['source'][:16]}-{identity['trained'][:16]}-bf16-skip1")
    (first.folder / SUMMARY).write_text("{}")
    reseal(first.folder, identity=identity | {"format": identity["format"] - 1})
    shutil.copytree(first.folder, before)
    again = notebook.load("pico-opd", skip=["model.norm.weight"])
    assert again.provenance["identity"] == identity
    assert again.summary == summary


def test_a_pair_without_a_checkpoint_says_why(repository: Path) -> None:
    with pytest.raises(ParameterError, match=r"pair 'lost-opd': nobody kept it; give the checkpoints yourself"):
        notebook.load("lost-opd")


def test_checkpoints_that_do_not_fit_are_an_error(repository: Path) -> None:
    other = write_checkpoint(repository / "other", {"w": torch.ones(2, 2)})
    with pytest.raises(AlignmentError):
        notebook.load(source=str(repository / "source"), trained=str(other))


def test_the_stored_view_of_bf16_checkpoints_is_the_same_again(repository: Path) -> None:
    sides = {"source": str(repository / "source"), "trained": str(repository / "trained")}
    stored, said = shown(lambda: notebook.load_stored(notebook.load(**sides), **sides))
    assert stored is None
    assert "the same" in said[0]["data"]["text/plain"]


def test_the_stored_view_of_finer_checkpoints_is_measured(repository: Path) -> None:
    finer = write_checkpoint(repository / "finer", moved(pico_weights(), seed=5, dtype=torch.float32))
    sides = {"source": str(repository / "source"), "trained": str(finer)}
    stored = notebook.load_stored(notebook.load(**sides), **sides)
    assert stored is not None
    assert stored.summary["exact_zero"] < notebook.load(**sides).summary["exact_zero"]


def test_provenance_shows_digests_note_and_versions(repository: Path) -> None:
    results = notebook.load("pico-opd")
    stored = notebook.load_stored(results, "pico-opd")
    assert stored is not None
    table = notebook.provenance(results, stored)
    assert list(table.columns) == ["view bf16", "view stored"]
    assert table.loc["source digest", "view bf16"] == results.provenance["source"]["digest"][:16]
    assert table.loc["note", "view bf16"] == "a note"
    assert "torch" in table.loc["measured with", "view bf16"]


def test_committed_results_need_no_torch(repository: Path) -> None:
    """Without the patch at hand, as in a wheel: the notebook's own process stays free of it."""
    shutil.rmtree(repository / "data/patches")
    code = f"""
import pathlib, sys
import opdlib.files
opdlib.files.PACKAGE = pathlib.Path({str(repository / "opdlib")!r})
from opdlib import claims, figures, notebook, tables
notebook.setup()
results = notebook.load("pico-opd")
stored = notebook.load_stored(results, "pico-opd")
tables.magnitude(results, stored)
print("torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]
