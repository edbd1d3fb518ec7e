"""What the pages need besides prose and notebooks, made from results: tables and the opening figure.

python book/prepare.py tables ROOT   writes ROOT/book/_claims.md, _pairs.md, _grid.md, _conflicts_*.md, _run.md,
                                     _patch.md, one _train_*.md a module below, one _quantities_*.md a subject of
                                     opdlib/quantities.yaml, one _modules_*.md a folder of the library
python book/prepare.py figure ROOT   writes ROOT/book/images/threshold_curve.svg, out of ROOT's executed notebook
"""

import ast
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd

import opdlib
from opdlib import claims, quantities
from opdlib.claims import verdict
from opdlib.quantities import MISSING, PARAMETERS, Quantity, families
from opdlib.registry.claims import PAPER, clauses
from opdlib.registry.pairs import DEFAULT, Pair, find_pair
from opdlib.registry.study import find_run
from opdlib.results.study import open_study
from opdlib.tables import Results, conflicts, open_results, study

TRAINING = ("arithmetic", "losses", "masks", "objectives", "probes", "run", "tasks/gym", "tasks/hub")


def claims_table(records: Sequence[dict[str, Any]]) -> str:
    """Markdown: every claim that can be tested here with both verdicts, a table a clause of the abstract."""
    own = [record for record in records if not _about_a_pair(record)]
    texts = {row["id"]: row for row in claims.listed(records).to_dict("records")}
    small = _at_another_scale(own)
    counted = Counter(record["number"] for record in own)
    said = ", ".join(f"**{counted[word]}** {word}" for word in verdict.NUMBER)
    lines = [f"Of {len(own)} claims about OPD in general, arms of the study and the paper's rows: {said}."]
    for clause, says in clauses().items():
        rows = [
            (
                f"**{record['id']}** {record['statement']}",
                _paper(record, texts[record["id"]]),
                _here(record, texts[record["id"]]),
                f"{record['number']}{small.get(record['id'], '')}",
                record["control"],
                _others(record["passes"]),
            )
            for record in own
            if record["clause"] == clause
        ]
        heads = ("Claim", "Paper, tolerance", "Here", "Number", "Control", "Who else passes")
        lines += ["", f"(clause-{clause.lower()})=", f"## {clause}: {says}", *_table("claims", heads, rows)]
    passed = [(who, f"{told} of {of}") for who, told, of in claims.passing(records).itertuples(index=False)]
    lines += ["## Who passes how many", *_table("passes", ("Who", "Claims about OPD in general"), passed)]
    return "\n".join(lines)


def pairs_table(records: Sequence[dict[str, Any]]) -> str:
    """Markdown: what the paper prints of its own pairs, and the command that would test a pair."""
    printed: dict[Pair, dict[str, str]] = {}
    texts = {row["id"]: row for row in claims.listed(records).to_dict("records")}
    for record in filter(_about_a_pair, records):
        claim = CLAIMS[record["id"]]
        leads = claim.quantity.startswith("lead.")
        if claim.pair and not record["statement"].startswith("From one source"):
            value = claim.quantity.split(".")[1] if leads else texts[record["id"]]["paper"]
            printed.setdefault(claim.pair, {})["lead" if leads else claim.quantity] = value
    columns = list(dict.fromkeys(quantity for row in printed.values() for quantity in row))
    heads = ["moves furthest for its size" if c == "lead" else quantities.label(c) for c in columns]
    rows = [
        (pair.title, *(row.get(column, MISSING) for column in columns), _test(pair)) for pair, row in printed.items()
    ]
    return "\n".join(_table("pairs", ("Pair", *heads, "What would test it"), rows))


def _paper(record: dict[str, Any], text: dict[str, str]) -> str:
    allowed = "" if text["tolerance"] == "none" else f" ± {text['tolerance']}"
    return f"{text['paper']}{allowed}<br>*{record['locator']}*"


def _here(record: dict[str, Any], text: dict[str, str]) -> str:
    claim = CLAIMS[record["id"]]
    if claim.subject == PAPER or not record["seeds"]:
        return text["ours"]
    runs = "pairs of runs" if claim.quantity == "o1" else "seeds"
    where = f", {record['scale']}" if record["scale"] else ""
    return f"{text['ours']}<br>*{runs}: {record['seeds']}{where}*"


CLAIMS = {claim.id: claim for claim in claims.load()}


def _about_a_pair(record: dict[str, Any]) -> bool:
    return CLAIMS[record["id"]].pair is not None


def _at_another_scale(records: Iterable[dict[str, Any]]) -> dict[str, str]:
    """Of claims about arms that the larger model does not test: what the small one says."""
    found = {}
    for finding in ("optimizers", "subnetwork", "matched"):
        table = claims.of_study(finding, "pico-bf16")
        for row in claims.readable(table[table["seeds"] >= study.ENOUGH]).reset_index().to_dict("records"):
            found[row["id"]] = f"<br>*pico-bf16: {row['ours']}, {row['verdict']}*"
    return {r["id"]: found[r["id"]] for r in records if r["number"] == verdict.NOT_TESTED and r["id"] in found}


SYMBOLS = {"good": "✓", "part": "◐", "bad": "✗", "open": "○"}
"""How a verdict of the grid looks -> its symbol, which stands beside the words and the colour."""


def clause_grid(records: Sequence[dict[str, Any]]) -> str:
    """Markdown: one row a clause of the abstract, failures first: how many of its tested claims have the paper's
    number, the fewest runs that one of them rests on where these are too few for a verdict, what is left under control,
    and how many of them noise and others pass, too."""
    rows = []
    for clause, says in clauses().items():
        own = [record for record in records if record["clause"] == clause and not _about_a_pair(record)]
        tested = [record for record in own if record["number"] != verdict.NOT_TESTED]
        come = sum(record["number"] == verdict.REPRODUCED for record in tested)
        under = Counter(record["control"] for record in own if record["control"] != verdict.NONE)
        stand, against = under[verdict.SURVIVES], under[verdict.EXPLAINED] + under[verdict.OPPOSITE]
        fewest = min((r["seeds"] for r in tested if CLAIMS[r["id"]].subject != PAPER), default=study.ENOUGH)
        few = f" (runs: {fewest})" if fewest < study.ENOUGH else ""
        number = _cell(f"{come} of {len(tested)}{few}", come, len(tested) - come)
        told = ", ".join(f"{under[word]} {word}" for word in verdict.CONTROL if under[word])
        passes = [_share(tested, who) for who in ("noise", "offline", "rlvr", "sgd")]
        order = (come / len(tested) if tested else 2.0, stand / (stand + against) if stand + against else 1.0)
        linked = f"[{clause}](#clause-{clause.lower()}) {says}"
        rows.append((order, (linked, number, _cell(told, stand, against), *passes)))
    heads = ("The abstract says", "Number", "Control", "noise", "offline", "RLVR", "SGD")
    return "\n".join(_table("grid", heads, [row for _, row in sorted(rows, key=lambda row: row[0])]))


def _cell(text: str, good: int, bad: int) -> str:
    look = "open" if not good + bad else "good" if not bad else "part" if good else "bad"
    return f'<span class="{look}">{SYMBOLS[look]} {text or MISSING}</span>'


def _share(records: Sequence[dict[str, Any]], who: str) -> str:
    told = [record["passes"][who] for record in records if record["passes"].get(who) is not None]
    return f"{sum(told)} of {len(told)}" if told else MISSING


def _table(kind: str, header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [header, ["---"] * len(header), *rows]
    return ["", "```{table}", f":class: {kind}", "", *(f"| {' | '.join(cells)} |" for cells in lines), "```", ""]


def _others(passes: dict[str, bool | None]) -> str:
    told = {who: passed for who, passed in passes.items() if passed is not None}
    return ", ".join(who for who, passed in told.items() if passed) or ("nobody" if told else MISSING)


def _test(pair: Pair) -> str:
    if pair.trained:
        return f"`opd measure {pair.key}`"
    return f"{pair.why}; with it: `opd measure --source {pair.source} --trained CHECKPOINT`"


def conflict_table(results: Results, stored: Results) -> str:
    """Markdown: unchanged weights by rule and storage, of our pair and of the public one that two papers counted."""
    own = conflicts.rounded(results, stored)
    known, theirs = (conflicts.expected(share) for share in (results.summary["exact_zero"], conflicts.ROUNDED))
    rows = [(r["rule"], r["trained side"], f"{r['unchanged']:.2%}", "", "") for r in own.to_dict("records")]
    rows[0] = (*rows[0][:3], "the same, given", f"{conflicts.ROUNDED:.2%}, given")
    rows[2] = (*rows[2][:3], f"{known['within']:.2%}", f"{theirs['within']:.2%}; printed: {conflicts.AS_STORED:.1%}")
    for side, name, place in (("rounded to bf16", "rounded", 0), ("stored in float32", "stored", 2)):
        model = (f"{found[name]:.3%}" for found in (known, theirs))
        rows.append(("relative norm", side, f"{own['rel_norm'].iloc[place]:.3%}", *model))
    heads = ("Rule", "Trained side", results.title, "the model for it", "the model for DeepScaleR")
    return "\n".join(_table("conflicts", heads, rows))


def run_table(run: pd.Series) -> str:
    """Markdown: who answers how many held-out problems, and what the run took. `run` is its row in the study's runs."""
    rows = [
        (
            role,
            f"{run[f'{role}.correct']} of {run[f'{role}.n']}",
            f"{run[f'{role}.accuracy']:.1%}",
            f"{run[f'{role}.low']:.1%} to {run[f'{role}.high']:.1%}",
        )
        for role in ("source", "teacher", "student")
    ]
    versions = ", ".join(f"{name} {run[f'packages.{name}']}" for name in ("torch", "transformers", "trl"))
    return "\n".join(
        [
            *_table("run", ("Model", "Correct", "Accuracy", "95% interval"), rows),
            f"{run['steps']} updates took {run['training_seconds'] / 60:.0f} minutes of training "
            f"({run['device']}, {run['threads']} threads; Python {run['python']}, {versions}).",
            "",
        ]
    )


def _default_run() -> pd.Series:
    """The row of the embedded pair."""
    found = find_run(find_pair(DEFAULT).key)
    assert found is not None
    scale, arm, seed = found
    runs = open_study(scale.name).runs
    return runs[(runs["arm"] == arm.name) & (runs["seed"] == seed) & (runs["view"] == "bf16")].iloc[0]


def patch_table(file: Path) -> str:
    """Markdown: what the trained checkpoint takes in different forms. `file` is written by benchmarks/patch_size.py."""
    sizes = pd.read_csv(file)
    rows = [(s["stored as"], f"{s['bytes']:,}", f"{s['ratio']:.1%}") for s in sizes.to_dict("records")]
    return "\n".join(_table("sizes", ("Stored as", "Bytes", "Of the full checkpoint"), rows))


def definitions(records: Iterable[Quantity]) -> str:
    """Markdown: what each number is, how it is written, and what belongs beside it."""

    def general(template: str) -> str:
        return template.format(above="", **{name: f"*{name}*" for name in PARAMETERS if name != "above"})

    rows = [
        (
            f"{general(record.key).replace('_', chr(92) + '_')}<br>**{general(record.label)}**",
            f"{general(record.definition)} *{record.source}*",
            record.kind,
            general("; ".join(filter(None, [record.chance, record.ceiling]))).replace("_", chr(92) + "_") or MISSING,
        )
        for record in records
    ]
    return "\n".join(_table("quantities", ("Number", "What it is, and whose", "Kind", "Chance; ceiling"), rows))


def training_definitions(folder: Path) -> dict[str, str]:
    """By name of a module of opdlib.train, in `folder`: its docstring, which is Markdown, without the first line."""
    trees = {name: ast.parse((folder / f"{name}.py").read_text(encoding="utf8")) for name in TRAINING}
    return {name: (ast.get_docstring(tree) or "").partition("\n\n")[2] for name, tree in trees.items()}


def modules(folder: Path) -> str:
    """Markdown: the modules of a folder of the library, each with the first sentence of its docstring."""
    found = {file.stem: file for file in folder.glob("*.py") if not file.stem.startswith("__")}
    found |= {file.parent.name: file for file in folder.glob("*/__init__.py")}
    texts = {name: ast.get_docstring(ast.parse(found[name].read_text(encoding="utf8"))) or "" for name in sorted(found)}
    rows = [(f"`{name}`", " ".join(text.partition("\n\n")[0].split())) for name, text in texts.items()]
    return "\n".join(_table("modules", ("Module", "What it is"), rows))


def glued_figure(notebook: Path, key: str) -> str:
    """The SVG that `notebook` glued under `key`."""
    for cell in nbformat.read(notebook, as_version=4).cells:
        for output in cell.get("outputs", []):
            if output.get("metadata", {}).get("scrapbook", {}).get("name") == key:
                return str(output.data["image/svg+xml"])
    raise SystemExit(f"{notebook}: no figure is glued as {key!r}")


def main(part: str, root: Path) -> None:
    """Write one part into the book's source below `root`."""
    if part == "tables":
        results, records = open_results(DEFAULT), claims.records()
        (root / "book" / "_claims.md").write_text(claims_table(records), encoding="utf8")
        (root / "book" / "_pairs.md").write_text(pairs_table(records), encoding="utf8")
        (root / "book" / "_grid.md").write_text(clause_grid(records), encoding="utf8")
        (root / "book" / "_conflicts_dtype.md").write_text(
            conflict_table(results, open_results(DEFAULT, "stored")), encoding="utf8"
        )
        paper = conflicts.of_the_paper().itertuples(index=False, name=None)
        heads = ("What", "Here", "There", "Settled")
        (root / "book" / "_conflicts_paper.md").write_text(
            "\n".join(_table("conflicts", heads, paper)), encoding="utf8"
        )
        (root / "book" / "_run.md").write_text(run_table(_default_run()), encoding="utf8")
        (root / "book" / "_patch.md").write_text(patch_table(results.folder / "patch.csv"), encoding="utf8")
        for subject, records in families().items():
            (root / "book" / f"_quantities_{subject}.md").write_text(definitions(records), encoding="utf8")
        for name, text in training_definitions(Path(opdlib.__file__).parent / "train").items():
            (root / "book" / f"_train_{name.replace('/', '_')}.md").write_text(text, encoding="utf8")
        for init in Path(opdlib.__file__).parent.glob("*/__init__.py"):
            (root / "book" / f"_modules_{init.parent.name}.md").write_text(modules(init.parent), encoding="utf8")
    elif part == "figure":
        picture = glued_figure(root / "notebooks" / "01_sparsity.ipynb", "fig_threshold_curve")
        (root / "book" / "images" / "threshold_curve.svg").write_text(picture, encoding="utf8")
    else:
        raise SystemExit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
