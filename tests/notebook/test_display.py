"""What a notebook shows and stores for other pages."""

import math

import myst_nb
import numpy as np
import pytest
from matplotlib import pyplot as plt

from opdlib import notebook
from opdlib.notebook.display import POINTS
from tests.notebook.outputs import shown


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
    assert output["metadata"]["image/svg+xml"] == {"alt": "An empty plot."}
    assert output["metadata"]["scrapbook"]["name"] == "fig_key"
    assert output["data"]["text/plain"] == "An empty plot."
    assert output["data"]["image/svg+xml"].startswith("<svg")
    assert "<text" in output["data"]["image/svg+xml"]
    assert plt.get_fignums() == []


@pytest.mark.slow
def test_a_figure_of_too_many_points_is_a_picture_of_them() -> None:
    def draw() -> None:
        ax = plt.figure().add_subplot()
        ax.plot(range(POINTS + 1), "o")
        notebook.figure("fig_key", ax, alt="Many points.")

    plt.switch_backend("agg")
    _, (output,) = shown(draw)
    assert output["data"]["image/png"].startswith("iVBOR")
    assert output["metadata"]["image/png"] == {"alt": "Many points."}


def test_a_figure_is_drawn_the_same_each_time() -> None:
    def draw() -> None:
        ax = plt.figure().add_subplot()
        ax.plot([1, 2], [3, 4], "o-")
        notebook.figure("fig_key", ax, alt="A line.")

    plt.switch_backend("agg")
    assert shown(draw) == shown(draw)


def test_a_sentence_has_its_numbers_filled_in() -> None:
    _, (output,) = shown(lambda: notebook.say("{share:.1%} of {what}", share=0.8125, what="them"))
    assert output["data"]["text/markdown"] == output["data"]["text/plain"] == "81.2% of them"
    with pytest.raises(KeyError):
        notebook.say("{share:.1%}")


def test_the_box_under_a_title() -> None:
    _, (output,) = shown(
        lambda: notebook.finding(paper="{low:.0%} to all", here="a < b", control="none", sure="one run", low=0.5)
    )
    assert output["data"]["text/html"] == (
        '<dl class="finding"><dt>The paper says</dt><dd>50% to all</dd><dt>We find</dt><dd>a &lt; b</dd>'
        "<dt>Under control</dt><dd>none</dd><dt>How sure</dt><dd>one run</dd></dl>"
    )
    assert output["data"]["text/plain"].splitlines()[1] == "We find: a < b"
