"""The built book: complete, self-contained, and pointing where it says."""

from __future__ import annotations

import html
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import unquote, urlsplit

import pytest
import yaml

from opdlib import claims, quantities
from opdlib.registry.claims import clauses

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext
    from playwright.sync_api import Page as Tab

ROOT = Path(__file__).parents[2]
TOC = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf8"))
pytestmark = pytest.mark.slow
PAGES = [TOC["root"], *(chapter["file"] for part in TOC["parts"] for chapter in part["chapters"])]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))

LOADING = {"script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src", "audio": "src"}
"""Tag -> the attribute that makes a browser load something. Of `link`, see `loads`."""

FORMULAS = "vendor/mathjax"


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

    def text_of(self, part: str) -> str:
        """The text of all elements of this kind, without tags."""
        return re.sub(r"<[^>]+>", " ", " ".join(re.findall(rf"<{part}\b.*?</{part}>", self.text, re.S)))

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
    warnings = [line for line in done.stdout.splitlines() if re.search("WARNING|ERROR", line)]
    assert done.returncode == 0, warnings or done.stdout[-4000:]
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


# In a browser.

RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]
"""Rules of axe-core that the pages are held to."""
STANDS_OUT = ["color-contrast", "link-in-text-block"]
"""Those of them that look at colours: a text beside what is behind it, a link beside the text around it."""
LEAN = {"resultTypes": ["violations"], "preload": False, "selectors": False}
"""What axe-core need not find out."""
THEIRS = ".citation-list, dl.py"
"""What docutils and autodoc write, and no page of ours can change: taken out while axe-core looks."""


@pytest.fixture(scope="module")
def opened(build: tuple[Path, str], browser: Browser) -> Callable[..., AbstractContextManager[Tab]]:
    """Opens a page; what it complains about, and what it asks the network for, fails the test. Pages opened
    with the same options share a profile, which takes long to make."""
    profiles: dict[str, BrowserContext] = {}

    @contextmanager
    def open_page(name: str, **options: Any) -> Iterator[Tab]:
        faults: list[str] = []
        if repr(options) not in profiles:
            profiles[repr(options)] = browser.new_context(viewport={"width": 1280, "height": 900}, **options)
        tab = profiles[repr(options)].new_page()
        tab.on("pageerror", lambda error: faults.append(str(error)))
        tab.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
        tab.on("request", lambda asked: None if asked.url.startswith(("file:", "data:")) else faults.append(asked.url))
        tab.goto((build[0] / f"{name}.html").as_uri())
        yield tab
        tab.close()
        assert faults == []

    return open_page


@pytest.fixture(scope="module", params=PAGES)
def tab(request: pytest.FixtureRequest, opened: Callable[..., AbstractContextManager[Tab]]) -> Iterator[Tab]:
    """Every page of the book, opened once for all that is looked at there."""
    from axe_playwright_python.base import AXE_SCRIPT

    with opened(request.param) as page:
        page.evaluate(f"{AXE_SCRIPT}; null")
        page.add_style_tag(content="* { transition: none !important }")  # a colour on its way is neither of the two
        yield page


OURS = f"""async (look) => {{
  const places = [...document.querySelectorAll("{THEIRS}")].map((element) => [element, document.createComment("")]);
  places.forEach(([element, place]) => element.replaceWith(place));
  const found = await look();
  places.reverse().forEach(([element, place]) => place.replaceWith(element));
  return Object.fromEntries(found.violations.map(
    (rule) => [rule.id, rule.nodes.slice(0, 3).map((node) => node.html.slice(0, 200))]));
}}"""
"""What axe-core finds that is ours, by rule."""


@pytest.mark.browser
def test_everyone_can_read_it(tab: Tab) -> None:
    """axe-core: labels, order of headings, alternatives of pictures, what a key reaches."""
    # Those of the next test; the theme's logo; empty corners.
    off = {rule: {"enabled": False} for rule in (*STANDS_OUT, "region", "empty-table-header")}
    tab.set_viewport_size({"width": 1280, "height": 900})
    options = {"runOnly": RULES, "rules": off} | LEAN
    assert tab.evaluate(f"(options) => ({OURS})(() => axe.run(options))", options) == {}


CONTRAST = f"""async (options) => {{
  const looks = new Map();
  const found = await ({OURS})(() => {{
    for (const element of document.querySelectorAll("body *")) {{
      const said = [...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim());
      if (!said || !element.checkVisibility()) continue;
      const {{ color, fontSize, fontWeight, textShadow }} = getComputedStyle(element);
      const look = [color, fontSize, fontWeight, textShadow];
      for (let behind = element; behind; behind = behind.parentElement) {{
        const {{ backgroundColor, backgroundImage, opacity }} = getComputedStyle(behind);
        look.push(backgroundColor, backgroundImage, opacity);
      }}
      const link = element.closest("a[href]");
      if (link) {{
        let block = link.parentElement;
        while (getComputedStyle(block).display.startsWith("inline")) block = block.parentElement;
        const beside = block.textContent.trim().length > link.textContent.trim().length;
        look.push(getComputedStyle(link).textDecorationLine, getComputedStyle(block).color, beside);
      }}
      const key = String(look.filter((value) => !["rgba(0, 0, 0, 0)", "none", "1"].includes(value)));
      if (!looks.has(key)) looks.set(key, link ?? element);
    }}
    return axe.run([...looks.values()], options);
  }});
  return [looks.size, found];
}}"""
"""axe-core on one text of each look: what a contrast depends on is the same for all of a look, and it is slow."""


def contrast(tab: Tab) -> tuple[int, dict[str, list[str]]]:
    """How many looks the page's texts have, and which are hard to read."""
    looks, found = tab.evaluate(CONTRAST, {"runOnly": STANDS_OUT} | LEAN)
    return looks, found


@pytest.mark.browser
@pytest.mark.parametrize("mode", ["light", "dark"])
def test_every_text_stands_out(tab: Tab, mode: Literal["light", "dark"]) -> None:
    tab.set_viewport_size({"width": 1280, "height": 900})
    tab.emulate_media(color_scheme=mode)
    tab.wait_for_function("mode => document.documentElement.dataset.theme === mode", arg=mode)
    looks, found = contrast(tab)
    assert looks > 10
    assert found == {}


@pytest.mark.browser
def test_one_text_that_does_not_stand_out_is_found(opened: Callable[..., AbstractContextManager[Tab]]) -> None:
    """Among hundreds that do: a cell in the middle of a table, and links that look almost as the text around them."""
    from axe_playwright_python.base import AXE_SCRIPT

    with opened("notebooks/03_optimizers") as tab:
        tab.evaluate(f"{AXE_SCRIPT}; null")
        tab.add_style_tag(content="table.opd tr:nth-child(7) > td:nth-child(3) { opacity: 0.4 !important }")
        tab.add_style_tag(content="article p > a.internal { color: #555 !important; text-decoration: none !important }")
        found = contrast(tab)[1]
        assert "<td" in str(found["color-contrast"])
        assert "<a" in str(found["link-in-text-block"])


@pytest.mark.browser
def test_it_is_no_longer_than_it_may_be(tab: Tab) -> None:
    """At 1280 pixels: 4,000 for the front page, 12,000 for a finding, whose box begins on the first screen."""
    tab.set_viewport_size({"width": 1280, "height": 900})
    name = urlsplit(tab.url).path.rpartition("/_build/html/")[2]
    most = {"book/index.html": 4000}.get(name, 12_000 if name.startswith("notebooks/") else None)
    height = tab.evaluate("document.documentElement.scrollHeight")
    assert most is None or height <= most, height
    boxes = tab.locator("dl.finding").all()
    assert all(box.evaluate("box => box.getBoundingClientRect().top + scrollY") < 600 for box in boxes)


BROKEN = r"""() => [...document.querySelectorAll('table.opd tbody :is(td, th)')].filter((cell) => {
  const text = cell.textContent.trim();
  if (!/^(< ?)?[^\s/:]*\d[^\s/:]*$/.test(text.replace("\u00a0", " "))) return false;
  const range = document.createRange();
  range.selectNodeContents(cell);
  const lines = new Set([...range.getClientRects()].filter((r) => r.width > 1).map((r) => Math.round(r.bottom / 8)));
  return lines.size > 1;
}).map((cell) => cell.textContent)"""
"""Cells of tables that hold one number, or one name with a number in it, in more than one line."""


@pytest.mark.browser
def test_a_phone_shows_it_whole(tab: Tab) -> None:
    """390 pixels: nothing but a table moves sideways, no number is broken, and text in figures has 11 pixels."""
    tab.set_viewport_size({"width": 390, "height": 844})
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    assert tab.evaluate(BROKEN) == []
    for picture in tab.locator("article img[src$='.svg']").all():
        width = picture.evaluate("image => image.getBoundingClientRect().width")
        file = Path(unquote(urlsplit(str(picture.evaluate("image => image.src"))).path))
        assert smallest_text(file.read_text(encoding="utf8"), width) >= 11, file.name


def smallest_text(svg: str, width: float) -> float:
    """The height in pixels of the smallest text of a figure that is shown `width` pixels wide."""
    box = re.search(r'viewBox="0 0 ([\d.]+) ', svg)
    assert box is not None
    sizes = [float(size) for size in re.findall(r"font(?:-size)?: ([\d.]+)px", svg)]
    return min(sizes, default=99.0) * width / float(box[1])


@pytest.mark.browser
@pytest.mark.parametrize("name", PAGES)
def test_it_reads_without_scripts(opened: Callable[..., AbstractContextManager[Tab]], name: str) -> None:
    with opened(name, java_script_enabled=False) as tab:
        assert len(tab.locator("article").inner_text()) > 500
        assert tab.locator("article h1").first.is_visible()


@pytest.mark.browser
def test_search_finds_what_people_wrote_first(opened: Callable[..., AbstractContextManager[Tab]]) -> None:
    with opened("search") as tab:
        for word in ("sparsity", "coverage", "rank"):
            tab.goto(f"{tab.url.partition('?')[0]}?q={word}")
            tab.locator("#search-results li").first.wait_for()
            tab.wait_for_timeout(500)
            pages = [link.get_attribute("href") or "" for link in tab.locator("#search-results li > a").all()]
            assert pages[0].startswith(("book/", "notebooks/"))
            assert not pages[0].startswith("book/api"), pages[:5]


@pytest.mark.browser
def test_a_digest_to_print(build: tuple[Path, str], tmp_path: Path) -> None:
    command = [sys.executable, "book/printed.py", "digest", str(build[0]), str(tmp_path / "digest.pdf")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    count = re.search(r"digest\.pdf: (\d+) pages", done.stdout)
    assert count is not None
    assert 1 <= int(count[1]) <= 12
