"""The parts of the book that a PDF cannot have, in a browser, from files: their numbers are those of the library."""

from __future__ import annotations

import importlib.util
import json
import math
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
import torch

from opdlib.checkpoints import open_checkpoint
from opdlib.registry.pairs import DEFAULT, find_pair
from opdlib.registry.study import study
from opdlib.results.study import open_study
from opdlib.tables import open_results, paper
from tests.conftest import ROOT, Command, moved, pico_weights, write_checkpoint

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture(scope="module")
def interactive() -> ModuleType:
    """book/interactive.py, which is no module of the library."""
    spec = importlib.util.spec_from_file_location("interactive", ROOT / "book" / "interactive.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, interactive: ModuleType) -> Path:
    """A folder with a page for each part, as a file, and what it loads."""
    folder = tmp_path_factory.mktemp("site")
    shutil.copytree(ROOT / "book" / "_static", folder / "book" / "_static")
    interactive.write_data(folder / "book" / "_static")
    (folder / "book" / "_static").rename(folder / "_static")
    for part in ("slider", "map", "pair"):
        (raw,) = re.findall(r"```\{raw\} html\n(.*)```", (ROOT / "book" / f"_{part}.md").read_text("utf8"), re.S)
        (folder / "book" / f"{part}.html").write_text(f"<!doctype html><meta charset='utf-8'>{raw}", encoding="utf8")
    return folder


@pytest.fixture
def opened(browser: Browser, site: Path) -> Iterator[Callable[[str], Page]]:
    """Opens the page of a part; what it complains about, and what it asks the network for, fails the test."""
    page, faults = browser.new_page(), []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    page.on("request", lambda asked: None if asked.url.startswith(("file:", "blob:")) else faults.append(asked.url))

    def open_part(part: str) -> Page:
        page.goto((site / "book" / f"{part}.html").as_uri())
        return page

    yield open_part
    page.close()
    assert faults == []


def data_of(site: Path, part: str) -> Any:
    """What the part's script of data holds."""
    text = (site / "_static" / f"{part}_data.js").read_text("utf8")
    return json.loads(text.partition("Data = ")[2].rstrip().removesuffix(";"))


# The source's histogram.


def test_the_histogram_is_that_of_the_source(interactive: ModuleType) -> None:
    """All weights are counted; those of three tensors of different kinds in the right places."""
    tensors, histogram = open_results(DEFAULT).tensors, json.loads(interactive.HISTOGRAM.read_text("utf8"))
    assert {name: sum(row) - sum(row[::3]) for name, row in histogram.items()} == dict(
        zip(tensors["tensor"], tensors["size"], strict=True)
    )
    source = open_checkpoint(find_pair(DEFAULT).source)
    for name in ("model.norm.weight", "model.layers.0.mlp.down_proj.weight", "model.layers.9.self_attn.k_proj.weight"):
        bits = source.read(name).to(torch.bfloat16).view(torch.int16).flatten().numpy().astype(np.int64) & 0x7FFF
        found = np.array(histogram[name]).reshape(-1, 3)
        for binade, end, others in found:
            own = bits[bits >> 7 == binade] & 127
            assert (end, others) == ((own == 0).sum(), (own != 0).sum())


# The slider.


def test_slider_at_the_run_s_own_norm_gives_the_committed_null(opened: Callable[[str], Page], site: Path) -> None:
    """Scale: the RMS of each tensor's fp32 update, as in the committed null."""
    committed = open_results(DEFAULT).summary
    assert committed["nulls_scale"] == "fp32"
    null = committed["nulls"]["visibility"]
    page = opened("slider")
    shown = page.locator(".opd-slider").evaluate("place => ({...place.dataset})")
    assert float(shown["unchanged"]) == pytest.approx(null["exact_zero"], abs=1e-9)
    assert float(shown["low"]) == pytest.approx(null["coverage"]["low"]["0.1"], abs=1e-6)
    assert data_of(site, "slider")["own"]["norm"] == open_results(DEFAULT, "stored").summary["rel_norm"]


def test_slider_follows_the_norm(opened: Callable[[str], Page], interactive: ModuleType) -> None:
    page, place = opened("slider"), ".opd-slider"
    shares = []
    for power in (-5, -3.5, -2, 0.5):
        page.locator("#opd-norm").evaluate("(e, v) => {e.value = v; e.dispatchEvent(new Event('input'))}", str(power))
        shares.append(float(page.locator(place).get_attribute("data-unchanged") or "nan"))
        unchanged, low = interactive.visibility(10**power / interactive.norm())
        assert shares[-1] == pytest.approx(unchanged, abs=1e-9)
        assert float(page.locator(place).get_attribute("data-low") or "nan") == pytest.approx(low, abs=1e-9)
    assert shares == sorted(shares, reverse=True)
    assert shares[0] > 0.99
    assert shares[-1] < 0.01
    runs = page.locator("#opd-run option")
    page.locator("#opd-run").select_option(index=runs.count() - 1)
    assert page.locator("output").inner_text() in runs.last.inner_text()


def test_runs_on_the_slider_are_those_over_its_source(site: Path) -> None:
    source = find_pair(DEFAULT).source
    wanted = {}
    for scale in study().values():
        runs = open_study(scale.name).runs
        for row in runs[runs["view"] == "stored"].itertuples() if scale.source == source else ():
            wanted[f"{scale.name}-{row.arm}-s{row.seed}"] = row.rel_norm
    assert {run["name"]: run["norm"] for run in data_of(site, "slider")["runs"]} == wanted


# The map.


def test_points_of_the_map_equal_the_runs(opened: Callable[[str], Page], site: Path) -> None:
    points = data_of(site, "map")["points"]
    keys = [key for key in data_of(site, "map")["quantities"] if key not in ("accuracy", "learning_rate")]
    by_name = {point["name"]: point for point in points}
    assert len(by_name) == len(points)
    found = 0
    for scale in study():
        runs = open_study(scale).runs
        for row in runs[runs["view"] == "bf16"].to_dict("records"):
            point = by_name[f"{scale}-{row['arm']}-s{row['seed']}"]
            assert {k: point.get(k) for k in keys} == {k: None if pd.isna(row[k]) else row[k] for k in keys}
            assert point["accuracy"] == row["student.accuracy"]
            found += 1
    published = paper.wide(keys)
    for row in published.to_dict("records"):
        assert {k: by_name[row["pair"]].get(k) for k in keys} == {k: None if pd.isna(row[k]) else row[k] for k in keys}
    assert len(points) == found + len(published)
    page = opened("map")
    drawn = [p for p in points if p.get("rel_norm", 0) > 0 and "exact_zero" in p]
    assert page.locator(".opd-map .point").count() == len(drawn)


def test_map_shows_any_two_numbers_and_tells_the_recipe(opened: Callable[[str], Page], site: Path) -> None:
    page, data = opened("map"), data_of(site, "map")
    for x in data["quantities"]:
        page.locator("#opd-x").select_option(x)
        shown = [
            p for p in data["points"] if x in p and "exact_zero" in p and (p[x] > 0 or not data["quantities"][x]["log"])
        ]
        assert page.locator(".opd-map .point").count() == len(shown)
        assert page.locator(".opd-map text.label").first.text_content() == data["quantities"][x]["label"]
    page.locator("#opd-x").select_option("coverage.principal.0.1")
    assert page.locator(".opd-map .null").count() == 1, "chance is drawn where it is known"
    first = data["points"][0]
    page.locator(".opd-map .point").first.dispatch_event("click")
    assert first["recipe"] in page.locator(".opd-readout").inner_text()


# Your own pair.


def wide(seed: int, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """A pico model with weights from 1e-6 to 1, zeros of both signs, and a tensor in slices that no block divides."""
    weights = pico_weights(seed=seed, dtype=dtype)
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.logspace(-6, 0, 9001) * torch.randn(9001, generator=generator)
    sizes[:4] = torch.tensor([0.0, -0.0, 0.0, 1.0])
    return weights | {"model.visual.blocks.3.attn.qkv.weight": sizes.to(dtype).reshape(1, -1)}


PAIRS = {
    "bf16": (torch.bfloat16, torch.bfloat16, 1),
    "fp32 trained, in shards": (torch.bfloat16, torch.float32, 3),
    "fp16 to fp32": (torch.float16, torch.float32, 1),
}


def dropped(page: Page, before: Path, after: Path) -> Any:
    """What the page finds in these folders."""
    for side, folder in (("before", before), ("after", after)):
        page.locator(f"#opd-{side}").set_input_files(sorted(folder.glob("*.*")))
    page.get_by_role("button", name="Compare").click()
    page.wait_for_function("opdlib.pair.result || document.querySelector('.opd-error')", timeout=60_000)
    assert page.locator(".opd-error").count() == 0, page.locator(".opd-error").inner_text()
    return page.evaluate("opdlib.pair.result")


@pytest.mark.parametrize("name", PAIRS)
def test_dropped_files_give_the_numbers_of_opd_measure(
    name: str, opened: Callable[[str], Page], opd: Command, tmp_path: Path
) -> None:
    source_type, trained_type, shards = PAIRS[name]
    source = wide(len(name), source_type)
    tied = {"tie_word_embeddings": True}
    before = write_checkpoint(tmp_path / "before", source, config=tied)
    after = write_checkpoint(tmp_path / "after", moved(source, dtype=trained_type), shards=shards, config=tied)
    options = ("--source", before, "--trained", after, "--only", "sparsity", "--out", tmp_path / "out")
    done = opd("measure", *options)
    assert done.returncode == 0, done.stderr
    found = dropped(opened("pair"), before, after)
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    tensors = pd.read_csv(tmp_path / "out" / "tensors.csv").set_index("tensor")
    counts = pd.read_csv(tmp_path / "out" / "sparsity.csv").set_index(["tensor", "rule"])["unchanged"]
    assert [t["name"] for t in found["tensors"]] == [*tensors.index]
    for own in found["tensors"]:
        row = tensors.loc[own["name"]]
        assert (own["size"], own["unchanged"], own["block"]) == (row["size"], row["exact_zero"], row["block"]) or (
            row["part"] == "vision" and own["block"] == "vision"
        )
        for rule in ("absolute", "relative"):
            assert own[rule] == counts.loc[own["name"], rule].tolist(), (own["name"], rule)
        assert own["energy"] == pytest.approx(row["energy"], rel=1e-12)
        assert own["sourceEnergy"] == pytest.approx(row["source_energy"], rel=1e-12)
    assert found["model"]["relNorm"] == pytest.approx(summary["rel_norm"], rel=1e-12)
    assert found["model"]["unchanged"] == summary["exact_zero"]
    assert found["model"]["absolute"] == [*summary["sparsity"].values()]
    assert found["model"]["relative"] == [*summary["sparsity_rms"].values()]
    for block in found["blocks"]:
        wanted = summary["blocks"][block["name"]]
        assert block["size"] == wanted["parameters"]
        assert block["relNorm"] == pytest.approx(wanted["rel_norm"], rel=1e-12)
    for layer, wanted in zip(found["layers"], summary["layers"], strict=True):
        assert (layer["name"], layer["unchanged"]) == (wanted["layer"], wanted["exact_zero"])
    assert {block["name"] for block in found["blocks"]} == {*summary["blocks"]}
    null = summary["nulls"]["visibility"]["exact_zero"]
    assert (null is None) == (source_type == torch.float16), "a source that is finer than bf16"
    assert found["scaleFrom"] == summary.get("nulls_scale", "")
    wanted = math.nan if null is None else null
    assert found["model"]["expectedUnchanged"] == pytest.approx(wanted, abs=1e-6, nan_ok=True)


@pytest.mark.parametrize("scale", [1e-5, 1e-4, 1e-3])
def test_the_scale_of_noise_comes_back_from_its_rounded_norm(
    scale: float, opened: Callable[[str], Page], tmp_path: Path
) -> None:
    """Two bf16 files do not hold the update before rounding: its size is that which rounds to the norm they hold."""
    generator = torch.Generator().manual_seed(1)
    weights = torch.randn(300, 200, generator=generator) * 0.05
    source = {"model.layers.0.mlp.up_proj.weight": weights.bfloat16()}
    trained = moved(source, scale=scale, seed=2)
    before, after = (write_checkpoint(tmp_path / n, w) for n, w in (("before", source), ("after", trained)))
    found = dropped(opened("pair"), before, after)
    assert found["tensors"][0]["scale"] == pytest.approx(scale, rel=0.1)
    assert found["model"]["expectedUnchanged"] == pytest.approx(found["model"]["unchanged"], abs=0.01)
    assert found["low"] == pytest.approx(found["expectedLow"], abs=0.03)


W = "model.layers.0.mlp.up_proj.weight"


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (
            {W: torch.ones(2, 3)},
            {W: torch.ones(3, 3)},
            f"{W}: [2, 3] before, [3, 3] after; a difference needs equal shapes.",
        ),
        (
            {W: torch.ones(2)},
            {"other": torch.ones(2)},
            f"Tensors without a partner, only before: {W}; only after: other.",
        ),
        ({W: torch.ones(2).int()}, {W: torch.ones(2)}, f"{W}: stored as I32 before; wanted one of BF16, F16, F32."),
        (
            {W: torch.ones(2)},
            {W: torch.tensor([1.0, math.inf])},
            f"{W} holds 1 NaN or Inf after; wanted finite weights.",
        ),
    ],
)
def test_errors_are_said_in_words(
    before: dict[str, torch.Tensor],
    after: dict[str, torch.Tensor],
    message: str,
    opened: Callable[[str], Page],
    tmp_path: Path,
) -> None:
    page = opened("pair")
    for side, weights in (("before", before), ("after", after)):
        page.locator(f"#opd-{side}").set_input_files(sorted(write_checkpoint(tmp_path / side, weights).glob("*")))
    page.get_by_role("button", name="Compare").click()
    page.locator(".opd-error").wait_for()
    assert page.locator(".opd-error").inner_text().startswith(message)


def test_a_file_of_another_kind(opened: Callable[[str], Page], tmp_path: Path) -> None:
    page = opened("pair")
    (tmp_path / "model.safetensors").write_bytes(b"no weights, but long enough to have a header of some length")
    for side in ("before", "after"):
        page.locator(f"#opd-{side}").set_input_files(tmp_path / "model.safetensors")
    page.get_by_role("button", name="Compare").click()
    page.locator(".opd-error").wait_for()
    assert "does not start like a safetensors file" in page.locator(".opd-error").inner_text()


# Without JavaScript.


@pytest.mark.parametrize("part", ["slider", "map", "pair"])
def test_each_part_says_something_without_scripts(part: str, browser: Browser, site: Path) -> None:
    page = browser.new_page(java_script_enabled=False)
    page.goto((site / "book" / f"{part}.html").as_uri())
    place = page.locator(f".opd-{part}")
    assert len(place.inner_text()) > 40
    if part != "pair":
        assert len(place.locator("img").get_attribute("alt") or "") > 60
        assert (site / "_static" / f"{part}.svg").read_text("utf8").count("<text") > 5
    page.close()
