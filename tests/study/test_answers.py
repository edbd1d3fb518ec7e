"""Which problems runs answer: every one, a column a run, and nothing that contradicts what is known."""

import json
from pathlib import Path

import pytest

from opdlib.errors import CheckpointError, RegistryError
from opdlib.results.study import ANSWERS, StudyResults
from opdlib.study import answers
from opdlib.study.answers import write_answers
from opdlib.train.tasks import find_task
from tests.study.scored import ASKED, PICO, answered, write_runs

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def model(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The runs that were asked."""
    asked: list[str] = []

    def note(spec: Path, **options: object) -> object:
        asked.append(spec.parent.name)
        return answered(spec, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(answers, "answers", note)
    return asked


def test_every_run_is_asked_once(tmp_path: Path, model: list[str]) -> None:
    runs, out = write_runs(tmp_path / "runs", [("opd", 1), ("offline", 0)]), tmp_path / "out"
    (runs / "pico-rlvr-s0").mkdir()  # begun, not complete
    with pytest.raises(CheckpointError, match=r"no complete run in .*; run: opd study pico"):
        write_answers(PICO, out, tmp_path)
    assert write_answers(PICO, out, runs) == ["pico-opd-s1", "pico-offline-s0"]
    write_runs(tmp_path / "runs", [("opd", 1), ("offline", 0), ("opd", 0), ("rlvr", 2)])
    assert write_answers(PICO, out, runs) == ["pico-opd-s0", "pico-rlvr-s2"]
    assert write_answers(PICO, out, runs) == []
    assert len(model) == 4
    table = StudyResults("pico", out / "pico").answers
    assert tuple(table) == (*ANSWERS, "opd-s0", "opd-s1", "offline-s0", "rlvr-s2"), "in the order of study.yaml"
    task, seed, first = ASKED
    problems = find_task(task).all_held_out(first, seed)
    assert list(table["problem"]) == [problem.prompt for problem in problems]
    assert list(table["number"]) == list(range(1, len(problems) + 1))
    assert table["evaluated"].sum() == first
    for name in list(table)[3:]:
        said = answered(runs / f"pico-{name}" / "bf16", *ASKED)
        assert list(table[name]) == [int(answer.correct) for answer in said]
    assert {str(kind) for kind in table.dtypes[2:]} == {"int64"}


def test_an_answer_that_contradicts_what_is_known_is_refused(tmp_path: Path) -> None:
    runs, out = write_runs(tmp_path / "runs", [("opd", 0), ("opd", 1)]), tmp_path / "out"
    (runs / "pico-opd-s1" / "evaluation.json").write_text(json.dumps({"student": {"correct": 3}}))
    with pytest.raises(RegistryError, match=r"pico-opd-s1: \d+ of its recipe.s problems are right, and 3 were"):
        write_answers(PICO, out, runs)
    file = out / "pico" / "answers.csv"
    before = file.read_text()
    assert "opd-s0" in before
    assert "opd-s1" not in before
    (runs / "pico-opd-s0" / "evaluation.json").write_text(json.dumps({"student": {"correct": 3}}))
    with pytest.raises(RegistryError, match=r"\d+ of its recipe.s problems are right in the table, and 3 were"):
        write_answers(PICO, out, runs)
    write_runs(tmp_path / "runs", [("opd", 0), ("opd", 1)])
    head, row, *rest = before.splitlines()
    file.write_text("\n".join([head, row.replace(row.split(",")[1], "1+1="), *rest]))
    with pytest.raises(RegistryError, match=r"problem is 1\+1= in the tables"):
        write_answers(PICO, out, runs)
