"""The report: made of results alone, true for any pair, and refused once anything in it was changed."""

import ast
import base64
import json
import re
import shutil
from pathlib import Path

import pytest
import torch

from opdlib.checkpoints import open_checkpoint
from opdlib.quantities import written
from opdlib.report import findings, make, page
from opdlib.report.content import content_of
from opdlib.report.verify import read
from opdlib.results.measure import Order, measure_into, measure_together, scales_of
from tests.cli.test_cli import complains
from tests.conftest import ROOT, Command, moved, pico_weights, write_checkpoint
from tests.tables.results_of import results_of

pytestmark = [pytest.mark.usefixtures("without_a_screen"), pytest.mark.slow]

STEPS = (10, 20)
OURS = {"no layers", "low only"}
"""Cases that no notebook has, because its pair cannot come into them."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a source, a training of two checkpoints, the results of both, and a report of each kind."""
    from opdlib.cli.main import main

    folder, source = tmp_path_factory.mktemp("report"), pico_weights()
    write_checkpoint(folder / "source", source)
    for step in STEPS:
        write_checkpoint(folder / "run" / f"checkpoint-{step}", moved(source, scale=2e-5 * step))
    words = ["--source", str(folder / "source"), "--trained", str(folder / "run"), "--out", str(folder / "results")]
    with pytest.MonkeyPatch.context() as here:
        here.setenv("OPDLIB_CACHE", str(folder / "cache"))
        assert main(["measure", *words]) == 0
        one = ["report", str(folder / "source"), str(folder / "run" / "checkpoint-20"), "-o", str(folder / "one.html")]
        assert main([*one, "--name", "A & <b>", "--regime", "OPD"]) == 0
        assert main(["report", str(folder / "results"), "-o", str(folder / "two.html")]) == 0
    return folder


def html(file: Path) -> str:
    return file.read_text(encoding="utf8")


def embedded(file: Path) -> dict:  # type: ignore[type-arg]
    found = page.DATA.search(html(file))
    assert found is not None
    return json.loads(found[2])


def test_one_file_that_asks_for_nothing(made: Path) -> None:
    for file in (made / "one.html", made / "two.html"):
        text = html(file)
        assert len(text.encode()) < 5_000_000
        outside = re.findall(r'(?:src|href|url)\s*[=(]\s*["\']?([^"\'\s>)]+)', text)
        assert {where.split(":")[0] for where in outside if not where.startswith(("#", "data:"))} == {"https"}
        assert not re.search(
            r'<(?:script|link|iframe|object|embed)\b[^>]*(?:src|href)=|@import|<img[^>]*src="(?!data:)', text
        )
        assert text.count("<img ") == text.count('alt="') > 5


def test_its_numbers_are_those_of_the_summary(opd: Command, made: Path) -> None:
    summary = json.loads(opd("summary", made / "results" / "checkpoint-20", "--json").stdout)
    content = embedded(made / "two.html")
    assert content["pairs"][1]["summary"] == summary
    shown = " ".join(page.text_of(html(made / "two.html")))
    for key in ("stable_rank", "kappa"):
        assert written(key, summary[key]) in shown
    assert f"{summary['exact_zero']:.1%} of the weights are bit-equal" in shown
    assert [entry["step"] for entry in content["pairs"]] == [*STEPS]
    assert 'id="steps"' in html(made / "two.html"), "a training is drawn by its steps"
    assert "paper: DS-Qwen OPD" in shown


def test_what_a_reader_must_know_stands_before_the_numbers(tmp_path: Path) -> None:
    source = pico_weights()
    trained, embedding = moved(source), "model.embed_tokens.weight"
    results = results_of(tmp_path, source, trained | {embedding: torch.cat([trained[embedding]] * 2)})
    entry = content_of([results])["pairs"][0]
    said = {side: {"spec": "x.gguf", "format": kind} for side, kind in (("source", "GGUF"), ("trained", "dequantized"))}
    shown = "\n".join(findings.warnings(entry | {"provenance": entry["provenance"] | said}))
    assert "the first 40 are compared" in shown
    assert "trained checkpoint was dequantized" in shown
    assert "source checkpoint was dequantized" not in shown


def test_code_in_a_sentence_is_code(made: Path) -> None:
    assert "(<code>opd measure --nulls draws</code>)" in html(made / "one.html")


def test_names_are_text_and_never_html(made: Path) -> None:
    text = html(made / "one.html")
    assert "A &amp; &lt;b&gt;" in text
    assert "<b>" in text.replace("A &amp; &lt;b&gt;", "")
    assert "A & <b>" not in text
    assert "(OPD)" in text


def test_the_same_results_give_the_same_page_with_files_beside_it(
    opd: Command, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = make.planned
    monkeypatch.setattr(make, "planned", lambda *given: {n: d for n, d in known(*given).items() if n.endswith("low")})
    words = "report", made / "results", "-o", tmp_path / "x.html"
    done = opd(*words, "--figures", "pdf", tmp_path / "figures", "--tables", "tex", tmp_path / "tables", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["pairs"] == ["checkpoint-10", "checkpoint-20"]
    assert {Path(file).name for file in told["files"]} >= {"x.html", "low.pdf", "checkpoint-20-numbers.tex"}
    largest = (tmp_path / "tables" / "checkpoint-10-largest.tex").read_text()
    assert r"\toprule" in largest
    assert r"model.embed\_tokens.weight" in largest
    assert opd(*words, "--tables", "csv", tmp_path / "tables").returncode == 0
    assert "rel_norm" in (tmp_path / "tables" / "checkpoint-10-numbers.csv").read_text()
    once, twice = embedded(tmp_path / "x.html"), embedded(made / "two.html")
    assert once["pairs"] == twice["pairs"]
    assert once["pictures"]["low"] == twice["pictures"]["low"], "to the bytes"


def test_verify_measures_again_and_agrees(opd: Command, made: Path) -> None:
    for file in (made / "one.html", made / "two.html"):
        done = opd("verify", file)
        assert (done.returncode, done.stderr) == (0, "")
        assert "every number" in done.stdout


def changed(file: Path, to: Path, what: str, by: str, last: bool = False) -> Path:
    text = html(file)
    place = text.rindex(what) if last else text.index(what)
    to.write_text(text[:place] + by + text[place + len(what) :], encoding="utf8")
    return to


def test_verify_refuses_what_was_changed(opd: Command, made: Path, tmp_path: Path) -> None:
    file, to = made / "one.html", tmp_path / "changed.html"
    summary = embedded(file)["pairs"][0]["summary"]
    rank = written("stable_rank", summary["stable_rank"])
    other = rank[:-1] + str((int(rank[-1]) + 1) % 10)
    complains(opd("verify", changed(file, to, f">{rank}<", f">{other}<")), f"'{other}'", f"'{rank}'")
    share = f"{summary['exact_zero']:.1%}"
    complains(opd("verify", changed(file, to, share, f"{(summary['exact_zero'] + 0.01):.1%}")), "it shows")
    complains(opd("verify", changed(file, to, '"exact_zero":0.', '"exact_zero":0.9')), "embedded")
    complains(opd("verify", changed(file, to, "max-width: 60rem", "max-width: 61rem")), "page was changed")
    figure = page.PICTURE.search(html(file))
    assert figure is not None
    drawn = base64.b64decode(figure[3]).replace(b"100", b"200", 1)
    complains(opd("verify", changed(file, to, figure[3], base64.b64encode(drawn).decode())), "figure", figure[1])
    complains(opd("verify", made / "source" / "model.safetensors"), "opd report wrote")
    complains(opd("verify", tmp_path / "nowhere.html"), "no such file")


def forged(file: Path, to: Path) -> Path:
    """The page that opd itself would write of one other number, digests and all."""
    content = embedded(file)
    kept = content.pop("pictures")
    found = {name: (kind, base64.b64decode(data)) for name, kind, data in page.PICTURE.findall(html(file))}
    content["pairs"][0]["summary"]["stable_rank"] *= 1.001
    pictures = {name: (kind, found[name][1], alt) for name, (kind, _, alt) in kept.items()}
    to.write_text(page.render(content, pictures), encoding="utf8")
    return to


def test_verify_names_the_first_number_that_differs(opd: Command, made: Path, tmp_path: Path) -> None:
    file = forged(made / "one.html", tmp_path / "forged.html")
    assert read(file)["pairs"]
    complains(opd("verify", file), "stable_rank", "measured again")
    shutil.copytree(made / "run" / "checkpoint-20", tmp_path / "kept")
    write_checkpoint(made / "run" / "checkpoint-20", moved(pico_weights(), scale=1e-3))
    try:
        complains(opd("verify", made / "one.html"), "another checkpoint now", "checkpoint-20")
    finally:
        shutil.copytree(tmp_path / "kept", made / "run" / "checkpoint-20", dirs_exist_ok=True)


def test_of_a_training_the_weights_before_rounding_are_read_again(
    opd: Command, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    masters = {name: weight.float() * 1.002 for name, weight in pico_weights().items()}
    trained = {name: weight.bfloat16() for name, weight in masters.items()}
    for name, weights in (("fp32", masters), ("bf16", trained)):
        write_checkpoint(tmp_path / name, weights)
    source, rounded = open_checkpoint(made / "source"), open_checkpoint("bf16")
    measure_into(tmp_path / "mine" / "stored", source, open_checkpoint("fp32"), name="mine", view="stored")
    order = Order("mine", rounded, folder=tmp_path / "mine", scales=scales_of(tmp_path / "mine/stored"))
    measure_together(source, [order])
    opd("report", "mine", "-o", "mine.html")
    assert embedded(tmp_path / "mine.html")["pairs"][0]["summary"]["nulls_scale"] == "fp32"
    assert "every number" in opd("verify", "mine.html").stdout
    write_checkpoint(tmp_path / "fp32", masters | {"model.norm.weight": masters["model.norm.weight"] + 1})
    complains(opd("verify", "mine.html"), "mine: fp32 has digest", "another checkpoint now")


def test_what_report_refuses(opd: Command, made: Path, tmp_path: Path) -> None:
    out = "-o", tmp_path / "x.html"
    complains(opd("report", made / "source", *out), "summary.json")
    complains(opd("report", made / "results", made / "source", *out), "result folders only")
    complains(opd("report", made / "results", *out, "--name", "one"), "1 names for 2 pairs")
    complains(opd("report", made / "results"), "--out")
    assert not (tmp_path / "x.html").exists()


def test_a_pair_that_did_not_change_and_one_without_layers(tmp_path: Path) -> None:
    weights = pico_weights()
    flat = {"w": weights["model.embed_tokens.weight"], "b": weights["model.norm.weight"]}
    for before, after, said in (
        (weights, weights, "nothing changed"),
        (flat, {name: w + 0.01 for name, w in flat.items()}, "belongs to a layer"),
    ):
        results = results_of(tmp_path / said, before, after)
        shown = " ".join(page.text_of(page.render(content_of([results]), {})))
        assert said in shown
        assert not re.search(r"\bnan\b|None", shown)


def constants(notebook: str) -> set[str]:
    cells = json.loads((ROOT / "notebooks" / f"{notebook}.ipynb").read_text(encoding="utf8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    walked = (node for text in code for node in ast.walk(ast.parse(text)))
    return {node.value for node in walked if isinstance(node, ast.Constant) and isinstance(node.value, str)}


@pytest.mark.parametrize("finding", findings.FINDINGS)
def test_the_box_has_the_sentences_of_its_notebook(finding: str) -> None:
    own = findings.sentences()[finding]
    known = constants(own["page"])
    said = {"paper": own["paper"]}
    said |= {case: line for part in ("here", "control", "sure") for case, line in own[part].items() if case not in OURS}
    for case, line in said.items():
        assert line in known or any(line == a + b for a in known for b in known if line.startswith(a)), (case, line)
