"""Training recipes: one YAML per run, complete and strict, refused in one line if anything is off.

To add an objective, derive a class from `_Common` with its own `objective` literal, list it in
`Recipe`, and teach `opdlib.train.objectives` its trainer.
"""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator

from opdlib.errors import RecipeError
from opdlib.train.tasks import TASKS


class _Common(BaseModel):
    """What every objective needs."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")
    """Names the run folder."""
    student: str = Field(min_length=1)
    """Checkpoint spec of the model that is trained; it is also the source of the pair."""
    task: str
    """A name from `opdlib.train.tasks`."""
    seed: int = Field(ge=0, lt=2**31)
    """Draws the training problems and the sampled tokens."""
    steps: int = Field(ge=1)
    """Optimizer updates."""
    batch_size: int = Field(ge=1)
    """Problems an update; every update sees new ones until the task's space repeats."""
    optimizer: Literal["adamw"]
    """adamw: torch's, betas 0.9 and 0.999, eps 1e-8."""
    learning_rate: float = Field(gt=0, lt=1, strict=False)  # lax: YAML 1.1 reads 1e-5 as text
    schedule: Literal["constant"]
    """constant: no warm-up, no decay."""
    weight_decay: float = Field(ge=0, lt=1, strict=False)
    clip: float = Field(gt=0)
    """Largest global gradient norm."""
    precision: Literal["bf16", "fp32"]
    """bf16: autocast over float32 master weights."""
    save_every: int = Field(ge=1)
    """Updates between checkpoints from which a killed run resumes."""
    evaluation_size: int = Field(ge=1)
    """Held-out problems that source, teacher and student answer at the end."""
    evaluation_seed: int = Field(ge=0, lt=2**31)

    @field_validator("task")
    @classmethod
    def _known(cls, task: str) -> str:
        if task not in TASKS:
            raise ValueError(f"choose one of: {', '.join(TASKS)}")
        return task


class SftRecipe(_Common):
    """Cross-entropy on the gold answers (tokens of the answer only)."""

    objective: Literal["sft"]


class OpdRecipe(_Common):
    """Reverse KL to the teacher, token by token, on completions that the student samples."""

    objective: Literal["opd"]
    teacher: str = Field(min_length=1)
    """Checkpoint spec, or `recipe:NAME`: the recipe beside this one, trained first."""
    max_new_tokens: int = Field(ge=1)
    """Longest sampled completion."""
    temperature: float = Field(gt=0)
    """Of the sampling and of both distributions."""


Recipe = SftRecipe | OpdRecipe
_ADAPTER: TypeAdapter[Recipe] = TypeAdapter(Annotated[Recipe, Field(discriminator="objective")])


class _Loader(yaml.SafeLoader):
    """SafeLoader that does not let a repeated key overwrite the first."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} occurs twice", node.start_mark)
        return super().construct_mapping(node, deep)


def load_recipe(path: Path) -> Recipe:
    """Read and check a recipe. Raises RecipeError naming file, key, value found and what is allowed."""
    try:
        content = yaml.load(path.read_text(encoding="utf8"), Loader=_Loader)
    except FileNotFoundError as error:
        raise RecipeError(f"{path}: no such recipe; see data/recipes for the ones that exist") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RecipeError(f"{path}: not readable as YAML: {' '.join(str(error).split())}") from error
    return check_recipe(content, str(path))


def check_recipe(content: object, origin: str) -> Recipe:
    """The recipe that `content` describes; `origin` names it in errors. Raises RecipeError."""
    if not isinstance(content, dict):
        raise RecipeError(f"{origin}: holds a {type(content).__name__}, wanted a mapping of keys to values")
    try:
        return _ADAPTER.validate_python(content)
    except ValidationError as error:
        raise RecipeError(f"{origin}: {_explain(error, content)}") from None


def _explain(error: ValidationError, content: dict[Any, Any]) -> str:
    """The first problem, in one line."""
    first = error.errors(include_url=False)[0]
    if first["type"].startswith("union_tag"):
        found = repr(content["objective"]) if "objective" in content else "missing"
        return f"objective is {found}; choose one of: opd, sft"
    key = first["loc"][-1]
    kind = OpdRecipe if content["objective"] == "opd" else SftRecipe
    if first["type"] == "extra_forbidden":
        known = ", ".join(kind.model_fields)
        return f"key {key!r} = {first['input']!r} is unknown for objective {content['objective']}; allowed: {known}"
    if first["type"] == "missing":
        return f"key {key!r} is missing"
    return f"{key} is {first['input']!r}; {first['msg'][0].lower()}{first['msg'][1:]}"
