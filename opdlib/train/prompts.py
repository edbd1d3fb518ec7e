"""How a task's problems reach a model: prompts as text, and the tokens that end a completion.

Prompts stay text to the last: a chat template is applied here, once, so that every trainer, the teacher's privileged
prompt and the evaluation see the same.
"""

from __future__ import annotations

from typing import Any

from opdlib.errors import ParameterError
from opdlib.train.models import stop_tokens
from opdlib.train.tasks import Task


def prompt_text(prompt: str, task: Task, tokenizer: Any) -> str:
    """The text that the tokenizer turns into the tokens a model sees.

    For a chat task that is the tokenizer's chat template around the prompt, if it has one. A token that begins the
    sequence and that both the template and the tokenizer would write is written once.
    """
    if not task.chat or tokenizer.chat_template is None:
        return prompt
    said = [{"role": "user", "content": prompt}]
    text: str = tokenizer.apply_chat_template(said, tokenize=False, add_generation_prompt=True)
    begins = tokenizer.bos_token is not None and tokenizer("")["input_ids"][:1] == [tokenizer.bos_token_id]
    return text.removeprefix(tokenizer.bos_token) if begins else text


def end_tokens(task: Task, tokenizer: Any) -> list[int]:
    """The tokens that end a completion: end of sequence, and a newline unless the task is a chat.

    Raises CheckpointError if a newline is needed and the tokenizer does not write it as one token.
    """
    return [tokenizer.eos_token_id] if task.chat else stop_tokens(tokenizer)


def check_text(task: Task) -> None:
    """Raises ParameterError for a task of images: models are loaded as language models, which see none."""
    if task.images:
        raise ParameterError(f"task {task.name} asks about images, which no model here is shown; choose a task of text")
