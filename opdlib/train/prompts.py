"""How a task's problems reach a model: prompts as text or as conversations, and the tokens that end a completion.

Prompts without images stay text to the last: a chat template is applied here, once, so that every trainer, the
teacher's privileged prompt and the evaluation see the same. Prompts with images are conversations: TRL puts images into
a template only itself, and the evaluation does it with TRL's own function.
"""

from typing import Any

from opdlib.errors import CheckpointError, ParameterError
from opdlib.train.models import transformers_on
from opdlib.train.tasks import IMAGE, Problem, Task

Conversation = list[dict[str, Any]]


def prompt_text(problem: Problem, task: Task, tokenizer: Any, privileged: bool = False) -> str:
    """The text that the tokenizer turns into the tokens a model sees: the problem's prompt, or its privileged one.

    For a chat task that is the tokenizer's chat template around the prompt and what was said before it, if it has one.
    A token that begins the sequence and that both the template and the tokenizer would write is written once. Raises
    CheckpointError where something was said before and there is no template.
    """
    prompt = problem.privileged if privileged else problem.prompt
    if not task.chat or tokenizer.chat_template is None:
        if problem.before:
            raise CheckpointError(
                f"task {task.name} is a chat, and the tokenizer has no chat template; choose a chat model"
            )
        return prompt
    said = [{"role": role, "content": content} for role, content in (*problem.before, ("user", prompt))]
    with transformers_on(tokenizer.name_or_path, "chat template"):
        text: str = tokenizer.apply_chat_template(said, tokenize=False, add_generation_prompt=True)
        begins = tokenizer.bos_token is not None and tokenizer("")["input_ids"][:1] == [tokenizer.bos_token_id]
    return text.removeprefix(tokenizer.bos_token) if begins else text


def end_tokens(task: Task, tokenizer: Any) -> list[int]:
    """The tokens that end a completion: end of sequence, and a newline unless the task is a chat. Raises
    CheckpointError if a newline is needed and the tokenizer does not write it as one token."""
    with transformers_on(tokenizer.name_or_path, "tokenizer"):
        newline = [] if task.chat else tokenizer.encode("\n", add_special_tokens=False)
    if not task.chat and len(newline) != 1:
        place = tokenizer.name_or_path
        raise CheckpointError(
            f"{place}: the tokenizer writes a newline as {len(newline)} tokens; wanted one, to end answers"
        )
    return [tokenizer.eos_token_id, *newline]


def conversation(problem: Problem) -> Conversation:
    """What a user says who shows images: blocks of text, and an empty block of type image for each of them. Raises
    ParameterError for a problem that does not mark a place for every image."""
    first, *others = problem.prompt.split(IMAGE)
    if len(others) != len(problem.images):
        raise ParameterError(
            f"problem {problem.prompt[:60]!r} has {len(problem.images)} images and {len(others)} places marked "
            f"{IMAGE}; wanted as many"
        )
    blocks: Conversation = [{"type": "text", "text": first}]
    for text in others:
        blocks += [{"type": "image"}, {"type": "text", "text": text}]
    return [{"role": "user", "content": [block for block in blocks if block.get("text") != ""]}]


def prompt_row(problem: Problem, task: Task, reader: Any) -> dict[str, Any]:
    """The columns in which TRL's trainers expect a prompt: `prompt`, and `images` where the task has them."""
    if task.images:
        return {"prompt": conversation(problem), "images": list(problem.images)}
    return {"prompt": prompt_text(problem, task, reader)}


def encode(problems: list[Problem], task: Task, reader: Any) -> dict[str, Any]:
    """What `generate` takes for a batch: tensors by name, padded on the left. `reader` is from `models.load_reader`."""
    if not task.images:
        prompts = [prompt_text(problem, task, reader) for problem in problems]
        with transformers_on(reader.name_or_path, "tokenizer"):
            encoded = reader(prompts, return_tensors="pt", padding=True)
        return {name: encoded[name] for name in ("input_ids", "attention_mask")}
    from trl import prepare_multimodal_messages  # only now: a task without pictures does not wait for it

    said = [prepare_multimodal_messages(conversation(problem), images=list(problem.images)) for problem in problems]
    options = {"add_generation_prompt": True, "tokenize": True, "return_dict": True, "return_tensors": "pt"}
    with transformers_on(reader.tokenizer.name_or_path, "processor"):
        return dict(reader.apply_chat_template(said, **options, processor_kwargs={"padding": True}))
