"""What notebooks stand on: checked parameters, results that are never stale, output that is the same each time."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import myst_nb
import nbformat
import numpy as np
import pytest
import torch
from IPython.testing.globalipapp import start_ipython
from IPython.utils.capture import capture_output
from matplotlib import pyplot as plt

import opdlib.locations
from opdlib import notebook, patch
from opdlib.checkpoints import open_checkpoint
from opdlib.errors import AlignmentError, ParameterError, RegistryError
from opdlib.pairs import registry
from opdlib.recording import measure_into
from opdlib.results import SUMMARY
from tests.conftest import moved, pico_weights, write_checkpoint

NAMES = ("pair", "source", "trained", "skip", "atol", "thresholds", "shares")


def namespace(**changes: Any) -> dict[str, Any]:
    """The globals of a notebook after its parameters cell."""
    hidden = {"In": [], "Out": {}, "_i1": "x", "__name__": "__main__", "notebook": ModuleType("notebook")}
    defaults = {"pair": "smollm2-opd", "source": None, "trained": None, "skip": [], "atol": 1e-5}
    return hidden | defaults | {"thresholds": [1e-5], "shares": [0.01]} | changes


def test_defaults_pass() -> None:
    settings = notebook.check(namespace(), *NAMES)
    assert settings == notebook.Settings("smollm2-opd", None, None, (), 1e-5, (1e-5,), (0.01,))
    assert settings.compared == {"pair": "smollm2-opd", "source": None, "trained": None, "skip": ()}
    assert list(settings.table().index) == ["pair", "atol", "thresholds", "shares"]


def test_a_misspelled_parameter_is_named_with_the_right_ones() -> None:
    with pytest.raises(ParameterError) as error:
        notebook.check(namespace(atoll=1e-6), *NAMES)
    assert str(error.value) == (
        "unknown parameter 'atoll'; did you mean 'atol'? "
        "This notebook takes: pair, source, trained, skip, atol, thresholds, shares"
    )
    with pytest.raises(ParameterError, match=r"unknown parameter 'zzz'\. This notebook takes: pair"):
        notebook.check(namespace(zzz=None), *NAMES)


def test_parameters_of_the_pages_on_geometry() -> None:
    variables = {"tops": "[1, 16]", "tolerances": ["1e-5"]}
    settings = notebook.check(dict(variables), "tops", "tolerances")
    assert (settings.tops, settings.tolerances) == ((1, 16), (1e-5,))
    assert list(settings.table().index) == ["pair", "tops", "tolerances"]
    with pytest.raises(ParameterError, match=r"parameter tops: \[1.5\]; wanted whole numbers from 1 up"):
        notebook.check({"tops": [1.5]}, "tops")


def test_the_scale_of_a_study() -> None:
    settings = notebook.check({"scale": "pico"}, "scale")
    assert settings.scale == "pico"
    assert list(settings.table().index) == ["scale"]
    with pytest.raises(RegistryError, match=r"no scale 'nano' in study.yaml; choose one of: pico, smollm2"):
        notebook.check({"scale": "nano"}, "scale")


def test_running_the_cell_again_is_no_mistake() -> None:
    variables = namespace()
    notebook.check(variables, *NAMES)
    later = variables | {"columns": ("a", "b"), "atol": 1e-4}
    assert notebook.check(later, *NAMES).atol == 1e-4


@pytest.mark.parametrize(
    ("given", "name", "value"),
    [
        ({"atol": "1e-5"}, "atol", 1e-5),
        ({"thresholds": ["1e-4", 1e-6]}, "thresholds", (1e-4, 1e-6)),
        ({"thresholds": "[1e-4, 1.0e-6]"}, "thresholds", (1e-4, 1e-6)),
        ({"shares": 0.05}, "shares", (0.05,)),
        ({"skip": "model.norm.weight"}, "skip", ("model.norm.weight",)),
        ({"skip": "[a, b]"}, "skip", ("a", "b")),
        ({"skip": None}, "skip", ()),
        ({"source": "a", "trained": "b"}, "trained", "b"),
        ({"source": "", "trained": ""}, "source", None),
    ],
)
def test_values_that_papermill_hands_over_as_text(given: dict[str, Any], name: str, value: object) -> None:
    assert getattr(notebook.check(namespace(**given), *NAMES), name) == value


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"atol": -1}, "parameter atol: -1; wanted a positive number"),
        ({"atol": "much"}, "parameter atol: 'much'; wanted a positive number"),
        ({"atol": True}, "parameter atol: True"),
        ({"atol": math.nan}, "parameter atol: nan"),
        ({"shares": [5]}, "wanted shares from 0 to 1"),
        ({"pair": 3}, "parameter pair: 3; wanted a name"),
        ({"skip": [3]}, "parameter skip: 3"),
        ({"source": "a"}, "source and trained go together"),
    ],
)
def test_values_that_make_no_sense(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        notebook.check(namespace(**given), *NAMES)


def test_a_pair_that_does_not_exist() -> None:
    with pytest.raises(RegistryError, match=r"no pair 'smollm2-odp' in pairs.yaml; similar: smollm2-opd"):
        notebook.check(namespace(pair="smollm2-odp"), *NAMES)


# Loading. A data folder with one pair, whose trained side is a patch, stands in for the repository's.

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
    monkeypatch.setattr(opdlib.locations, "PACKAGE", tmp_path / "opdlib")
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
    file = repository / "data/results/pico-opd-s0/provenance.json"
    content = json.loads(file.read_text())
    content["identity"][side] = "0" * 64
    file.write_text(json.dumps(content))
    with pytest.raises(RegistryError, match=rf"pico-opd-s0.*{side} with digest 000000000000.*measure the pair again"):
        notebook.load("pico-opd")


def test_a_stored_view_over_another_source_is_refused(repository: Path) -> None:
    results = notebook.load("pico-opd")
    shutil.rmtree(repository / "data/patches")
    file = repository / "data/results/pico-opd-s0/stored/provenance.json"
    content = json.loads(file.read_text())
    content["identity"]["source"] = "0" * 64
    file.write_text(json.dumps(content))
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


# Output.


def shown(call: Callable[[], Any]) -> tuple[Any, list[dict[str, Any]]]:
    """What a call displays in a notebook: data and metadata of each output."""
    start_ipython()
    with capture_output() as captured:
        value = call()
    return value, [{"data": o.data, "metadata": o.metadata} for o in captured.outputs]


@pytest.mark.parametrize("value", [0.25, 134515008, "mlp"])
def test_glue_is_what_myst_nb_would_store(value: float | str) -> None:
    _, (ours,) = shown(lambda: notebook.glue("key", value))
    _, (theirs,) = shown(lambda: myst_nb.glue("key", value, display=False))
    assert ours == theirs


@pytest.mark.parametrize(
    ("value", "text"), [(None, "'undefined'"), (math.nan, "'undefined'"), (np.float64(0.5), "0.5")]
)
def test_glue_of_what_is_undefined(value: float | None, text: str) -> None:
    _, (output,) = shown(lambda: notebook.glue("key", value))
    assert output["data"] == {"application/papermill.record/text/plain": text}


def test_a_figure_is_shown_with_its_alt_text_and_closed() -> None:
    def draw() -> None:
        notebook.figure("fig_key", plt.figure().add_subplot(), alt="An empty plot.")

    plt.switch_backend("agg")
    _, (output,) = shown(draw)
    assert output["metadata"]["image/png"] == {"alt": "An empty plot."}
    assert output["metadata"]["scrapbook"]["name"] == "fig_key"
    assert output["data"]["text/plain"] == "An empty plot."
    assert output["data"]["image/png"].startswith("iVBOR")
    assert plt.get_fignums() == []


def executed() -> dict[str, Any]:
    image = {
        "output_type": "display_data",
        "data": {"image/png": "AAAA", "text/plain": "A plot."},
        "metadata": {"image/png": {"alt": "A plot."}},
    }
    metadata = {
        "tags": ["hide-input"],
        "papermill": {"duration": 1.5},
        "execution": {"iopub.execute_input": "2026"},
        "mystnb": {"figure": {"name": "fig", "caption": "é"}},
    }
    cell = {
        "cell_type": "code",
        "execution_count": 1,
        "id": "a",
        "metadata": metadata,
        "source": [],
        "outputs": [image],
    }
    text = {"cell_type": "markdown", "id": "b", "metadata": {"papermill": {}, "tags": []}, "source": ["x"]}
    return {
        "cells": [cell, text],
        "metadata": {"papermill": {"start_time": "now"}, "widgets": {}, "language_info": {"version": "3.11.7"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }


def test_clean_takes_the_traces_of_a_run_and_keeps_the_rest(tmp_path: Path) -> None:
    file = tmp_path / "n.ipynb"
    nbformat.write(nbformat.from_dict(executed()), file)
    subprocess.run([sys.executable, "-m", "opdlib.notebook", "clean", str(file)], check=True)
    once = file.read_bytes()
    content = json.loads(once)
    nbformat.validate(content)
    assert set(content["metadata"]) == {"kernelspec", "language_info"}
    assert "3.11.7" not in once.decode()
    assert content["cells"][0]["metadata"] == {
        "tags": ["hide-input"],
        "mystnb": {"figure": {"name": "fig", "caption": "é"}, "image": {"alt": "A plot."}},
    }
    assert content["cells"][1]["metadata"] == {}
    assert content["cells"][0]["execution_count"] == 1
    notebook.clean(file)
    assert file.read_bytes() == once
    nbformat.write(nbformat.read(file, as_version=4), tmp_path / "again.ipynb")
    assert (tmp_path / "again.ipynb").read_bytes() == once


def test_committed_results_need_no_torch(repository: Path) -> None:
    """Without the patch at hand, as in a wheel: the notebook's own process stays free of it."""
    shutil.rmtree(repository / "data/patches")
    code = f"""
import pathlib, sys
import opdlib.locations
opdlib.locations.PACKAGE = pathlib.Path({str(repository / "opdlib")!r})
from opdlib import claims, figures, notebook, tables
notebook.setup()
results = notebook.load("pico-opd")
stored = notebook.load_stored(results, "pico-opd")
tables.magnitude(results, stored)
print("torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]
