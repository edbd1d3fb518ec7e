"""Tables for the eye: what is right-aligned, what is said once, and what is one click away."""

import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from opdlib.tables.styled import HEAD, LONGEST, as_html


class Cells(HTMLParser):
    """The rows of the first table, each a list of texts, and its caption."""

    def __init__(self, html: str):
        super().__init__()
        self.rows: list[list[str]] = []
        self.caption = ""
        self.at = ""
        self.feed(html.partition("</table>")[0])

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.at = tag
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data: str) -> None:
        if self.at in ("td", "th"):
            self.rows[-1][-1] += data.strip()
        elif self.at == "caption":
            self.caption += data.strip()


def table(**columns: list[object]) -> pd.DataFrame:
    frame = pd.DataFrame(columns, index=[f"row {i}" for i in range(len(next(iter(columns.values()))))])
    return frame.rename_axis(columns="pair")


def right_aligned(html: str) -> set[int]:
    rules = re.findall(r"\.col(\d+) \{\s*text-align: right", html)
    return {int(number) for number in rules}


def test_percent_goes_to_the_head_where_every_number_has_it() -> None:
    html = as_html(table(share=["12.10%", "3.20% (1.00% to 2.00%)", "-"], mixed=["1.00%", "2.00", "3.00"]))
    assert Cells(html).rows[:2] == [["pair", "share (%)", "mixed"], ["row 0", "12.10", "1.00%"]]
    assert Cells(html).rows[2][1] == "3.20 (1.00 to 2.00)"
    assert right_aligned(html) == {0, 1}


@pytest.mark.parametrize(
    ("cells", "numeric"),
    [
        (["1e-5", "1.2e-4"], True),
        (["1,234", "5"], True),
        (["+2.1 pp", "-0.3 pp"], True),
        (["\N{MINUS SIGN}2.1%", "-"], True),
        (["<1e-4", "0.5"], True),
        (["10.0% to 12.0%", "-"], True),
        (["-", "a"], False),
        (["1e-5, 1e-4", "2"], False),
        (["2 of 3 seeds", "3"], False),
    ],
)
def test_what_is_a_number(cells: list[object], numeric: bool) -> None:
    assert right_aligned(as_html(table(a=cells))) == ({0} if numeric else set())


def test_what_is_the_same_in_every_row_is_said_once() -> None:
    html = as_html(table(view=["bf16", "bf16"], share=["1%", "2%"], here=["-", "-"]))
    assert Cells(html).rows[0] == ["pair", "share (%)"]
    assert Cells(html).caption == "The same in every row: view bf16; here -."
    alone = as_html(table(view=["bf16"], share=["1%"]))
    assert len(Cells(alone).rows[0]) == 3, "of one row, everything is the same"
    assert Cells(as_html(table(a=["x", "x"], b=["y", "y"]))).rows[0] == ["pair", "a"]


def test_long_tables_are_whole_one_click_away() -> None:
    long = as_html(table(n=[*range(LONGEST + 1)]))
    first, _, rest = long.partition("<details>")
    assert len(Cells(first).rows) == 1 + HEAD
    assert f"Show all {LONGEST + 1} rows" in rest
    assert len(Cells(rest.partition("</summary>")[2]).rows) == 2 + LONGEST
    assert "<details>" not in as_html(table(n=[*range(LONGEST)]))
    assert len(set(re.findall(r'<table id="(\w+)"', long))) == 2


def test_values_that_are_no_text_yet() -> None:
    html = as_html(table(n=[12345, 6], x=[0.123456, np.nan], yes=[True, False], empty=["", "a<b"]))
    assert Cells(html).rows[1:] == [["row 0", "12,345", "0.1235", "True", "-"], ["row 1", "6", "-", "False", "a<b"]]


def test_the_same_cells_give_the_same_bytes() -> None:
    assert as_html(table(n=["1", "2"])) == as_html(table(n=["1", "2"]))
    assert as_html(table(n=["1", "2"])) != as_html(table(n=["1", "3"]))
