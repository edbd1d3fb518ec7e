"""The built book: complete, self-contained, and pointing where it says."""

from __future__ import annotations

import html
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml

from opdlib import claims, quantities
from opdlib.registry.claims import clauses
from tests.book.conftest import PAGES, Page
from tests.conftest import ROOT

pytestmark = pytest.mark.slow
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
FORMULAS = "vendor/mathjax"


def test_ends_with_the_path_of_the_index_page(build: tuple[Path, str]) -> None:
    html, printed = build
    assert "WARNING" not in printed
    last = Path(printed.rstrip().splitlines()[-1])
    assert last == html / "book" / "index.html"
    assert last.is_file()
    assert (html / "index.html").is_file()


def test_every_notebook_has_a_page() -> None:
    assert {f"notebooks/{n.stem}" for n in NOTEBOOKS} == {p for p in PAGES if p.startswith("notebooks/")}


@pytest.mark.parametrize("name", PAGES)
def test_page_loads_nothing_from_elsewhere_and_nothing_that_is_missing(page: Callable[[str], Page], name: str) -> None:
    addresses = [a for a in page(name).loads() if not a.startswith("data:")]
    assert len(addresses) > 5
    for address in addresses:
        assert not urlsplit(address).netloc, address
        assert page(name).target(address).is_file(), address


@pytest.mark.parametrize("name", PAGES)
def test_links_within_the_book_lead_somewhere(page: Callable[[str], Page], name: str) -> None:
    here = page(name)
    for attributes in here.all("a"):
        link = urlsplit(attributes.get("href", ""))
        if not link.scheme and link.path:
            assert here.target(link.path).exists(), link.path


def test_styles_and_scripts_load_nothing_from_elsewhere(build: tuple[Path, str]) -> None:
    outside = re.compile(r"(?:url\(|@import)\s*['\"]?https?:|(?:unpkg|cdnjs|jsdelivr)\.", re.I)
    files = [f for kind in ("css", "js", "html") for f in build[0].rglob(f"*.{kind}")]
    found = [f for f in files if FORMULAS not in f.as_posix() and outside.search(f.read_text(encoding="utf8"))]
    assert found == []


@pytest.mark.parametrize("name", PAGES)
def test_images_say_what_they_show(page: Callable[[str], Page], name: str) -> None:
    for image in page(name).all("img"):
        alt = image.get("alt", "").strip()
        assert alt, image
        assert not alt.endswith((".png", ".svg")), alt


@pytest.mark.parametrize("name", PAGES)
def test_a_page_says_what_it_is_and_what_it_looks_like(
    build: tuple[Path, str], page: Callable[[str], Page], name: str
) -> None:
    base = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf8"))["html"]["baseurl"]
    tags = page(name).all("meta")
    said = {tag.get("name") or tag.get("property", ""): tag.get("content", "") for tag in tags}
    assert 20 < len(said["description"]) <= 210
    assert said["og:description"] == said["description"]
    assert said["og:url"] == f"{base}{name}.html"
    assert (build[0] / said["og:image"].removeprefix(base)).read_bytes().startswith(b"\x89PNG")
    assert [tag for tag in page(name).all("link") if "icon" in tag.get("rel", "")]


@pytest.mark.parametrize("name", PAGES)
def test_the_footer_says_how_to_cite(page: Callable[[str], Page], name: str) -> None:
    footer = page(name).text_of("footer")
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert f"Built from commit  {commit.stdout.strip()} " in footer
    assert "Apache-2.0" in footer
    assert "@misc{opdlib," in footer


@pytest.mark.parametrize("name", PAGES)
def test_a_page_of_results_leads_to_the_paper_and_its_tables(page: Callable[[str], Page], name: str) -> None:
    links = [a["href"] for a in page(name).all("a") if "href" in a]
    tables = [link.partition("/blob/main/")[2] for link in links if "/data/paper/" in link]
    if name.startswith("notebooks/"):
        assert "https://arxiv.org/abs/2606.13657" in links
        assert tables
        assert [t for t in tables if not (ROOT / t).is_file()] == []


@pytest.mark.parametrize("name", PAGES)
def test_what_sets_formulas_is_loaded_where_there_are_some(page: Callable[[str], Page], name: str) -> None:
    formulas = 'class="math notranslate' in page(name).text
    assert any("mathjax" in address for address in page(name).loads()) == formulas


def test_formulas_are_set_without_a_network(build: tuple[Path, str], page: Callable[[str], Page]) -> None:
    (script,) = [a for a in page("book/methods").loads() if "mathjax" in a]
    resolved = page("book/methods").target(script).resolve()
    assert resolved.is_relative_to(build[0].resolve() / FORMULAS)
    assert any((resolved.parent / "output/chtml/fonts/woff-v2").glob("*.woff"))
    assert (resolved.parent / "LICENSE").is_file()


@pytest.mark.parametrize("name", PAGES)
def test_launch_button_opens_the_committed_file(page: Callable[[str], Page], name: str) -> None:
    repository = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf8"))["repository"]
    links = [a["href"] for a in page(name).all("a") if "colab" in a.get("href", "")]
    if not name.startswith("notebooks/"):
        assert links == []
        return
    place = repository["url"].removeprefix("https://github.com/")
    assert set(links) == {f"https://colab.research.google.com/github/{place}/blob/main/{name}.ipynb"}
    assert (ROOT / f"{name}.ipynb").is_file()


def test_every_claim_is_shown_and_the_front_page_has_every_clause(page: Callable[[str], Page]) -> None:
    front = page("book/index").text
    assert all(re.search(rf">\s*{clause}\s*<", front) for clause in clauses())
    text = page("book/claims").text
    for claim in claims.load():
        assert claim.pair is not None or re.search(rf">\s*{claim.id}\s*<", text), claim.id
    for title in {claim.pair.title for claim in claims.load() if claim.pair}:
        assert title in text


def test_words_of_the_glossary_show_their_meaning(page: Callable[[str], Page]) -> None:
    """Each once a page, at its first use."""
    for name in ("notebooks/06_subnetwork", "book/essay"):
        links = [a for a in page(name).all("a") if "opd-term" in a.get("class", "").split()]
        assert len(links) >= 3
        assert len({a["href"] for a in links}) == len(links)
        assert all(len(a["title"]) > 20 and page(name).target(a["href"]).name == "glossary.html" for a in links)


CITING = ("conflicts", "essay", "methods", "literature")
"""Pages that cite, and the list."""


def test_text_and_list_call_literature_alike(page: Callable[[str], Page]) -> None:
    plain = {name: " ".join(re.sub(r"<[^>]+>", "", page(f"book/{name}").text).split()) for name in CITING}
    cited = {pair for text in plain.values() for pair in re.findall(r"(\w+ et al\.|\w+ and \w+) \[(\d{4})\]", text)}
    assert len(cited) > 1
    assert not [names for names, year in cited if f"[{names}, {year}]" not in plain["literature"]]


def test_every_number_is_defined(page: Callable[[str], Page]) -> None:
    """By label and definition, parameters left out."""
    text = re.sub(r"<[^>]+>", "", page("book/methods").text)
    for record in (record for subject in quantities.families().values() for record in subject):
        for part in re.split(r"\{\w+\}", record.label):
            assert html.escape(part, quote=False) in text, record.key


def test_opening_figure_is_that_of_the_notebook() -> None:
    sys.path.insert(0, str(ROOT / "book"))
    try:
        from prepare import glued_figure
    finally:
        sys.path.remove(str(ROOT / "book"))
    committed = (ROOT / "book" / "images" / "threshold_curve.svg").read_text(encoding="utf8")
    assert committed == glued_figure(ROOT / "notebooks" / "01_sparsity.ipynb", "fig_threshold_curve")
