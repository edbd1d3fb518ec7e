"""What a model sees of a problem, and where its completion ends."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tokenizers.processors import TemplateProcessing

from opdlib.checkpoints import open_checkpoint
from opdlib.errors import CheckpointError
from opdlib.registry.recipes import load_recipe
from opdlib.registry.tasks import DATA
from opdlib.train import objectives
from opdlib.train.evaluate import evaluate
from opdlib.train.models import load_model, load_reader
from opdlib.train.objectives import build_trainer
from opdlib.train.prompts import end_tokens, prompt_text
from opdlib.train.tasks import TASKS, Problem, Split, Task, arithmetic, find_task, split_by_hash

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<{{ m.content }}>{% endfor %}{% if add_generation_prompt %}={% endif %}"
)
ASKED = Problem("1 + 1", "2")
CHAT = Task("talk", 4, partial(split_by_hash, arithmetic), chat=True)


@pytest.fixture
def tokenizer(pico: Path) -> Any:
    """The pico tokenizer with a beginning of sequence that it writes itself, as the template does."""
    loaded = load_reader(open_checkpoint(str(pico)))
    loaded.bos_token = "s"
    loaded.backend_tokenizer.post_processor = TemplateProcessing(
        single="s $A", special_tokens=[("s", loaded.convert_tokens_to_ids("s"))]
    )
    return loaded


def test_text_is_continued_as_it_is(tokenizer: Any) -> None:
    tokenizer.chat_template = TEMPLATE
    assert prompt_text(ASKED, TASKS["sums"], tokenizer) == "1 + 1"


def test_a_chat_is_put_into_the_template_and_begins_once(tokenizer: Any) -> None:
    assert prompt_text(ASKED, CHAT, tokenizer) == "1 + 1"
    tokenizer.chat_template = TEMPLATE
    text = prompt_text(ASKED, CHAT, tokenizer)
    assert text == "<1 + 1>="
    said = [{"role": "user", "content": "1 + 1"}]
    encoded = tokenizer.apply_chat_template(said, add_generation_prompt=True, return_dict=True)
    assert tokenizer(text)["input_ids"] == encoded["input_ids"]


def test_what_was_said_before_comes_before(tokenizer: Any) -> None:
    problem = Problem("1 + 1", "2", before=(("system", "add"), ("user", "0"), ("assistant", "1")))
    with pytest.raises(CheckpointError, match="task talk is a chat, and the tokenizer has no chat template"):
        prompt_text(problem, CHAT, tokenizer)
    tokenizer.chat_template = "{% for m in messages %}<{{ m.role[0] }} {{ m.content }}>{% endfor %}="
    assert prompt_text(problem, CHAT, tokenizer) == "<s add><u 0><a 1><u 1 + 1>="
    assert prompt_text(problem, CHAT, tokenizer, privileged=True) == "<s add><u 0><a 1><u 1 + 1 2\n1 + 1>="


def test_a_template_alone_begins_the_sequence(pico: Path) -> None:
    plain = load_reader(open_checkpoint(str(pico)))
    plain.bos_token, plain.chat_template = "s", TEMPLATE
    assert prompt_text(ASKED, CHAT, plain) == "s<1 + 1>="


def test_a_newline_ends_text_and_not_a_chat(tokenizer: Any) -> None:
    newline = tokenizer.convert_tokens_to_ids("\n")
    assert end_tokens(TASKS["sums"], tokenizer) == [tokenizer.eos_token_id, newline]
    assert end_tokens(CHAT, tokenizer) == [tokenizer.eos_token_id]


@pytest.mark.parametrize("name", [*TASKS, *DATA, "reasoning-gym:chain_sum", "hub:aime-2024@main"])
def test_only_the_chains_of_thought_go_on_after_a_newline(tokenizer: Any, name: str) -> None:
    newline = tokenizer.convert_tokens_to_ids("\n")
    assert (newline in end_tokens(find_task(name), tokenizer)) != name.startswith("hub:")


@pytest.mark.parametrize("objective", ["sft", "opd", "opsd", "rlvr"])
def test_every_trainer_sees_the_template(
    tmp_path: Path, pico: Path, write_recipe: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, objective: str
) -> None:
    monkeypatch.setattr(objectives, "task_of", lambda _: CHAT)
    source = open_checkpoint(str(pico))
    tokenizer, teacher = load_reader(source), None if objective in ("sft", "rlvr") else load_model(source)
    tokenizer.chat_template = "{% for m in messages %}R{{ m.content }}R{% endfor %}"
    recipe = load_recipe(write_recipe(tmp_path, objective))
    trainer = build_trainer(recipe, load_model(source), tokenizer, teacher, tmp_path / "out", [])
    row = trainer.train_dataset[0]
    if objective == "sft":
        assert row["input_ids"][-1] == tokenizer.eos_token_id == row["labels"][-1]
        assert tokenizer.decode(row["input_ids"]).count("R") == 3  # Result has one of its own
    for shown in {"prompt", "privileged"} & set(row):
        assert row[shown].startswith("RCalculate")
        assert row[shown].endswith("Result:R")
    assert trainer.model.generation_config.eos_token_id in (tokenizer.eos_token_id, [tokenizer.eos_token_id])
    assert ("reference" in row) == (objective == "rlvr")


def test_a_small_task_is_asked_in_full(pico: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = Split([], TASKS["sums"].split().held_out[:3])
    monkeypatch.setitem(TASKS, "few", Task("few", 4, lambda: few))
    assert evaluate(str(pico), "few").n == 3


def test_a_split_is_the_same_whenever_it_is_made() -> None:
    assert isinstance(CHAT.split(), Split)
    assert CHAT.split() == TASKS["arithmetic"].split()
