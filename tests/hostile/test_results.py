"""Results, shards, run folders, tables and pages that somebody else wrote, under seals that are right."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from opdlib.cli.main import main
from opdlib.registry.study import find_scale
from opdlib.report import page
from opdlib.report.content import digest
from opdlib.results import layout
from opdlib.results.collect import collect
from tests.conftest import reseal
from tests.hostile import made
from tests.hostile.conftest import Run
from tests.hostile.made import DEEP, LONG_NUMBER
from tests.results.test_collect import write_run

Change = Callable[[Path], object]
"""Takes a folder, and makes it hostile."""


@pytest.fixture(scope="module")
def good(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results, shards, a run folder with its tables, and a page."""
    folder = tmp_path_factory.mktemp("good")
    sides = ["--source", str(place / "S"), "--trained", str(place / "T")]
    assert main(["measure", *sides, "--out", str(folder / "results")]) == 0
    for number in (1, 2):
        shard = ["--out", str(folder / "shards" / str(number)), "--shard", f"{number}/2", "--only", "sparsity"]
        assert main(["measure", *sides, *shard]) == 0
    write_run(folder / "runs" / "train", "opd", 0)
    collect(find_scale("pico"), folder / "tables", folder / "runs" / "train")
    with pytest.MonkeyPatch.context() as here:
        here.setattr("opdlib.report.make.planned", lambda *_: {})
        assert main(["report", str(folder / "results"), "-o", str(folder / "page.html")]) == 0
    return folder


def keys(file: str, **changed: Any) -> Change:
    """Other values in a JSON file, and a seal over it."""

    def change(folder: Path) -> None:
        (folder / file).write_text(made.with_json(folder / file, **changed))
        if (folder / layout.PROVENANCE).is_file():
            reseal(folder)

    return change


def text(file: str, content: str | Callable[[str], str]) -> Change:
    """Another text, or one made of the old one, and a seal over it where there are results."""

    def change(folder: Path) -> None:
        said = content if isinstance(content, str) else content((folder / file).read_text())
        (folder / file).write_text(said)
        if (folder / layout.PROVENANCE).is_file():
            reseal(folder)

    return change


def pipe(file: str) -> Change:
    def change(folder: Path) -> None:
        (folder / file).unlink()
        os.mkfifo(folder / file)

    return change


def provenance(**changed: Any) -> Change:
    """A provenance with other values; None leaves one out."""

    def change(folder: Path) -> None:
        known = json.loads((folder / layout.PROVENANCE).read_text()) | changed
        known = {key: value for key, value in known.items() if value is not None}
        contents = {path.name: path.read_bytes() for path in folder.iterdir()}
        (folder / layout.PROVENANCE).write_text(layout.sealed(known, contents))

    return change


def knows_zero(folder: Path) -> None:
    """The digest of a device without an end."""
    contents = {path.name: path.read_bytes() for path in folder.iterdir()}
    known = json.loads((folder / layout.PROVENANCE).read_text())
    (folder / layout.PROVENANCE).write_text(layout.sealed(known, contents | {"/dev/zero": b""}))


def content(change: Callable[[dict[str, Any]], object]) -> Change:
    """Other numbers in a page, under their right digest."""

    def of(folder: Path) -> None:
        whole = (folder / "page.html").read_text()
        found = page.DATA.search(whole)
        assert found is not None
        numbers = json.loads(found[2])
        changed = change(numbers)
        data = changed if isinstance(changed, str) else json.dumps(numbers)
        (folder / "page.html").write_text(whole.replace(found[1], digest(data)).replace(found[2], data))

    return of


SUMMARY: dict[str, tuple[Change, str]] = {
    "a pipe for a summary": (pipe("summary.json"), "no summary.json"),
    "a pipe for a table": (pipe("curve.csv"), "is no regular file"),
    "a pipe for a provenance": (pipe("provenance.json"), "is no regular file"),
    "a digest of /dev/zero": (knows_zero, "names '/dev/zero', which is no file beside it"),
    "no name": (keys("summary.json", pair=5), "pair"),
    "layers of numbers": (keys("summary.json", layers=[5]), "layers"),
    "words for a number": (keys("summary.json", rel_norm="x"), "rel_norm"),
    "words deep within": (keys("summary.json", blocks={"mlp": {"rel_norm": "x"}}), "blocks"),
    "NaN": (keys("summary.json", rel_norm=float("nan")), "rel_norm"),
    "a verdict that is none": (keys("summary.json", explained={"visibility": {"changed": 5}}), "explained"),
    "no identity": (provenance(identity=None), "identity"),
    "a source without a spec": (provenance(source={}), "source.spec"),
}
REPORT: dict[str, tuple[Change, str]] = {
    "blocks without a share": (keys("summary.json", blocks={"mlp": {"rel_norm": 1.0}}), "blocks.mlp"),
    "nothing compared": (keys("summary.json", exact_zero=None), "exact_zero"),
    "a row too long": (text("tensors.csv", lambda old: f"{old}{'a,' * 50}\n"), "tensors.csv"),
    "a row too short": (text("tensors.csv", lambda old: f"{old}a,b\n"), "has an empty cell in its column block"),
    "no column": (text("tensors.csv", lambda old: old.replace("energy", "x")), "has no column energy"),
    "words in a column": (text("tensors.csv", lambda old: old.replace(",640,", ",many,")), "has words in its column"),
    "an empty table": (text("geometry.csv", ""), "geometry.csv"),
}
MERGE: dict[str, tuple[Change, str]] = {
    "half a shard": (text("shard.json", lambda old: old[: len(old) // 2]), "not readable as JSON"),
    "a deep shard": (text("shard.json", DEEP), "not readable as JSON"),
    "a list": (text("shard.json", "[]"), "wanted a JSON object"),
    "no source": (text("shard.json", "{}"), "shard.json"),
    "a number for a name": (keys("shard.json", skip=[5]), "skip.0"),
}
VERIFY: dict[str, tuple[Change, str]] = {
    "a list": (content(lambda _: "[]"), "no report's"),
    "a deep list": (content(lambda _: DEEP), "no report's"),
    "no pairs": (content(lambda page: page.pop("pairs")), "pairs"),
    "pairs that it does not show": (
        content(lambda page: page.update(pairs=page["pairs"] * 100)),
        "it shows 1 pairs and has numbers of 100",
    ),
    "a pair of nothing": (content(lambda page: page.update(pairs=[{}])), "pairs.0"),
    "no provenance": (content(lambda page: page["pairs"][0].pop("provenance")), "provenance"),
    "a table of words": (content(lambda page: page["pairs"][0]["largest"][0].update(rel_norm="x")), "rel_norm"),
    "no pictures": (content(lambda page: page.pop("pictures")), "pictures"),
}
COLLECT: dict[str, tuple[Change, str]] = {
    f"{file} {said}": (change(file), file)
    for file in ("evaluation.json", "complete.json", "metrics.jsonl")
    for said, change in {
        "is empty": lambda file: text(file, "" if file != "metrics.jsonl" else "\n"),
        "has no keys": lambda file: text(file, "{}\n"),
        "is deep": lambda file: text(file, f"{DEEP}\n"),
        "is a pipe": pipe,
    }.items()
    if (file, said) != ("complete.json", "is a pipe")  # a run that is not complete is left out
} | {
    "a step in words": (text("metrics.jsonl", '{"step": "x"}\n'), "step"),
    "a probe of no step": (text("probes.jsonl", '{"step": 99}\n'), "no step 99 in metrics.jsonl"),
    "a step without a number": (
        lambda folder: (folder / "results" / "steps" / "2").rename(folder / "results" / "steps" / "x"),
        "steps/x: its name is no step",
    ),
    "no environment": (keys("environment.json", resumed=5), "environment.json"),
}
TABLE: dict[str, tuple[Change, str]] = {
    "an empty table": (text("runs.csv", ""), "wanted one"),
    "a row too short": (text("runs.csv", lambda old: f"{old}a,b\n"), "row 4 is no row"),
    "a seed in words": (text("runs.csv", lambda old: old.replace("opd,0,", "opd,x,")), "row 2 is no row"),
    "a seed of 5,000 digits": (
        text("runs.csv", lambda old: old.replace("opd,0,", f"opd,{LONG_NUMBER},")),
        "row 2 is no row",
    ),
    "no arms": (text("runs.csv", lambda old: old.replace("arm,", "a,", 1)), "0 columns 'arm', wanted one"),
    "words for a number": (text("runs.csv", lambda old: old.replace("0.30000000000000004", "x")), "runs.csv"),
    "a pipe": (pipe("runs.csv"), "is no regular file"),
}
ALL = {
    "results": (SUMMARY, ("summary", "results", "--json")),
    "results, drawn": (REPORT, ("report", "results", "-o", "r.html")),
    "shards": (MERGE, ("merge", "shards/1", "shards/2", "-o", "merged")),
    "page": (VERIFY, ("verify", "page.html")),
    "run": (COLLECT, ("study", "pico", "--collect", "--out", "new")),
    "tables": (TABLE, ("study", "pico", "--list", "--out", "tables")),
}
WHERE = {"results": "results", "results, drawn": "results", "shards": "shards/1", "page": ".", "tables": "tables/pico"}


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, (cases, _) in ALL.items() for name in cases])
def test_what_is_sealed_is_not_believed(
    good: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, name: str
) -> None:
    cases, words = ALL[kind]
    change, said = cases[name]
    shutil.copytree(good, tmp_path / "copy")
    change(tmp_path / "copy" / WHERE.get(kind, "runs/train/pico-opd-s0"))
    monkeypatch.chdir(tmp_path / "copy")
    before = {*Path().rglob("*")}
    code, out, error = run(*words)
    assert (code, out) == (2, ""), error
    assert said in error
    assert error.count("\n") == 1
    assert {path for path in {*Path().rglob("*")} - before if not {"new", ".merged.ledger"} & {*path.parts}} == set()
