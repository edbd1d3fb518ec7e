"""Training recipes: one YAML per run, complete and strict, refused in one line if anything is off.

To add an objective, derive a class from `_Common` (or name it in `DISTILLATIONS`) with its own `objective` literal,
list it in `Recipe`, and teach `opdlib.train.objectives` its trainer.
"""

import difflib
import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, ValidationInfo, field_validator

from opdlib.errors import RecipeError
from opdlib.files import data_root, find
from opdlib.foreign import read_yaml
from opdlib.registry.tasks import JSONL, LARGEST_COUNT, Rows, find_data, is_own

PARENT = "recipe:"
"""A student, a teacher or the owner of a mask that starts so is the run of the recipe NAME.yaml beside this one, or
else of the one of that name that opdlib ships."""

LARGEST_RATE = {"adamw": 1, "rmsprop": 1, "sgd": 1000, "sgdm": 1000}
"""An adaptive step is the learning rate itself in every coordinate; a plain one scales with the gradient."""

LARGEST_RUN = 100_000_000
"""All completions of a run, at most: more would fill the memory with problems before the first step."""


EXACT = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
"""A recipe has no other keys than those of its model, and no value is taken for another."""


class Mask(BaseModel):
    """Training inside a mask: every other coordinate keeps the source's bits (`opdlib.train.masks`)."""

    model_config = EXACT

    kind: Literal["delta", "random", "magnitude", "smallest"]
    """delta: where the owner's weights changed by more than `threshold`. The others hold, tensor by tensor, as many
    coordinates: random ones, random ones within each binade of the source's abs(weight), or the smallest weights."""
    of: str = Field(min_length=1)
    """The owner: a trained checkpoint over the same source, or `recipe:NAME`, run with this run's seed."""
    threshold: float = Field(ge=0, strict=False)
    """abs(delta) in view bf16 above which a coordinate is in the owner's mask; the paper's is 1e-5."""


class Lora(BaseModel):
    """Training of a low-rank update beside frozen weights (LoRA, by PEFT): W + scale B A in every linear layer. The
    trained checkpoint is merged; the factors lie beside it, in `adapter/`."""

    model_config = EXACT

    rank: int = Field(ge=1, le=65536)
    """Of B A."""
    alpha: float = Field(gt=0, strict=False)
    """scale is alpha / rank, with `rslora` alpha / sqrt(rank)."""
    rslora: bool = False
    targets: tuple[str, ...] = Field(default=(), strict=False)
    """Names of the layers, such as q_proj; none: every linear layer but the head."""


class _Common(BaseModel):
    """What every objective needs."""

    model_config = EXACT

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]*$", max_length=100)
    """Names the run folder."""
    student: str = Field(min_length=1)
    """Checkpoint spec of the model that is trained, the source of the pair; or `recipe:NAME`; or `fresh:NAME`, random
    weights of a named architecture drawn from `seed`."""
    task: str
    """A name from `opdlib.registry.tasks`; one with images needs image-text models and a teacher."""
    rows: Rows | None = None
    """How the rows of one's own data are problems, with task jsonl:FILE or hub:ORG/NAME; absent: columns `prompt` and
    `reference`, scored exactly."""
    seed: int = Field(ge=0, lt=2**31)
    """Draws the training problems and the sampled tokens."""
    steps: int = Field(ge=1, le=LARGEST_COUNT)
    """Optimizer updates."""
    batch_size: int = Field(ge=1, le=LARGEST_COUNT)
    """Completions an update; every update sees new problems until the task's space repeats."""
    accumulate: int = Field(default=1, ge=1)
    """Forward passes that share a batch, over all processes."""
    optimizer: Literal["adamw", "sgd", "sgdm", "rmsprop"]
    """See `opdlib.train.objectives`."""
    learning_rate: float = Field(gt=0, strict=False)  # lax: YAML 1.1 reads 1e-5 as text
    schedule: Literal["constant", "linear", "cosine"]
    """constant: no decay; linear, cosine: from the learning rate to 0."""
    warmup: int | None = Field(default=None, ge=1)
    """Updates before the schedule, in which the learning rate grows from 0, the first one's, by equal steps; absent:
    none."""
    weight_decay: float = Field(ge=0, lt=1, strict=False)
    clip: float = Field(gt=0)
    """Largest global gradient norm."""
    precision: Literal["bf16", "fp32"]
    """bf16: autocast over float32 master weights."""
    activation_checkpointing: bool = False
    """True: the backward pass computes each layer's activations again instead of keeping them: the same numbers in less
    memory and more time."""
    threads: int | None = Field(default=None, ge=1, le=1024)
    """CPU threads. The last bits of a sum depend on them, so a run that must be repeated to the bit on another machine
    says how many; absent: as many as torch takes."""
    kernels: Literal["any-x86", "intel-avx2", "native"] = "native"
    """Which instructions compute (`opdlib.train.arithmetic`): any-x86 and intel-avx2 with precision fp32 give the same
    bits on every such CPU, native on one kind of CPU only. Nothing on a GPU."""
    gradient: Literal["true", "zero"] = "true"
    """zero: every gradient is replaced by 0 before the optimizer sees it; a control."""
    mask: Mask | None = None
    """Absent: every weight is trained."""
    lora: Lora | None = None
    """Absent: the weights themselves are trained. Not with a mask, a zero gradient or probes, which are of weights."""
    save_every: int = Field(ge=1, le=LARGEST_COUNT)
    """Updates between checkpoints from which a killed run resumes."""
    keep_every: int | None = Field(default=None, ge=1, le=LARGEST_COUNT)
    """Updates between weights that are kept and measured (steps/N); absent: only the last are."""
    probe_every: int | None = Field(default=None, ge=1, le=LARGEST_COUNT)
    """Updates between looks at optimizer and weights (`opdlib.train.probes`); absent: none."""
    evaluate_every: int | None = Field(default=None, ge=1, le=LARGEST_COUNT)
    """Updates between evaluations on the held-out problems; absent: only at the end."""
    evaluation_size: int = Field(ge=1, le=LARGEST_COUNT)
    """Held-out problems that source, teacher and student answer at the end."""
    evaluation_seed: int = Field(ge=0, lt=2**31)

    @field_validator("*")
    @classmethod
    def _fits(cls, value: Any, info: ValidationInfo) -> Any:
        if said := _refusal(str(info.field_name), value, info.data):
            raise ValueError(said)
        return value


def _refusal(key: str, value: Any, before: Mapping[str, Any]) -> str:
    """Why a value of the right type does not go with the keys `before` it; empty if it does."""
    match key:
        case _ if value is None:
            return ""
        case "task":
            try:
                data = find_data(value)
            except ValueError as error:
                return str(error).partition("; ")[2]
            return "" if data is None or data.training else "it has no training problems, and is for evaluation only"
        case "batch_size" if value * before.get("steps", 1) > LARGEST_RUN:
            return f"wanted at most {LARGEST_RUN:,} completions in all steps"
        case "accumulate" | "generations" if before.get("batch_size", value) % value:
            return f"wanted a divisor of batch_size {before['batch_size']}"
        case "rows" if not is_own(before.get("task", JSONL)):
            return "the task has problems of its own; leave rows out, or say task: jsonl:FILE"
        case "learning_rate" if value >= (limit := LARGEST_RATE[before.get("optimizer", "sgd")]):
            return f"wanted a number below {limit} with optimizer {before.get('optimizer')}"
        case "warmup" if value >= before.get("steps", math.inf):
            return f"wanted fewer than steps, {before['steps']}"
        case "lora" if before.get("mask") or before.get("gradient") == "zero":
            return "with a mask or a zero gradient the weights themselves are trained; leave one of them out"
        case "probe_every" if before.get("lora"):
            return "probes look at weights, and with lora others are trained; leave it out"
        case "vllm_memory" if before.get("rollout") == "transformers":
            return "nothing takes it with rollout transformers; leave it out, or say rollout: vllm"
        case "objective" if value.startswith("offline") and before.get("rollout") == "vllm":
            return "vllm holds the student, and here the teacher samples; leave rollout out"
    return ""


class SftRecipe(_Common):
    """Cross-entropy on the gold answers (tokens of the answer only)."""

    objective: Literal["sft"]
    privileged: float = Field(default=0.0, ge=0, le=1)
    """Share of the training problems that are shown after their own solution, drawn from the seed: a model trained so
    can be its own teacher (opsd)."""


class _Sampling(_Common):
    """What every objective needs that trains on sampled completions."""

    max_new_tokens: int = Field(ge=1, le=LARGEST_COUNT)
    """Longest sampled completion."""
    temperature: float = Field(ge=1e-6, le=1e3)
    """Of the sampling and of the distributions in the loss."""
    rollout: Literal["transformers", "vllm"] = "transformers"
    """What samples the completions; vllm needs a GPU, which it shares with the training."""
    vllm_memory: float | None = Field(default=None, gt=0, lt=1)
    """Share of the GPU's memory that vLLM takes from the start, for its weights in bf16 and its cache; absent: 0.3."""


class DistillRecipe(_Sampling):
    """A teacher's distribution, token by token; the objectives differ in who samples and in the loss (`DISTILLATIONS`
    in `opdlib.train.objectives`)."""

    objective: Literal["opd", "opd-fkl", "opd-jsd", "opd-k1", "opd-ce", "offline", "offline-rkl"]
    teacher: str = Field(min_length=1)
    """Checkpoint spec, or `recipe:NAME`, run with its own seed."""
    generations: int = Field(default=1, ge=1)
    """Completions a prompt; divides `batch_size`."""


class TopKRecipe(DistillRecipe):
    """Forward KL on the teacher's most likely tokens (paper, Table 6: k = 32)."""

    objective: Literal["opd-topk"]  # type: ignore[assignment]  # narrower on purpose
    top_k: int = Field(ge=1, le=LARGEST_COUNT)
    """Tokens of the teacher that the loss sees at each position."""


class OpsdRecipe(_Sampling):
    """On-policy self-distillation: the teacher is the source itself, shown the task's privileged prompt."""

    objective: Literal["opsd"]


class RlvrRecipe(_Sampling):
    """GRPO with the task's strict scorer as reward: no KL term, advantages normalised within a prompt's group."""

    objective: Literal["rlvr"]
    generations: int = Field(ge=2)
    """Completions a prompt: the group; divides `batch_size`."""


Recipe = SftRecipe | DistillRecipe | TopKRecipe | OpsdRecipe | RlvrRecipe
KINDS: dict[str, type[_Common]] = {
    objective: kind for kind in get_args(Recipe) for objective in get_args(kind.model_fields["objective"].annotation)
}
"""The recipe class of every objective."""

PARTS: dict[str, type[BaseModel]] = {"mask": Mask, "lora": Lora, "rows": Rows}
"""The keys that hold keys of their own."""

_ADAPTER: TypeAdapter[Recipe] = TypeAdapter(Annotated[Recipe, Field(discriminator="objective")])


def find_recipe(named: str | Path) -> Path:
    """The file `named`, else the recipe of that name that opdlib ships, such as pico-opd or bf16/pico-opd. What is
    nowhere is given back: `load_recipe` refuses it."""
    path = find(Path(named))
    shipped = data_root() / "recipes" / f"{named}.yaml"
    return shipped if shipped.is_file() and not path.is_file() else path


def load_recipe(path: Path) -> Recipe:
    """Read and check a recipe. Raises RecipeError naming file, key, value found and what is allowed."""
    if not path.exists():
        names = sorted(file.stem for file in (data_root() / "recipes").glob("*.yaml"))
        close = difflib.get_close_matches(path.stem, names, n=3)
        meant = f"did you mean {' or '.join(close)}? " if close else ""
        raise RecipeError(
            f"{path}: no such recipe, neither a file nor one that opdlib has; {meant}{data_root() / 'recipes'} has them"
        )
    content = read_yaml(path, RecipeError, "wanted a recipe as in data/recipes")
    return check_recipe(content, str(path))


def check_recipe(content: object, origin: str) -> Recipe:
    """The recipe that `content` describes; `origin` names it in errors. Raises RecipeError."""
    if not isinstance(content, dict):
        raise RecipeError(f"{origin}: holds a {type(content).__name__}, wanted a mapping of keys to values")
    try:
        return _ADAPTER.validate_python(content)
    except ValidationError as error:
        raise RecipeError(f"{origin}: {_explain(error, content)}") from None


def recipe_digest(recipe: Recipe) -> str:
    """SHA-256 of what a recipe says, seed included, whatever is said by leaving it out."""
    said = recipe.model_dump(mode="json", exclude_defaults=True)
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def _explain(error: ValidationError, content: dict[Any, Any]) -> str:
    """The first problem, in one line."""
    first = error.errors(include_url=False)[0]
    if first["type"].startswith("union_tag"):
        found = repr(content["objective"]) if "objective" in content else "missing"
        return f"objective is {found}; choose one of: {', '.join(sorted(KINDS))}"
    path = [str(part) for part in first["loc"][1:]]
    key = ".".join(path)
    if first["type"] == "extra_forbidden":
        model: type[BaseModel] = KINDS[content["objective"]]
        owner = f"objective {content['objective']}"
        if len(path) > 1:
            model, owner = PARTS[path[0]], path[0]
        return f"key {key!r} = {first['input']!r} is unknown for {owner}; allowed: {', '.join(model.model_fields)}"
    if first["type"] == "missing":
        return f"key {key!r} is missing"
    said = first["msg"].removeprefix("Value error, ")
    return f"{key} is {first['input']!r}; {said[0].lower()}{said[1:]}"
