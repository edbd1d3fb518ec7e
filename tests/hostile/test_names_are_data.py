"""Names that files choose: they come back from every table, and do nothing on a terminal, a figure or a page."""

import io
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

import opdlib
from opdlib.errors import CheckpointError, one_line
from opdlib.figures.theme import canvas_of, drawn, figure
from opdlib.notebook import display
from opdlib.results.layout import csv_text
from opdlib.tables.styled import as_html
from tests.conftest import moved, pico_weights, write_checkpoint
from tests.hostile.conftest import Run

NAMES = (
    *("NA", "nan", "null", "None", "true", "1e5", "007", "=1+1", "#a", "a,b", 'a"b', "  a ", "*", "[br]", "...."),
    *("a\x1b[2Jb", "a\rb", "a\nb", "a\r\nb", "\x07", "a\u202eb", "a\u2028b", "a\x85b", "\xe9\u4e2d"),
    *("<script>alert(1)</script>", "$x^{2}$ $\\frac$", "x" * 100_000),
)


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A pair with a matrix under each of the names."""
    folder = tmp_path_factory.mktemp("named")
    weights = {name: torch.ones(4, 3).bfloat16() for name in NAMES} | pico_weights(layers=1)
    pair = write_checkpoint(folder / "source", weights), write_checkpoint(folder / "trained", moved(weights, 0.01))
    return pair


@pytest.mark.slow
def test_names_come_back_from_every_table(named: tuple[Path, Path], run: Run, tmp_path: Path) -> None:
    sides = ("--source", named[0], "--trained", named[1])
    code, out, error = run("measure", *sides, "--out", tmp_path / "out", "--name", "<b> $x$")
    assert (code, error) == (0, "")
    assert out[:-1].isprintable()
    results = opdlib.open_results(tmp_path / "out")
    wanted = {*NAMES, *pico_weights(layers=1)}
    assert {*results.tensors["tensor"]} == wanted
    assert {*results.read("sparsity")["tensor"]} == wanted
    assert {*results.read("energy")["tensor"].dropna()} == wanted
    assert {*NAMES} < {*results.matrices["tensor"]} <= wanted
    assert {*NAMES} < {*results.read("nulls")["tensor"].dropna()} <= wanted
    assert run("summary", tmp_path / "out")[1].replace("\n", "").isprintable()


@pytest.mark.parametrize("name", NAMES)
def test_a_message_is_one_printable_line(name: str) -> None:
    message = str(CheckpointError(f"file: no tensor {name}; wanted another"))
    assert message == one_line(message)
    assert message.isprintable()
    assert message.startswith("file: no tensor ")
    assert message.endswith("; wanted another")
    assert len(message) < 1000


def test_a_table_comes_back_whatever_is_in_its_cells() -> None:
    rows = [{"tensor": name, "n": number, "empty": None} for number, name in enumerate(NAMES)]
    text = csv_text(rows)
    read = pd.read_csv(io.StringIO(text, newline=""), dtype={"tensor": "str"}, keep_default_na=False, na_values=[""])
    assert [*read["tensor"]] == [*NAMES]
    assert [*read["n"]] == [*range(len(NAMES))]
    assert read["empty"].isna().all()
    assert text.endswith("\n")
    assert not re.sub('"[^"]*"', "", text).count("\r")


def test_no_page_obeys_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    evil = "<script>alert(1)</script>"
    table = pd.DataFrame({"tensor": [evil, evil], evil: [1.0, 2.0], "n": ["x", "y"]}, index=[evil, "b"])
    assert "<script" not in as_html(table)
    assert "&lt;script&gt;" in as_html(table)
    shown: list[dict[str, str]] = []
    monkeypatch.setattr(display, "_display", lambda data, _: shown.append(data))
    display.say("of {name}: {share:.1%}, {error}", name=f"{evil} $x$ [a](b)", share=0.5, error=ValueError("<b>"))
    display.finding("{name}", "b", "c", "d", name=evil)
    assert shown[0]["text/markdown"] == (r"of &lt;script&gt;alert(1)&lt;/script&gt; \$x\$ [a]\(b): 50.0%, &lt;b&gt;")
    assert "<script" not in shown[1]["text/html"]


@pytest.mark.usefixtures("without_a_screen")
def test_no_figure_sets_a_name_as_a_formula() -> None:
    def draw(table: pd.DataFrame, ax: Any) -> None:
        ax.set_yticks([0, 1], ["$\\frac$", "$x^{2}$"])
        ax.plot([0, 1], [0, 1], label="$\\nonsense")
        ax.set_xscale("log")
        ax.legend()

    picture = drawn(canvas_of(figure(draw)(pd.DataFrame())), "svg").decode()
    assert "$x^{2}$" in picture
    assert "mathdefault" not in re.sub("<!--.*?-->", "", picture)
