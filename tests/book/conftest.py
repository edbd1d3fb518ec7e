"""The built book, once for all tests that look at it."""

from __future__ import annotations

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

from opdlib.files import locked
from tests.conftest import ROOT

TOC = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf8"))
PAGES = [TOC["root"], *(chapter["file"] for part in TOC["parts"] for chapter in part["chapters"])]

LOADING = {"script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src", "audio": "src"}
"""Tag -> the attribute that makes a browser load something. Of `link`, see `loads`."""


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


@pytest.fixture(scope="session")
def build(shared: Path) -> tuple[Path, str]:
    """The folder of the HTML and what the build printed. Notebooks are taken as they are committed."""
    folder, printed = shared / "book" / "_build", shared / "book" / "printed.txt"
    with locked(folder, wait=True):
        if not printed.is_file():
            command = ["make", "-o", "install", "pages", f"BUILD={folder}", f"BIN={Path(sys.executable).parent}"]
            environment = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL")}
            done = subprocess.run(
                command,
                cwd=ROOT,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
            )
            warnings = [line for line in done.stdout.splitlines() if re.search("WARNING|ERROR", line)]
            assert done.returncode == 0, warnings or done.stdout[-4000:]
            printed.write_text(done.stdout, encoding="utf8")
    return folder / "html", printed.read_text(encoding="utf8")


@pytest.fixture(scope="session")
def page(build: tuple[Path, str]) -> Callable[[str], Page]:
    pages = {name: Page(build[0] / f"{name}.html") for name in PAGES}
    return pages.__getitem__
