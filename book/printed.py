"""What headless Chromium makes of the built pages: a digest to print, and the picture that a link to the book shows.

python book/printed.py digest HTML PDF   writes PDF, the pages of `DIGEST` below HTML, the built folder, in turn
python book/printed.py card ROOT         writes ROOT/book/_static/card.png, out of ROOT/book/images/threshold_curve.svg
"""

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import yaml

DIGEST = ("book/index", "book/essay")
"""Pages of the digest; one that is not there yet is left out."""
MOST = 12
"""Pages of paper."""
BROWSERS = ("chromium", "chromium-browser", "google-chrome")

STYLE = """
@page { size: A4; margin: 16mm 15mm; }
body { font: 10pt/1.4 sans-serif; margin: 0; }
h1 { font-size: 18pt; } h2 { font-size: 13pt; } h3 { font-size: 11pt; }
h1, h2, h3, figcaption { break-after: avoid; }
img, svg { max-width: 9cm; display: block; margin: 0 auto; }
table { border-collapse: collapse; font-size: 8pt; } th, td { padding: 0 4pt; text-align: left; vertical-align: top; }
figure, tr { break-inside: avoid; } figure { margin: 6pt 0; } figcaption { font-size: 9pt; }
.headerlink, .toggle-details__summary, button, details, .opd-part, .cell_input, .opd-source { display: none; }
article + article { break-before: page; }
a { color: inherit; }
"""
CARD = """<!doctype html><style>
body { align-items: center; background: #fff; display: flex; font-family: sans-serif; height: 630px; margin: 0; }
h1 { flex: 1; font-size: 58px; line-height: 1.15; margin: 0 20px 0 60px; } img { height: 560px; margin-right: 40px; }
</style><h1>%s</h1><img src="%s">"""


def browse(*options: str) -> None:
    """Run Chromium without a window. Raises SystemExit, with what to install, if there is none."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        raise SystemExit(f"no browser: none of {', '.join(BROWSERS)} is on the path; install Debian's chromium")
    command = [found, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{found} ended with {done.returncode}: {done.stderr[-2000:]}")


def articles(html: Path) -> str:
    """The articles of `DIGEST` as one page that lies beside them."""
    files = [html / f"{name}.html" for name in DIGEST]
    texts = [file.read_text(encoding="utf8") for file in files if file.is_file()]
    found = "".join(f"{text[text.index('<article') : text.index('</article>')]}</article>" for text in texts)
    body = re.sub(r"<script\b.*?</script>", "", found, flags=re.S)
    return f'<!doctype html><html lang="en"><meta charset="utf-8"><style>{STYLE}</style>{body}</html>'


def digest(html: Path, pdf: Path) -> None:
    """Print the digest. Raises SystemExit if it has more than `MOST` pages."""
    with tempfile.NamedTemporaryFile("w", suffix=".html", dir=html / "book", encoding="utf8") as page:
        page.write(articles(html))
        page.flush()
        browse("--no-pdf-header-footer", f"--print-to-pdf={pdf.resolve()}", f"file://{page.name}")
    count = len(re.findall(rb"/Type\s*/Page\b", pdf.read_bytes()))
    if count > MOST:
        raise SystemExit(f"{pdf}: {count} pages, wanted at most {MOST}; shorten {', '.join(DIGEST)}")
    print(f"{pdf}: {count} pages")  # noqa: T201


def card(root: Path) -> None:
    """Photograph the title beside the opening figure, 1200 x 630 pixels."""
    title = yaml.safe_load((root / "_config.yml").read_text(encoding="utf8"))["title"]
    with tempfile.NamedTemporaryFile("w", suffix=".html", dir=root / "book", encoding="utf8") as page:
        page.write(CARD % (title, "images/threshold_curve.svg"))
        page.flush()
        picture = (root / "book" / "_static" / "card.png").resolve()
        browse("--window-size=1200,630", f"--screenshot={picture}", f"file://{page.name}")


def main(arguments: Sequence[str]) -> None:
    """Run one command."""
    match arguments:
        case ["digest", html, pdf]:
            digest(Path(html).resolve(), Path(pdf))
        case ["card", root]:
            card(Path(root).resolve())
        case _:
            raise SystemExit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
