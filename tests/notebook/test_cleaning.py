"""What is taken from an executed notebook."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest

from opdlib import notebook

pytestmark = pytest.mark.notebook


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
