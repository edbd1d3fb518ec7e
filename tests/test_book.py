"""The built book: complete, self-contained, and pointing where it says."""

from __future__ import annotations

import html
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml

from opdlib import claims, quantities

ROOT = Path(__file__).parents[1]
TOC = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf8"))
pytestmark = pytest.mark.slow
PAGES = [TOC["root"], *(chapter["file"] for part in TOC["parts"] for chapter in part["chapters"])]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))

LOADING = {"script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src", "audio": "src"}
"""Tag -> the attribute that makes a browser load something. Of `link`, see `loads`."""

VENDORED = "vendor/mathjax"


class Page(HTMLParser):
    """All tags of a page with their attributes."""

    def __init__(self, file: Path):
        super().__init__()
        self.file = file
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text = file.read_text(encoding="utf8")
        self.feed(self.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]

    def loads(self) -> Iterator[str]:
        """Every address that opening the page requests."""
        for tag, attributes in self.tags:
            if tag == "link" and not {"canonical", "next", "prev", "index", "search", "author", "copyright"} & set(
                attributes.get("rel", "").split()
            ):
                yield attributes["href"]
            elif attributes.get(LOADING.get(tag, "")):
                yield attributes[LOADING[tag]]

    def target(self, address: str) -> Path:
        return self.file.parent / unquote(urlsplit(address).path)


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of the HTML and what the build printed. Notebooks are taken as they are committed."""
    folder = tmp_path_factory.mktemp("book") / "_build"
    command = ["make", "-o", "install", "pages", f"BUILD={folder}", f"BIN={Path(sys.executable).parent}"]
    environment = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL")}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-4000:]
    return folder / "html", done.stdout


@pytest.fixture(scope="module")
def page(build: tuple[Path, str]) -> Callable[[str], Page]:
    pages = {name: Page(build[0] / f"{name}.html") for name in PAGES}
    return pages.__getitem__


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
    found = [f for f in files if VENDORED not in f.as_posix() and outside.search(f.read_text(encoding="utf8"))]
    assert found == []


@pytest.mark.parametrize("name", PAGES)
def test_images_say_what_they_show(page: Callable[[str], Page], name: str) -> None:
    for image in page(name).all("img"):
        alt = image.get("alt", "").strip()
        assert alt, image
        assert not alt.endswith((".png", ".svg")), alt


def test_formulas_are_set_by_the_vendored_script(build: tuple[Path, str], page: Callable[[str], Page]) -> None:
    (script,) = [a for a in page("book/methods").loads() if "mathjax" in a]
    resolved = page("book/methods").target(script).resolve()
    assert resolved.is_relative_to(build[0].resolve() / VENDORED)
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


def test_index_shows_every_claim(page: Callable[[str], Page]) -> None:
    text = page("book/index").text
    for claim in claims.load():
        assert claim.pair is not None or re.search(rf">\s*{claim.id}\s*<", text), claim.id
    for title in {claim.pair.title for claim in claims.load() if claim.pair}:
        assert title in text


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
