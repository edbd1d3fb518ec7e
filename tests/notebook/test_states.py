"""Every state of a pair through every page about one.

A page shows its numbers, or stops where it loads them, with one line that says what is not there and what makes it.
"""

from __future__ import annotations  # the cells that are compiled here take it over

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import opdlib.files
from opdlib.checkpoints import open_checkpoint, patch
from opdlib.errors import OpdError
from opdlib.registry.pairs import registry
from opdlib.results.measure import measure_into
from tests.conftest import moved, pico_weights, write_checkpoint

pytestmark = pytest.mark.notebook

DATA = opdlib.files.data_root()
PAGES = [DATA.parent / "notebooks" / f"{name}.ipynb" for name in ("01_sparsity", "02_layers", "04_rank", "05_subspace")]
SCALE = "smollm2-bf16"
"""The one scale of the study that has rows in `repository`."""
TOLD = {
    "smollm2-bf16-rlvr-s0": r"only its rows .*opd summary smollm2-bf16-.* study smollm2-bf16 --arms rlvr --seeds 0$",
    "pico-rlvr-s3": r"neither rows .*to make them run: opd study pico --arms rlvr --seeds 3$",
    "lost": r"nobody kept it; give the checkpoints yourself as source and trained$",
    "gone": r"no such file or folder",
}
"""Pair that cannot be shown -> the end of what is told of it."""
PAIRS = """
whole: {{title: Whole, source: {source}, trained: "patch:data/patches/whole.safetensors", regime: OPD}}
here: {{title: Here, source: {source}, trained: {trained}, regime: OPD}}
lost: {{title: Lost, source: {source}, trained: null, regime: OPD, why: nobody kept it}}
gone: {{title: Gone, source: {source}, trained: {trained}-not, regime: OPD}}
"""


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A checkout with pairs in every state, beside the paper's; the weights of one run of the study are here."""
    root = tmp_path_factory.mktemp("repository")
    source = write_checkpoint(root / "source", pico_weights())
    trained = write_checkpoint(root / "trained", moved(pico_weights()))
    data = root / "data"
    (data / "patches").mkdir(parents=True)
    (data / "study").mkdir()
    for name in ("paper", "recipes", "study.yaml", "weights.yaml", f"study/{SCALE}"):
        (data / name).symlink_to(DATA / name)
    known = (DATA / "pairs.yaml").read_text(encoding="utf8")
    (data / "pairs.yaml").write_text(known + PAIRS.format(source=source, trained=trained), encoding="utf8")
    before, after = (open_checkpoint(str(folder)) for folder in (source, trained))
    patch.make(before, after, data / "patches" / "whole.safetensors")
    measure_into(data / "results" / "whole", before, after, name="whole")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(opdlib.files, "PACKAGE", root / "opdlib")
        patched.setenv("OPDLIB_CACHE", str(root / "cache"))
        patched.setenv("TQDM_DISABLE", "1")
        patched.setenv("HF_HUB_OFFLINE", "1")
        patched.chdir(root)
        registry.cache_clear()
        yield root
    registry.cache_clear()


def read(page: Path, pair: str, seen: list[str]) -> dict[str, Any]:
    """What a page makes of a pair: its code cells, run here, but for the one that installs on Colab. `seen` is where
    the sources of the cells go before they are run."""
    made: dict[str, Any] = {}
    cells = [cell for cell in json.loads(page.read_text(encoding="utf8"))["cells"] if cell["cell_type"] == "code"]
    for cell in cells[1:]:
        seen.append("".join(cell["source"]).replace('"smollm2-opd"', repr(pair)))
        exec(compile(seen[-1], page.name, "exec"), made)
    return made


@pytest.mark.usefixtures("without_a_screen")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
@pytest.mark.parametrize("pair", ["whole", "here"])
def test_a_page_shows_what_is_there_or_can_be_measured(page: Path, pair: str, repository: Path) -> None:
    made = read(page, pair, [])
    assert made["settings"].pair == pair
    assert made["results"].title == pair.title()


@pytest.mark.usefixtures("without_a_screen")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
@pytest.mark.parametrize("pair", TOLD)
def test_a_page_says_what_is_not_there(page: Path, pair: str, repository: Path) -> None:
    seen: list[str] = []
    with pytest.raises(OpdError, match=TOLD[pair]) as caught:
        read(page, pair, seen)
    assert "\n" not in str(caught.value)
    assert "notebook.load(" in seen[-1]
