"""The page itself: one file of HTML that needs nothing else, made of content and pictures alone."""

import base64
import math
import re
from collections.abc import Mapping, Sequence
from html.parser import HTMLParser
from importlib.metadata import metadata
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup, escape

from opdlib.quantities import quantity, written
from opdlib.report.content import Content, canonical, digest
from opdlib.report.findings import boxes, warnings
from opdlib.results.flat import headline
from opdlib.tables import overall, paper
from opdlib.tables.styled import as_html
from opdlib.tables.written import cells

LARGEST = 5_000_000
"""Bytes of a page."""
OVERVIEW = (
    *("rel_norm", "exact_zero", "sparsity.1e-05", "svd_energy.16", "stable_rank"),
    *("projection.joint.0.1", "coverage.low.0.1", "coverage.principal.0.1"),
)
"""Numbers in which the pairs of a page stand beside the paper's ten rows."""
PLACE = "0" * 64
"""Where the digest of a page stands in it while the digest is taken."""

DATA = re.compile(r'<script type="application/json" id="opd-content" data-sha256="([0-9a-f]{64})">(.*?)</script>', re.S)
PAGE = re.compile(r'<meta name="opd-page-sha256" content="([0-9a-f]{64})">')
PICTURE = re.compile(r'<img id="([\w.-]+)" alt="[^"]*" src="data:image/(svg\+xml|png);base64,([A-Za-z0-9+/=]+)">')

Pictures = Mapping[str, tuple[str, bytes, str]]
"""Name -> kind of image, its content, and its alt text."""


def render(content: Content, pictures: Pictures) -> str:
    """The page. The same content and pictures give the same text."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= {
        "table": lambda table: Markup(as_html(table)),
        "percent": lambda x: written("exact_zero", x),
    }
    environment.filters["prose"] = _prose
    whole = content | {"pictures": {name: [kind, digest(data), alt] for name, (kind, data, alt) in pictures.items()}}
    data = canonical(whole)
    text = environment.get_template("page.html.jinja").render(
        content=content,
        pairs=[_shown(entry) for entry in content["pairs"]],
        overview=cells(overview(content), "pair", *OVERVIEW),
        several=len(content["pairs"]) > 1,
        picture=lambda name: _picture(name, *pictures[name]) if name in pictures else "",
        data=Markup(data),
        sha256=digest(data),
        place=PLACE,
        **_addresses(),
    )
    return text.replace(PLACE, digest(text), 1)


def overview(content: Content) -> pd.DataFrame:
    """The pairs of the page, then the paper's rows."""
    rows = []
    for entry in content["pairs"]:
        numbers = headline(entry["summary"])
        rows.append({"pair": entry["name"]} | {key: _number(numbers.get(key)) for key in OVERVIEW})
    published = paper.wide(OVERVIEW)
    published["pair"] = "paper: " + published["pair"].astype(str)
    return pd.concat([pd.DataFrame(rows), published[["pair", *OVERVIEW]]], ignore_index=True)


def tables_of(content: Content) -> dict[str, pd.DataFrame]:
    """The tables of a page as numbers, by name; those of a pair begin with its name where there are several."""
    found = {"overview": overview(content)}
    for entry in content["pairs"]:
        own = {"numbers": overall.overall(entry["summary"])}
        own |= {name: pd.DataFrame(entry[name]) for name in ("modules", "largest") if entry[name]}
        found |= {name if len(content["pairs"]) == 1 else f"{entry['anchor']}-{name}": t for name, t in own.items()}
    return found


def _shown(entry: Content) -> dict[str, Any]:
    """An entry with its sentences and with its tables as text."""
    numbers = overall.overall(entry["summary"])
    questions = {
        question: overall.shown(numbers[numbers["question"] == question])
        for question in dict.fromkeys(numbers["question"])
    }
    largest = _frame(entry["largest"])
    return {
        **entry,
        "boxes": boxes(entry),
        "warnings": warnings(entry),
        "questions": questions,
        "definitions": overall.definitions(numbers),
        "modules": _modules(_frame(entry["modules"])) if entry["modules"] else None,
        "largest": cells(largest, *map(str, largest.columns)),
        "nulls_scale": entry["summary"].get("nulls_scale", ""),
    }


def _modules(table: pd.DataFrame) -> pd.DataFrame:
    """The table of layers and modules as text."""
    names = {key: quantity(key).label for key in map(str, table.columns) if "." in key}
    columns = [
        c for c in ("part", "layer", "parameters", "exact_zero", "rel_norm", "energy_share", *names) if c in table
    ]
    layers = ["-" if math.isnan(n) else int(n) for n in table["layer"].astype(float)]
    return cells(table.assign(layer=layers), "module", *columns, names=names)


def _frame(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Rows with NaN where there is no number."""
    table = pd.DataFrame(rows)
    return table.astype({c: float for c in table if table[c].isna().any() and table[c].dropna().map(_is_number).all()})


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def _prose(line: str) -> Markup:
    """A sentence as HTML; what stands between backticks is code, as in the notebook that it is from."""
    return Markup(re.sub("`([^`]+)`", r"<code>\1</code>", str(escape(line))))


def _picture(name: str, kind: str, data: bytes, alt: str) -> Markup:
    encoded = base64.b64encode(data).decode()
    return Markup('<img id="{}" alt="{}" src="data:image/{};base64,{}">').format(name, alt, kind, encoded)


def _addresses() -> dict[str, str]:
    """Repository and book, as the installed package says."""
    urls = dict(url.split(", ", 1) for url in metadata("opdlib").get_all("Project-URL") or ())
    return {"repository": urls["Repository"], "book": urls["Book"]}


class _Text(HTMLParser):
    """What a reader sees, a piece a text node, and what stands in for a picture."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[str] = []
        self._hidden = 0

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self._hidden += tag in ("script", "style")
        self.pieces += [value for name, value in attributes if name == "alt" and value]

    def handle_endtag(self, tag: str) -> None:
        self._hidden -= tag in ("script", "style")

    def handle_data(self, data: str) -> None:
        if not self._hidden and data.strip():
            self.pieces.append(" ".join(data.split()))


def text_of(page: str) -> list[str]:
    """The visible text of a page, piece by piece."""
    parser = _Text()
    parser.feed(page)
    parser.close()
    return parser.pieces
