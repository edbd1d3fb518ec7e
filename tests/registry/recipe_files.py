"""Recipes that train a pico model in a second."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml


def recipe_content(objective: str, student: str, teacher: str) -> dict[str, Any]:
    """A complete recipe of 6 steps of 4 problems."""
    content: dict[str, Any] = {
        "name": f"pico-{objective}",
        "objective": objective,
        "student": student,
        "task": "arithmetic",
        "seed": 0,
        "steps": 6,
        "batch_size": 4,
        "optimizer": "adamw",
        "learning_rate": 0.001,
        "schedule": "constant",
        "weight_decay": 0.0,
        "clip": 1.0,
        "precision": "bf16",
        "save_every": 2,
        "evaluation_size": 3,
        "evaluation_seed": 0,
    }
    if objective != "sft":
        content |= {"max_new_tokens": 4, "temperature": 1.0}
    if objective not in ("sft", "opsd", "rlvr"):
        content["teacher"] = teacher
    return content | {"opd-topk": {"top_k": 3}, "rlvr": {"generations": 2}}.get(objective, {})


def recipe_writer(student: str, teacher: str) -> Callable[..., Path]:
    """`write(folder, objective, **changes)`: a recipe of these two models; a change to None leaves a key out."""

    def write(folder: Path, objective: str, **changes: Any) -> Path:
        content = recipe_content(objective, student, teacher) | changes
        content = {key: value for key, value in content.items() if value is not None}
        path = folder / f"{content['name']}.yaml"
        path.write_text(yaml.safe_dump(content), encoding="utf8")
        return path

    return write
