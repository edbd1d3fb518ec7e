"""The built book in a browser: who can read it, on what screen, and how long it is."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import unquote, urlsplit

import pytest

from tests.book.conftest import PAGES
from tests.conftest import ROOT

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext
    from playwright.sync_api import Page as Tab

pytestmark = [pytest.mark.browser, pytest.mark.slow]

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


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_every_text_stands_out(tab: Tab, mode: Literal["light", "dark"]) -> None:
    tab.set_viewport_size({"width": 1280, "height": 900})
    tab.emulate_media(color_scheme=mode)
    tab.wait_for_function("mode => document.documentElement.dataset.theme === mode", arg=mode)
    looks, found = contrast(tab)
    assert looks > 10
    assert found == {}


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


@pytest.mark.parametrize("name", PAGES)
def test_it_reads_without_scripts(opened: Callable[..., AbstractContextManager[Tab]], name: str) -> None:
    with opened(name, java_script_enabled=False) as tab:
        assert len(tab.locator("article").inner_text()) > 500
        assert tab.locator("article h1").first.is_visible()


def test_search_finds_what_people_wrote_first(opened: Callable[..., AbstractContextManager[Tab]]) -> None:
    with opened("search") as tab:
        for word in ("sparsity", "coverage", "rank"):
            tab.goto(f"{tab.url.partition('?')[0]}?q={word}")
            tab.locator("#search-results li").first.wait_for()
            tab.wait_for_timeout(500)
            pages = [link.get_attribute("href") or "" for link in tab.locator("#search-results li > a").all()]
            assert pages[0].startswith(("book/", "notebooks/"))
            assert not pages[0].startswith("book/api"), pages[:5]


def test_a_digest_to_print(build: tuple[Path, str], tmp_path: Path) -> None:
    command = [sys.executable, "book/printed.py", "digest", str(build[0]), str(tmp_path / "digest.pdf")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    count = re.search(r"digest\.pdf: (\d+) pages", done.stdout)
    assert count is not None
    assert 1 <= int(count[1]) <= 12
