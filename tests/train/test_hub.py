"""The paper's data from the Hub: rows, splits, revisions and refusals."""

import dataclasses
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import huggingface_hub
import pytest
from datasets import Dataset
from PIL import Image

from opdlib.errors import ParameterError, RecipeError
from opdlib.registry.recipes import load_recipe
from opdlib.registry.tasks import AIME_2024, AIME_2025, DAPO, GEO3K, Source
from opdlib.train.parents import plan
from opdlib.train.run import train
from opdlib.train.run_folder import prepare
from opdlib.train.tasks import find_task, hub
from opdlib.train.tasks.task import Problem
from tests.train.hub_rows import DAPO_PROMPT, aime_row, dapo_row


def picture(shade: int) -> Image.Image:
    """A diagram of four pixels."""
    return Image.new("L", (2, 2), shade)


def test_rows_of_dapo() -> None:
    (problem,) = hub.read(DAPO, Dataset.from_list([dapo_row("What is 6 times 7?", "42")]))
    assert problem.prompt == DAPO_PROMPT
    assert (problem.answer, problem.reference, problem.completion) == ("42", "42", " Answer: 42\n")


@pytest.mark.parametrize("source", [AIME_2024, AIME_2025])
def test_rows_of_aime(source: Source) -> None:
    (problem,) = hub.read(source, Dataset.from_list([aime_row(" What is 6 times 7?\n", "042")]))
    assert problem.prompt == "What is 6 times 7?" + hub.INSTRUCTION
    assert (problem.answer, problem.completion) == ("042", " \\boxed{042}\n")


def test_rows_of_geo3k() -> None:
    rows = Dataset.from_list([{"images": [picture(9)], "problem": "<image>Find $x$.", "answer": "2\\sqrt{221}"}])
    (problem,) = hub.read(GEO3K, rows)
    assert problem.prompt.startswith("<image>Find $x$.\n")
    assert problem.completion == " \\boxed{2\\sqrt{221}}\n"
    assert [image.size for image in problem.images] == [(2, 2)]


def test_other_columns_are_named() -> None:
    with pytest.raises(ParameterError, match=r"math-ai/aime25: no column 'problem'"):
        hub.read(AIME_2025, [{"question": "?", "answer": "1"}])


def test_what_is_held_out_is_not_trained_on() -> None:
    training = hub.read(DAPO, [dapo_row("What is 6  TIMES 7?", "42"), dapo_row("What is 6 times 8?", "48")])
    held_out = hub.read(AIME_2024, [aime_row("What is 6 times 7?", "42")])
    split = hub.split_without_leaks(training, held_out)
    assert [p.answer for p in split.training] == ["48"]
    assert [p.answer for (p,) in split.held_out] == ["42"]


def test_the_same_question_about_another_image_is_another_question() -> None:
    def ask(shade: int) -> Problem:
        return hub.parse_problem({"images": [picture(shade)], "problem": "<image>Find $x$.", "answer": str(shade)})

    split = hub.split_without_leaks([ask(1), ask(2)], [ask(2), ask(3)])
    assert [p.answer for p in split.training] == ["1"]


class Builder:
    """Stands for what datasets makes of a repository: rows of AIME or DAPO, under the commit that holds them."""

    def __init__(self, dataset: str, config: str, revision: str | None) -> None:
        # The newest commit of a data set is 9...9; a branch of it, abc, is at the commit a...a.
        self.hash = {None: "9" * 40, "abc": "a" * 40}.get(revision, str(revision))
        self.dataset = dataset

    def download_and_prepare(self) -> None:
        """Nothing is fetched."""

    def as_dataset(self, split: str) -> Dataset:
        """Two problems, which tell the commit by their answers."""
        answer = str(int(self.hash[0], 16))
        row = dapo_row if "DAPO" in self.dataset else aime_row
        return Dataset.from_list([row(f"What does {self.dataset} say to {n}?", answer) for n in (1, 2)])


@pytest.fixture
def fake_data(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A Hub of data sets."""
    monkeypatch.setattr(datasets, "load_dataset_builder", Builder)
    hub._split.cache_clear()
    yield
    hub._split.cache_clear()


@pytest.mark.usefixtures("fake_data")
@pytest.mark.parametrize(
    ("name", "commits"),
    [("hub:dapo-math-17k", "999"), (f"hub:dapo-math-17k@abc,{'b' * 40},{'c' * 40}", "abc"), ("hub:aime-2024@abc", "a")],
)
def test_data_are_taken_at_a_commit_that_is_known(name: str, commits: str) -> None:
    task = find_task(name)
    split = task.split()
    assert task.name == name
    assert [commit[0] for commit in split.commits.values()] == [*commits[1:], *commits[:1]]  # the held out are first
    assert all(len(commit) == 40 for commit in split.commits.values())
    answers = [p.answer for p in split.training], [p.answer for (p,) in split.held_out]
    expected = [str(int(digit, 16)) for digit in commits for _ in range(2)]
    assert answers == ((expected[:2], expected[2:]) if len(commits) > 1 else ([], expected))
    assert set(split.commits) <= {f"datasets/{x.dataset}" for x in (DAPO, AIME_2024, AIME_2025)}


@pytest.mark.parametrize("revisions", ["", "main", "main,main", "main,,main", "a,b,c,d"])
def test_a_revision_for_every_data_set_or_none(
    tmp_path: Path, write_recipe: Callable[..., Path], revisions: str
) -> None:
    message = f"wanted one of each of {DAPO.dataset}, {AIME_2024.dataset}, {AIME_2025.dataset}"
    with pytest.raises(RecipeError, match=message):
        load_recipe(write_recipe(tmp_path, "opd", task=f"hub:dapo-math-17k@{revisions}"))


@pytest.mark.usefixtures("fake_data")
def test_a_run_records_what_the_hub_gave(
    tmp_path: Path, pico: Path, write_recipe: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = tmp_path / ("d" * 40)
    shutil.copytree(pico, snapshot)
    asked = []

    def download(name: str, revision: str | None, **_: Any) -> str:
        asked.append((name, revision))
        return str(snapshot)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    recipe = write_recipe(
        tmp_path, "opd", student="org/model@main", task=f"hub:dapo-math-17k@abc,{'b' * 40},{'c' * 40}"
    )
    run = plan(recipe, load_recipe(recipe), tmp_path / "run")
    commits = run.commits()
    assert ("org/model", "main") in asked
    assert commits["org/model"] == "d" * 40
    assert {name: commit[0] for name, commit in commits.items() if name.startswith("datasets/")} == {
        f"datasets/{DAPO.dataset}": "a",
        f"datasets/{AIME_2024.dataset}": "b",
        f"datasets/{AIME_2025.dataset}": "c",
    }
    prepare(run.folder, run.recipe, hub=commits)
    written = json.loads((run.folder / "environment.json").read_text(encoding="utf8"))
    assert written["hub"] == commits
    prepare(run.folder, run.recipe, hub=commits | {"org/model": "e" * 40})
    resumed = json.loads((run.folder / "environment.json").read_text(encoding="utf8"))["resumed"]
    assert [each["hub"]["org/model"] for each in resumed] == ["e" * 40]


def test_a_run_without_the_hub_says_nothing_of_it(tmp_path: Path, write_recipe: Callable[..., Path]) -> None:
    recipe = write_recipe(tmp_path, "opd")
    run = plan(recipe, load_recipe(recipe), tmp_path / "run")
    assert run.commits() == {}
    prepare(run.folder, run.recipe, hub=run.commits())
    assert "hub" not in json.loads((run.folder / "environment.json").read_text(encoding="utf8"))


@pytest.mark.parametrize(("revision", "where"), [(None, ""), ("abc", " at revision abc")])
def test_a_data_set_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch, revision: str | None, where: str) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise ConnectionError("Couldn't reach the Hub\n(offline)")

    monkeypatch.setattr(datasets, "load_dataset_builder", refuse)
    message = rf"geometry3k{where}: cannot be loaded \(Couldn't reach the Hub \(offline\)\)"
    with pytest.raises(ParameterError, match=message):
        hub.load(dataclasses.replace(GEO3K, revision=revision))


def test_evaluation_data_cannot_be_trained_on(tmp_path: Path, write_recipe: Callable[..., Path]) -> None:
    with pytest.raises(RecipeError, match=r"task is 'hub:aime-2024'; .*for evaluation only"):
        load_recipe(write_recipe(tmp_path, "opd", task="hub:aime-2024"))


def test_problems_about_images_are_refused_before_anything_is_loaded(
    tmp_path: Path, write_recipe: Callable[..., Path]
) -> None:
    with pytest.raises(
        RecipeError, match=r"student is '.*', a language model \(llama\), and task hub:geo3k asks about"
    ):
        train(write_recipe(tmp_path, "opd", task="hub:geo3k"), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
