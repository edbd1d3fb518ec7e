"""What makes the pages a publication, as an extension of Sphinx: descriptions, a footer that says how to cite, and on
every page of results a line that leads to the paper and to its tables; words that lead to the glossary, literature that
is called alike in text and list, small bars of numbers that a page stored, and formulas without a network.

The Makefile says which commit is built, and when it was made, in OPDLIB_COMMIT and OPDLIB_DATE.
"""

import ast
import os
import re
from collections.abc import Iterable, Iterator
from html import escape
from importlib.metadata import distribution
from pathlib import Path
from shutil import copyfile
from typing import Any, ClassVar

import nbformat
import yaml
from docutils import nodes
from pybtex.database import Entry
from pybtex.plugin import register_plugin
from pybtex.style.formatting.plain import Style as PlainStyle
from pybtex.style.labels import BaseLabelStyle
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.util.docutils import SphinxDirective

ROOT = Path(__file__).parents[1]
PAPER = "https://arxiv.org/abs/2606.13657"

TABLES = {
    "01_sparsity": ("Tables 2 and 8", ("table2_global", "table8_sparsity")),
    "02_layers": ("Table 3 of both versions", ("table3_v1_energy_share", "table3_v2_block_rel_norm")),
    "03_optimizers": ("Figure 3b", ("figure3b_optimizers",)),
    "04_rank": ("Table 9", ("table9_spectrum",)),
    "05_subspace": ("Tables 9 and 10", ("table9_spectrum", "table10_coverage")),
    "06_subnetwork": ("Table 4 and Figure 3a", ("table4_overlap", "figure3a_masked_training")),
    "07_matched": ("Tables 2, 8 and 10", ("table2_global", "table8_sparsity", "table10_coverage")),
    "08_nulls": ("Tables 8 and 10", ("table8_sparsity", "table10_coverage")),
    "09_surgery": ("Table 9", ("table9_spectrum",)),
    "10_trajectory": ("Table 2", ("table2_global",)),
}
"""Notebook -> where the paper has its numbers, and the files of data/paper that hold them."""
CARD = "Share of weights that stay as they were, against the threshold below which a change does not count."
"""What is seen in _static/card.png, the picture that a link to a page shows."""
FORMULAS = "vendor/mathjax"
"""Where the pages have what sets formulas; in `_static` every script would be loaded by every page."""
SCRIPT = "tex-chtml-full.js"
"""The build of MathJax that holds every extension of TeX; its fonts are the only other files that it loads."""
GLOSSARY = "book/glossary"
LONGEST = 200
"""Characters of a page's description."""


def cite(app: Sphinx, document: nodes.document) -> None:
    """Below the title of a page of results: where the paper has these numbers, and the files that hold them."""
    folder, _, name = app.env.docname.partition("/")
    title = next(document.findall(nodes.title), None)
    if folder != "notebooks" or name not in TABLES or title is None:
        return
    where, files = TABLES[name]
    place = f"{app.config.html_theme_options['repository_url']}/blob/main/data/paper"
    line = nodes.paragraph("", "", nodes.Text("The paper: "), classes=["opd-source"])
    line += nodes.reference("", f"arXiv 2606.13657, {where}", refuri=PAPER)
    line += nodes.Text("; its numbers: ")
    for number, file in enumerate(files):
        line += [nodes.Text(", ")] * bool(number) + [nodes.reference("", f"{file}.csv", refuri=f"{place}/{file}.csv")]
    title.parent.insert(title.parent.index(title) + 1, line)


def keep_words(_: Sphinx, document: nodes.document) -> None:
    """In tables of numbers no line ends inside a name like adamw-3e-6, or between a sign and its number."""
    for table in document.findall(nodes.raw):
        html = table.astext()
        if 'class="dataframe opd"' in html:
            html = re.sub(r"(?<=>)[^<>]*-[^<>]*(?=</t[hd]>)", _unbroken, html).replace("&lt; ", "&lt;&nbsp;")
            table[:] = [nodes.Text(html)]


def explain(app: Sphinx, document: nodes.document, page: str) -> None:
    """The first use of each word of the glossary in the prose of a page leads to its meaning, and shows it on hover."""
    if page == GLOSSARY or GLOSSARY not in app.env.found_docs:
        return
    words = _glossary(app)
    for text in [*document.findall(nodes.Text)]:
        if not isinstance(text.parent, nodes.paragraph) or isinstance(text.parent.parent, nodes.entry):
            continue
        known = "|".join(map(re.escape, sorted(words, key=len, reverse=True)))  # the longest name that fits
        found = re.search(rf"(?<![\w-])({known})s?(?![\w-])", text.astext()) if known else None
        if found is None:
            continue
        anchor, meaning = words.pop(found[1])
        address = f"{app.builder.get_relative_uri(page, GLOSSARY)}#{anchor}"
        link = nodes.reference("", found[0], refuri=address, reftitle=meaning, internal=True, classes=["opd-term"])
        before, after = text.astext()[: found.start()], text.astext()[found.end() :]
        text.parent.replace(text, [nodes.Text(before), link, nodes.Text(after)])


class Bars(SphinxDirective):
    """A small picture of shares: a line is `label: notebook key format`, of a number that the notebook glued. Option
    `of`: the share that is a whole bar; 1 if nothing is said."""

    has_content = True
    option_spec: ClassVar = {"of": float}

    def run(self) -> list[nodes.Node]:
        whole, rows = self.options.get("of", 1.0), []
        for line in self.content:
            label, _, source = line.rpartition(": ")
            notebook, key, written = source.split()
            share = _glued(Path(self.env.srcdir) / "notebooks" / f"{notebook}.ipynb", key)
            rows.append(f"<dt>{escape(label)}</dt>")
            rows.append(f'<dd><i style="--share: {share / whole:.4f}"></i><b>{share:{written}}</b></dd>')
        return [nodes.raw("", f'<dl class="opd-bars">{"".join(rows)}</dl>', format="html")]


def _glued(notebook: Path, key: str) -> float:
    for cell in nbformat.read(notebook, as_version=4).cells:
        for output in cell.get("outputs", []):
            if output.get("metadata", {}).get("scrapbook", {}).get("name") == key:
                return float(ast.literal_eval(output.data["application/papermill.record/text/plain"]))
    raise ValueError(f"{notebook.name}: no number is glued as {key!r}")


def _glossary(app: Sphinx) -> dict[str, tuple[str, str]]:
    """Word -> the place of its meaning on the page of the glossary, and that meaning."""
    items = app.env.get_doctree(GLOSSARY).findall(nodes.definition_list_item)
    terms = [(item.next_node(nodes.term), item.next_node(nodes.definition)) for item in items]
    return {term.astext(): (term["ids"][0], " ".join(said.astext().split())) for term, said in terms}


class AuthorYear(BaseLabelStyle):
    """The label of an entry as the text cites it: Yu et al., 2026."""

    def format_labels(self, entries: Iterable[Entry]) -> Iterator[str]:
        for entry in entries:
            names = [
                " ".join(map(str, [*person.rich_prelast_names, *person.rich_last_names]))
                for person in entry.persons["author"]
            ]
            yield f"{f'{names[0]} et al.' if len(names) > 2 else ' and '.join(names)}, {entry.fields['year']}"


class Bibliography(PlainStyle):
    """A list of literature whose labels are those of the text."""

    default_label_style = AuthorYear


def _unbroken(found: re.Match[str]) -> str:
    words = (f'<span class="opd-word">{word}</span>' if "-" in word else word for word in found[0].split(" "))
    return " ".join(words)


def describe(app: Sphinx, page: str, _: str, context: dict[str, Any], document: nodes.document | None) -> None:
    """Into the head of a page: its first paragraph as the description, and the picture that a link to it shows. What
    sets formulas is loaded where there are some."""
    if document is None:
        return
    if not app.env.domaindata["math"]["has_equations"].get(page):  # Sphinx asks the pages below the index, too
        context["script_files"] = [f for f in context["script_files"] if "mathjax" not in str(f.filename)]
    paragraphs = (p for p in document.findall(nodes.paragraph) if "opd-source" not in p["classes"])
    text = " ".join(next((p.astext() for p in paragraphs), app.config.html_title).split())
    if len(text) > LONGEST:
        text = f"{text[:LONGEST].rsplit(' ', 1)[0]} ..."
    base = app.config.html_baseurl
    title = next((t.astext() for t in document.findall(nodes.title)), app.config.html_title)
    graph = {"type": "article", "title": title, "description": text, "site_name": app.config.html_title}
    graph |= {"url": f"{base}{page}.html", "image": f"{base}_static/card.png", "image:alt": CARD}
    named = {"description": text, "twitter:card": "summary_large_image"}
    tags = [f'<meta name="{name}" content="{escape(value)}">' for name, value in named.items()]
    tags += [f'<meta property="og:{name}" content="{escape(value)}">' for name, value in graph.items()]
    context["metatags"] = "\n".join([context.get("metatags", ""), *tags])


def formulas(app: Sphinx, failed: Exception | None) -> None:
    """Into the built pages: the script that sets formulas, and its fonts, of the package that ships them, so that a
    page asks nobody for them. MathJax has the licence of this project."""
    if failed is None and app.builder.format == "html":
        package = distribution("sphinx-mathjax-offline")
        files = [file for file in package.files or () if file.name == SCRIPT or file.match("chtml/fonts/woff-v2/*")]
        for file in files:
            place = Path(app.outdir, FORMULAS, *file.parts[file.parts.index("mathjax") + 1 :])
            place.parent.mkdir(parents=True, exist_ok=True)
            copyfile(file.locate(), place)
        copyfile(ROOT / "LICENSE", Path(app.outdir, FORMULAS, "LICENSE"))


def footer(_: Sphinx, config: Config) -> None:
    """Commit, date, licence, and the citation, which is that of CITATION.cff."""
    cff = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf8"))
    commit, date = os.environ.get("OPDLIB_COMMIT", ""), os.environ.get("OPDLIB_DATE", "")
    fields = {
        "author": " and ".join(f"{{{author['name']}}}" for author in cff["authors"]),
        "title": f"{{{config.html_title}}}",
        "version": cff["version"],
        "year": date[:4],
        "url": cff["url"],
        "note": f"Commit {commit}" if commit else "",
    }
    lines = [f"  {name} = {{{value}}}," for name, value in fields.items() if value]
    entry = "\n".join([f"@misc{{{cff['title']},", *lines, "}"])
    where = config.html_theme_options["repository_url"]
    built = f'Built from commit <a href="{where}/commit/{commit}">{commit}</a>, {date}. ' if commit else ""
    config.html_theme_options["extra_footer"] = (
        f'<p>{built}Licence: <a href="{where}/blob/main/LICENSE">{cff["license"]}</a>.</p>'
        '<details class="opd-cite"><summary>How to cite</summary>'
        f'<div class="highlight"><pre>{escape(entry)}</pre></div></details>'
    )


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.add_directive("bars", Bars)
    register_plugin("pybtex.style.formatting", "author_year", Bibliography)
    app.connect("config-inited", footer, priority=900)
    app.connect("doctree-read", cite)
    app.connect("doctree-read", keep_words)
    app.connect("doctree-resolved", explain)
    app.connect("html-page-context", describe, priority=900)
    app.connect("build-finished", formulas)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
