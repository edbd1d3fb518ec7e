from __future__ import annotations

import csv
import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch

from opdlib.checkpoints import open_checkpoint
from opdlib.errors import CheckpointError, ParameterError
from opdlib.stats import wilson
from opdlib.train.evaluate import answers, evaluate, evaluate_model
from opdlib.train.models import load_reader
from opdlib.train.tasks import TASKS, find_task, is_correct
from tests.conftest import Command


class Oracle:
    """Stands for a model; answers what it is told, whatever the batch."""

    def __init__(self, tokenizer: object, answers: list[str]) -> None:
        self.tokenizer, self.answers, self.device = tokenizer, answers, torch.device("cpu")
        self.batches: list[int] = []

    def to(self, device: torch.device) -> Oracle:
        """Moves nothing but its device."""
        self.device = device
        return self

    def eval(self) -> None:
        """Nothing to switch."""

    def generate(self, input_ids, **options):  # type: ignore[no-untyped-def]
        """The prompts and the next answers behind them, padded on the right."""
        self.batches.append(len(input_ids))
        batch, self.answers = self.answers[: len(input_ids)], self.answers[len(input_ids) :]
        said = self.tokenizer(batch, return_tensors="pt", padding=True, padding_side="right")
        assert not options["do_sample"]
        return torch.cat([input_ids, said["input_ids"]], dim=1)


def test_counts_what_the_model_says(pico: Path) -> None:
    tokenizer = load_reader(open_checkpoint(str(pico)))
    problems = TASKS["arithmetic"].held_out(120, seed=5)
    answers = [p.completion if i % 3 else f" {p.answer}0\n" for i, p in enumerate(problems)]
    result = evaluate_model(Oracle(tokenizer, answers), tokenizer, TASKS["arithmetic"], 5, 120)
    assert (result.correct, result.n, result.accuracy) == (80, 120, 80 / 120)
    assert result.interval == wilson(80, 120)


@pytest.mark.parametrize(("task", "batches"), [("arithmetic", [50, 10]), ("hub:aime-2024", [20, 20, 20])])
def test_a_task_says_how_many_are_asked_at_once(pico: Path, task: str, batches: list[int]) -> None:
    asked = dataclasses.replace(find_task(task), split=TASKS["arithmetic"].split, scorer=is_correct)
    tokenizer = load_reader(open_checkpoint(str(pico)))
    oracle = Oracle(tokenizer, [p.completion for p in asked.held_out(60, seed=5)])
    assert evaluate_model(oracle, tokenizer, asked, 5, 60).correct == 60
    assert oracle.batches == batches


def test_a_model_is_scored_where_that_is_fastest(pico: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    problems = TASKS["arithmetic"].held_out(3, seed=0)
    oracle = Oracle(load_reader(open_checkpoint(str(pico))), [p.completion for p in problems])
    monkeypatch.setattr("opdlib.train.models.load_model", lambda _: oracle)
    monkeypatch.setattr("opdlib.train.models.scoring_device", lambda: torch.device("cpu", 0))
    assert evaluate(str(pico), n=3).correct == 3
    assert oracle.device == torch.device("cpu", 0)


def test_is_deterministic_and_fits_into_json(pico: Path) -> None:
    first = evaluate(str(pico), n=20, seed=1)
    assert evaluate(str(pico), n=20, seed=1) == first
    assert json.loads(json.dumps(dataclasses.asdict(first)))["interval"] == list(first.interval)


def test_answers_to_every_problem_begin_with_those_that_are_counted(
    pico: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = TASKS["arithmetic"]
    first, everything = task.held_out(100, seed=3), task.all_held_out(100, seed=3)
    assert everything[:100] == first
    assert everything == task.all_held_out(100, seed=3)
    pool = task.split().held_out
    assert sorted(p.prompt for p in everything) == sorted(
        next(t.prompt for t in twins if t in everything) for twins in pool
    )
    oracle = Oracle(load_reader(open_checkpoint(pico)), [p.completion for p in everything[:-1]] + [" 1000000\n"])
    monkeypatch.setattr("opdlib.train.models.load_model", lambda _: oracle)
    said = answers(str(pico), n=100, seed=3)
    assert [a.correct for a in said] == [True] * (len(pool) - 1) + [False]
    assert (said[7].prompt, said[7].reference) == (first[7].prompt, first[7].reference)


def test_answers_are_written_and_both_counts_told(
    opd: Command, pico: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    everything = TASKS["arithmetic"].all_held_out(500, seed=0)
    texts = [p.completion if i >= 400 else "?\n" for i, p in enumerate(everything)]
    monkeypatch.setattr("opdlib.train.models.load_model", lambda _: Oracle(load_reader(open_checkpoint(pico)), texts))
    found = json.loads(opd("evaluate", pico, "--answers", "said.csv", "--json").stdout)
    assert (found["n"], found["correct"]) == (500, 100)
    assert (found["all"]["n"], found["all"]["correct"]) == (len(everything), len(everything) - 400)
    with (tmp_path / "said.csv").open(newline="") as stream:
        rows = [*csv.DictReader(stream)]
    assert [row["prompt"] for row in rows] == [p.prompt for p in everything]
    assert [sum(int(row[name]) for row in rows) for name in ("evaluated", "correct")] == [500, len(everything) - 400]
    lines = opd("evaluate", pico, "--answers", "said.csv").stdout.splitlines()
    assert [line.partition("held-out")[0].split()[-1] for line in lines] == ["500", str(len(everything))]


def test_wrong_parameters_are_told_before_a_model_is_opened() -> None:
    with pytest.raises(ParameterError, match="choose one of: arithmetic"):
        evaluate("no/such/folder", task="algebra")
    with pytest.raises(ParameterError, match="choose between 1 and"):
        evaluate("no/such/folder", n=10**6)


def test_a_checkpoint_without_config_is_refused(pico: Path, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes((pico / "model.safetensors").read_bytes())
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        evaluate(str(tmp_path), n=1)


@pytest.mark.parametrize(("file", "part"), [("tokenizer", "tokenizer"), ("config", r"config\.json")])
def test_a_checkpoint_that_transformers_cannot_use_is_refused(pico: Path, tmp_path: Path, file: str, part: str) -> None:
    folder = shutil.copytree(pico, tmp_path / "broken")
    if file == "tokenizer":
        for path in folder.glob("tokenizer*"):
            path.unlink()
    else:
        (folder / "config.json").write_text('{"model_type": "no-such-model"}')
    with pytest.raises(CheckpointError, match=f"cannot use its {part}") as caught:
        evaluate(str(folder), n=1)
    assert "\n" not in str(caught.value)
