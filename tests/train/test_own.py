"""One's own problems: read by the recipe's columns, split without leaks, scored as it says."""

import json
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import datasets
import pytest
from datasets import Dataset

from opdlib.errors import ParameterError, RecipeError
from opdlib.registry.recipes import load_recipe
from opdlib.registry.tasks import Rows
from opdlib.train.evaluate import evaluate
from opdlib.train.run import train
from opdlib.train.tasks import find_task, own, task_of


@pytest.fixture(autouse=True)
def _read_again() -> Iterator[None]:
    own._split.cache_clear()
    yield
    own._split.cache_clear()


def write(path: Path, *rows: object) -> str:
    """A file of JSON lines; its task."""
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows), encoding="utf8")
    return f"jsonl:{path}"


SUMS = [{"prompt": f"Calculate: {a} + {b}\nResult:", "reference": a + b} for a in range(1, 9) for b in range(1, 9)]


def test_a_third_is_held_out_and_nothing_twice(tmp_path: Path) -> None:
    again = {"prompt": "calculate:  1 + 1\nresult:", "reference": 2}
    task = find_task(write(tmp_path / "sums.jsonl", *SUMS, again))
    split = task.split()
    held_out = [problem for twins in split.held_out for problem in twins]
    assert sorted(p.answer for p in [*split.training, *held_out]) == sorted(str(r["reference"]) for r in [*SUMS, again])
    assert 10 < len(held_out) < 35
    for part in (split.training, held_out):
        assert sum(" 1 + 1" in p.prompt for p in part) in (0, 2), "the same question in another spacing"
    assert len(split.commits[task.name]) == 64
    assert not task.chat


def test_another_file_is_held_out_and_what_it_asks_is_not_trained_on(tmp_path: Path) -> None:
    rows = [{"question": f"{n}?", "answer": str(n)} for n in range(5)]
    name = write(tmp_path / "train.jsonl", *rows)
    write(tmp_path / "test.jsonl", {"question": " 3?", "answer": "3"}, {"question": "9?", "answer": "9"})
    columns = Rows(prompt="question", reference="answer", held_out=str(tmp_path / "test.jsonl"))
    split = find_task(name, columns).split()
    assert [p.prompt for p in split.training] == ["0?", "1?", "2?", "4?"]
    assert [p.prompt for (p,) in split.held_out] == [" 3?", "9?"]
    assert len(split.commits) == 2


def test_messages_are_a_chat(tmp_path: Path) -> None:
    said = [{"role": "system", "content": "Add."}, {"role": "user", "content": "1 + 1"}]
    name = write(tmp_path / "chat.jsonl", {"said": said, "reference": "2"})
    task = find_task(name, Rows(messages="said"))
    (problem,) = (*task.split().training, *(p for twins in task.split().held_out for p in twins))
    assert (problem.before, problem.prompt, task.chat) == ((("system", "Add."),), "1 + 1", True)


@pytest.mark.parametrize(
    ("scorer", "right", "wrong"),
    [
        ("exact", " 4\nor 5", "44"),
        ("math-verify", "so \\boxed{\\frac{8}{2}}", "4"),
        ("regex:#### (\\d+)", "#### 5 no, #### 4", "#### 4, no, #### 5"),
        ("regex:\\d+", "it is 4", "it is 4 or 44"),
        ("length", "four", "five!"),
    ],
)
def test_who_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scorer: str, right: str, wrong: str) -> None:
    offered = EntryPoint("length", f"{__name__}:as_long", own.SCORERS)
    monkeypatch.setattr(own, "entry_points", lambda group: [offered] if group == own.SCORERS else [])
    task = find_task(write(tmp_path / "x.jsonl", *SUMS), Rows(scorer=scorer))
    assert task.is_correct(right, "4")
    assert not task.is_correct(wrong, "4")


def as_long(completion: str, reference: str) -> bool:
    return len(completion) == int(reference)


def test_a_chat_is_exact_as_a_whole(tmp_path: Path) -> None:
    task = find_task(write(tmp_path / "x.jsonl", *SUMS), Rows(messages="m"))
    assert task.is_correct(" a\nb ", "a\nb")
    assert not task.is_correct("a\nc", "a")


USER = {"role": "user", "content": "?"}


@pytest.mark.parametrize(
    ("rows", "columns", "message"),
    [
        (["no"], {}, r"x.jsonl line 1: no JSON"),
        ([1], {}, r"x.jsonl line 1: holds a int, wanted an object of columns"),
        ([], {}, r"holds no problem; wanted one in every line"),
        ([SUMS[0], {"prompt": "?"}], {}, r"line 2: no column 'reference'; it has prompt; say which is the reference"),
        ([SUMS[0]], {"prompt": "question"}, r"no column 'question'; it has prompt, reference; say which is the prompt"),
        ([{"prompt": 3, "reference": "3"}], {}, r"line 1: column 'prompt' is 3; wanted str"),
        ([{"prompt": "?", "reference": None}], {}, r"column 'reference' is None; wanted str"),
        ([{"m": [], "reference": "3"}], {"messages": "m"}, r"column 'm' is \[\]; wanted \{role, content\}"),
        ([{"m": [USER, USER | {"role": "tool"}], "reference": 1}], {"messages": "m"}, r"the last a user's"),
        ([SUMS[0]], {"held_out": "nowhere.jsonl"}, r"nowhere.jsonl: missing"),
    ],
)
def test_what_is_no_problem_is_named(tmp_path: Path, rows: list[object], columns: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError, match=message) as caught:
        find_task(write(tmp_path / "x.jsonl", *rows), Rows(**columns)).split()
    assert "\n" not in str(caught.value)


def test_an_unknown_scorer() -> None:
    with pytest.raises(
        ParameterError, match=r"scorer 'lenght' is unknown; choose one of: exact, math-verify, regex:PAT"
    ):
        find_task("jsonl:x", Rows(scorer="lenght"))


def test_data_of_the_hub_by_its_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    class Builder:
        hash = "a" * 40

        def __init__(self, *place: str, revision: str | None) -> None:
            asked.append((*place, revision))

        def download_and_prepare(self) -> None:
            """Nothing is fetched."""

        def as_dataset(self, split: str) -> Dataset:
            return Dataset.from_list([{"q": f"{split} {n}", "a": n} for n in range(3)])

    monkeypatch.setattr(datasets, "load_dataset_builder", Builder)
    columns = Rows(prompt="q", reference="a", config="main", held_out="test")
    split = find_task("hub:org/data@abc", columns).split()
    assert asked == [("org/data", "main", "abc")] * 2
    assert [p.prompt for p in split.training] == ["train 0", "train 1", "train 2"]
    assert [p.prompt for (p,) in split.held_out] == ["test 0", "test 1", "test 2"]
    assert split.commits == {"datasets/org/data": "a" * 40}


def test_rows_are_of_ones_own_data(tmp_path: Path, write_recipe: Callable[..., Path]) -> None:
    with pytest.raises(RecipeError, match=r"rows is \{'prompt': 'q'\}; .*leave rows out, or say task: jsonl:FILE"):
        load_recipe(write_recipe(tmp_path, "sft", rows={"prompt": "q"}))
    with pytest.raises(RecipeError, match=r"key 'rows.promt' = 'q' is unknown for rows; allowed: prompt, messages"):
        load_recipe(write_recipe(tmp_path, "sft", task="jsonl:x", rows={"promt": "q"}))
    with pytest.raises(RecipeError, match=r"rows.scorer is 'regex:\('; .*no regular expression"):
        load_recipe(write_recipe(tmp_path, "sft", task="jsonl:x", rows={"scorer": "regex:("}))


@pytest.mark.slow
def test_a_run_on_a_file_with_an_adapter(tmp_path: Path, write_recipe: Callable[..., Path]) -> None:
    name = write(tmp_path / "sums.jsonl", *SUMS)
    changes = {"task": name, "rows": {"scorer": "regex:\\d+", "max_new_tokens": 4}, "lora": {"rank": 2, "alpha": 4}}
    recipe = write_recipe(tmp_path, "opd", **changes)
    folder = train(recipe, tmp_path / "run", max_steps=2)
    found = json.loads((folder / "evaluation.json").read_text())["student"]
    assert found["task"] == name
    assert found == json.loads(json.dumps(vars(evaluate(folder / "bf16", str(recipe), n=3))))
    recorded = json.loads((folder / "environment.json").read_text())["hub"]
    assert recorded == task_of(load_recipe(recipe)).split().commits
    assert (folder / "adapter" / "adapter_model.safetensors").is_file()
