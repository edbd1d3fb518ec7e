"""Tasks that are not enumerated here: generated ones, and the paper's from the Hub."""

from __future__ import annotations

import dataclasses
import json
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import huggingface_hub
import pytest
from datasets import Dataset
from PIL import Image

from opdlib.errors import MissingDependencyError, ParameterError, RecipeError
from opdlib.train.folder import prepare
from opdlib.train.lineage import plan
from opdlib.train.recipe import load_recipe
from opdlib.train.run import train
from opdlib.train.tasks import find_task, gym, hub
from opdlib.train.tasks.scoring import is_equal
from opdlib.train.tasks.task import Problem, Split


class Dice:
    """Stands for a generator of reasoning-gym: seed plus index numbers the problems, and questions repeat."""

    def __init__(self, name: str, seed: int, size: int) -> None:
        self.name, self.seed, self.size = name, seed, size

    def __getitem__(self, index: int) -> dict[str, Any]:
        """The same entry for the same seed plus index, unless the generator is `fickle`."""
        rng = random.Random(None if self.name == "fickle" else self.seed + index)
        a, b = rng.randint(1, 40), rng.randint(1, 40)
        spacing = " " * (1 + index % 2)
        answer = {"grids": f"{a}\n{b}", "broken": "?"}.get(self.name, str(a + b))
        return {"question": f"Add {a} and{spacing}{b}", "answer": answer, "metadata": {"sum": a + b}}

    def score_answer(self, answer: str, entry: dict[str, Any]) -> float:
        """Half a point for any other number; trips over what is none."""
        return 1.0 if int(answer) == entry["metadata"]["sum"] else 0.5


@pytest.fixture
def fake_gym(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A package reasoning-gym of four generators."""

    def create(name: str, seed: int, size: int) -> Dice:
        assert name != "composite", "Must specify at least one dataset"
        return Dice(name, seed, size)

    names = ("dice", "grids", "broken", "fickle", "composite")
    fake = SimpleNamespace(factory=SimpleNamespace(DATASETS=dict.fromkeys(names)), create_dataset=create)
    for cached in (gym._generated, gym._split):
        cached.cache_clear()
    monkeypatch.setitem(sys.modules, "reasoning_gym", fake)
    yield
    for cached in (gym._generated, gym._split):
        cached.cache_clear()


def question(problem: Problem) -> str:
    """Its text, whatever the spacing and the case."""
    return " ".join(problem.prompt.split()).casefold()


@pytest.mark.usefixtures("fake_gym")
def test_a_generated_question_is_on_one_side_for_all_seeds() -> None:
    task = find_task("reasoning-gym:dice")
    split = task.split()
    training, held_out = {question(p) for p in split.training}, {question(p) for (p,) in split.held_out}
    assert len(training) == len(split.training)  # each question once, though the generator repeats
    assert 0.2 < len(held_out) / (len(training) + len(held_out)) < 0.45
    assert training.isdisjoint(held_out)
    for seed in range(5):
        assert {question(p) for p in task.training(5000, seed)} <= training
        assert {question(p) for p in task.held_out(100, seed)} <= held_out
    assert task.training(50, 1) == task.training(50, 1) != task.training(50, 2)


@pytest.mark.usefixtures("fake_gym")
def test_a_generated_answer_is_scored_by_the_package_alone() -> None:
    task = find_task("reasoning-gym:dice")
    problem = task.held_out(1, 0)[0]
    assert problem.prompt.endswith("\nAnswer:")
    assert task.is_correct(problem.completion, problem.reference)
    assert task.is_correct(f" 0{problem.answer} \nAdd", problem.reference)  # as the package sees it
    for wrong in ("", "\n5", f" {problem.answer}0\n", " I do not know\n"):  # half a point, or none
        assert not task.is_correct(wrong, problem.reference)


@pytest.mark.usefixtures("fake_gym")
@pytest.mark.parametrize(
    ("generator", "message"),
    [
        ("dize", "no such generator; choose one of: broken, composite, dice, fickle, grids"),
        ("grids", "take more than one line; choose another"),
        ("broken", "take more than one line; choose another"),
        ("fickle", "makes other problems every time; choose another"),
        ("composite", r"no default form \(Must specify at least one dataset"),
    ],
)
def test_generators_that_cannot_be_used(generator: str, message: str) -> None:
    with pytest.raises(ParameterError, match=f"task reasoning-gym:{generator}: .*{message}"):
        find_task(f"reasoning-gym:{generator}").held_out(1, 0)


@pytest.mark.parametrize(
    ("name", "package"), [("reasoning-gym:chain_sum", "reasoning-gym"), ("hub:aime-2024", "math-verify")]
)
def test_a_missing_package_is_named_with_its_command(name: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package.replace("-", "_"), None)
    gym._generated.cache_clear()
    with pytest.raises(MissingDependencyError, match=rf"not installed; run: pip install {package}$"):
        find_task(name).held_out(1, 0)


@pytest.mark.parametrize("name", ["hub:gsm8k", "hub:", "reasoning-gym:", "reasoning-gym:No-Such", "gym:dice", ""])
def test_unknown_names_list_the_known(name: str) -> None:
    known = "arithmetic, sums, hub:dapo-math-17k, .*, hub:geo3k, reasoning-gym:GENERATOR"
    with pytest.raises(ParameterError, match=f"is unknown; choose one of: {known}$"):
        find_task(name)


def test_a_name_is_checked_without_the_packages_behind_it() -> None:
    code = """
import sys
from opdlib.train.tasks import find_task
for name in ("arithmetic", "hub:geo3k", "reasoning-gym:chain_sum"):
    find_task(name)
assert not {"torch", "datasets", "transformers", "reasoning_gym", "math_verify"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


# --- the paper's data ------------------------------------------------------------------------------------------------

DAPO_PROMPT = "Solve the following problem.\n\nWhat is 6 times 7?\n\nEnd with a line Answer: $Answer."


def dapo_row(question: str, answer: str) -> dict[str, Any]:
    """A row in the columns of open-r1/DAPO-Math-17k-Processed."""
    return {
        "prompt": question,
        "solution": answer,
        "data_source": "math_dapo",
        "source_prompt": [{"content": DAPO_PROMPT.replace("What is 6 times 7?", question), "role": "user"}],
        "ability": "MATH",
        "reward_model": {"ground_truth": answer, "style": "rule-lighteval/MATH_v2"},
        "extra_info": {"index": "0"},
    }


def aime_row(problem: str, answer: str) -> dict[str, Any]:
    """A row in the columns of HuggingFaceH4/aime_2024; math-ai/aime25 has three of them."""
    return {"id": 60, "problem": problem, "solution": "", "answer": answer, "url": "", "year": "2024"}


def picture(shade: int) -> Image.Image:
    """A diagram of four pixels."""
    return Image.new("L", (2, 2), shade)


def test_rows_of_dapo() -> None:
    (problem,) = hub.DAPO.read(Dataset.from_list([dapo_row("What is 6 times 7?", "42")]))
    assert problem.prompt == DAPO_PROMPT
    assert (problem.answer, problem.reference, problem.completion) == ("42", "42", " Answer: 42\n")


@pytest.mark.parametrize("source", [hub.AIME_2024, hub.AIME_2025])
def test_rows_of_aime(source: hub.Source) -> None:
    (problem,) = source.read(Dataset.from_list([aime_row(" What is 6 times 7?\n", "042")]))
    assert problem.prompt == "What is 6 times 7?" + hub.INSTRUCTION
    assert (problem.answer, problem.completion) == ("042", " \\boxed{042}\n")


def test_rows_of_geo3k() -> None:
    rows = Dataset.from_list([{"images": [picture(9)], "problem": "<image>Find $x$.", "answer": "2\\sqrt{221}"}])
    (problem,) = hub.GEO3K.read(rows)
    assert problem.prompt.startswith("<image>Find $x$.\n")
    assert problem.completion == " \\boxed{2\\sqrt{221}}\n"
    assert [image.size for image in problem.images] == [(2, 2)]


def test_other_columns_are_named() -> None:
    with pytest.raises(ParameterError, match=r"math-ai/aime25: no column 'problem'"):
        hub.AIME_2025.read([{"question": "?", "answer": "1"}])


def test_what_is_held_out_is_not_trained_on() -> None:
    training = hub.DAPO.read([dapo_row("What is 6  TIMES 7?", "42"), dapo_row("What is 6 times 8?", "48")])
    held_out = hub.AIME_2024.read([aime_row("What is 6 times 7?", "42")])
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
    assert set(split.commits) <= {f"datasets/{x.dataset}" for x in (hub.DAPO, hub.AIME_2024, hub.AIME_2025)}


@pytest.mark.parametrize("revisions", ["", "main", "main,main", "main,,main", "a,b,c,d"])
def test_a_revision_for_every_data_set_or_none(
    tmp_path: Path, write_recipe: Callable[..., Path], revisions: str
) -> None:
    message = f"wanted one of each of {hub.DAPO.dataset}, {hub.AIME_2024.dataset}, {hub.AIME_2025.dataset}"
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
    assert ("org/model", "main") in asked
    commits = run.commits()
    assert commits["org/model"] == "d" * 40
    assert {name: commit[0] for name, commit in commits.items() if name.startswith("datasets/")} == {
        f"datasets/{hub.DAPO.dataset}": "a",
        f"datasets/{hub.AIME_2024.dataset}": "b",
        f"datasets/{hub.AIME_2025.dataset}": "c",
    }
    prepare(run.folder, run.recipe, commits)
    written = json.loads((run.folder / "environment.json").read_text(encoding="utf8"))
    assert written["hub"] == commits
    prepare(run.folder, run.recipe, commits | {"org/model": "e" * 40})
    resumed = json.loads((run.folder / "environment.json").read_text(encoding="utf8"))["resumed"]
    assert [each["hub"]["org/model"] for each in resumed] == ["e" * 40]


def test_a_run_without_the_hub_says_nothing_of_it(tmp_path: Path, write_recipe: Callable[..., Path]) -> None:
    recipe = write_recipe(tmp_path, "opd")
    run = plan(recipe, load_recipe(recipe), tmp_path / "run")
    assert run.commits() == {}
    prepare(run.folder, run.recipe, run.commits())
    assert "hub" not in json.loads((run.folder / "environment.json").read_text(encoding="utf8"))


@pytest.mark.parametrize(("revision", "where"), [(None, ""), ("abc", " at revision abc")])
def test_a_data_set_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch, revision: str | None, where: str) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise ConnectionError("Couldn't reach the Hub\n(offline)")

    monkeypatch.setattr(datasets, "load_dataset_builder", refuse)
    message = rf"geometry3k{where}: cannot be loaded \(Couldn't reach the Hub \(offline\)\)"
    with pytest.raises(ParameterError, match=message):
        dataclasses.replace(hub.GEO3K, revision=revision).load()


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


# --- scoring ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def fake_verifier(monkeypatch: pytest.MonkeyPatch) -> None:
    """A package math-verify that knows boxed whole numbers."""

    def parse(text: str, parsing_timeout: int | None) -> list[int]:
        inner = text.removeprefix("\\boxed{").partition("}")[0]
        return [int(inner)] if inner.isdigit() else []

    def verify(gold: list[int], target: list[int], timeout_seconds: int | None) -> bool:
        return gold == target

    monkeypatch.setitem(sys.modules, "math_verify", SimpleNamespace(parse=parse, verify=verify))


ANSWERS = [
    ("Thus it is \\boxed{42}.", True),
    ("Thus it is \\boxed{042}.", True),
    ("First \\boxed{41}, no: \\boxed{42}", True),
    ("Sure.\nAnswer: 42", True),
    ("Sure.\nAnswer: $42$.\n", True),
    ("**Answer:** 42", True),
    ("<think>Maybe \\boxed{41}.\nWait.\n</think>\n\nIt is \\boxed{42}.", True),
    ("<think>Surely \\boxed{42}.\nWait.\n</think>\n\nIt is \\boxed{41}.", False),
    ("Answer: 41, but then \\boxed{42}", True),
    ("\\boxed{42}\nAnswer: 41", False),
    ("First \\boxed{42}, no: \\boxed{41}", False),
    ("Answer:\n42", False),
    ("It is 42", False),
    ("\\boxed{}", False),
    ("\\boxed{forty-two apples", False),
    ("", False),
]


@pytest.mark.usefixtures("fake_verifier")
@pytest.mark.parametrize(("completion", "right"), ANSWERS)
def test_only_a_stated_final_answer_counts(completion: str, right: bool) -> None:
    assert is_equal(completion, "42") is right


@pytest.mark.parametrize(
    ("completion", "answer", "right"),
    [
        *((completion, "42", right) for completion, right in ANSWERS),
        ("\\boxed{\\frac{1}{2}}", "0.5", True),
        ("\\boxed{2\\sqrt{221}}", "2\\sqrt{221}", True),
        ("\\boxed{42, 43}", "42", False),
        ("\\boxed{33}", "033", True),
    ],
)
def test_the_real_verifier(completion: str, answer: str, right: bool) -> None:
    assert is_equal(completion, answer) is right


@pytest.mark.usefixtures("fake_verifier")
def test_what_a_teacher_is_shown_would_score() -> None:
    problems = [hub.parse_dapo(dapo_row("What is 6 times 7?", "42")), hub.parse_problem(aime_row("6 times 7?", "42"))]
    assert all(is_equal(problem.completion, problem.reference) for problem in problems)
    assert Split(problems, []).training[0].privileged.count("What is 6 times 7?") == 2
