"""One TRL trainer per objective; every setting that TRL would choose otherwise is spelled out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from huggingface_hub import constants
from transformers import PrinterCallback, Trainer, TrainerCallback
from trl import (
    DistillationConfig,
    DistillationTrainer,
    SFTConfig,
    SFTTrainer,
)

from opdlib.errors import RecipeError
from opdlib.train.models import stop_tokens
from opdlib.train.recipe import OpdRecipe, Recipe, SftRecipe
from opdlib.train.tasks import TASKS, Problem


def build_trainer(
    recipe: Recipe,
    model: Any,
    tokenizer: Any,
    teacher: Any | None,
    output: Path,
    callbacks: list[TrainerCallback],
) -> Trainer:
    """The TRL trainer of a recipe over float32 models; `teacher` is None for sft.

    The data are exactly one epoch, in the order the task drew them: a resumed run then needs to
    know nothing of them but its step.
    """
    # TRL reports every start to its makers; what runs here stays here, whatever was imported first.
    constants.HF_HUB_DISABLE_TELEMETRY = True
    problems = TASKS[recipe.task].training(recipe.steps * recipe.batch_size, recipe.seed)
    model.generation_config.eos_token_id = stop_tokens(tokenizer)
    shared = {"model": model, "processing_class": tokenizer, "callbacks": callbacks}
    trainer: Trainer
    if isinstance(recipe, SftRecipe):
        examples = [_gold(problem, tokenizer) for problem in problems]
        trainer = SFTTrainer(args=_sft_config(recipe, output), train_dataset=Dataset.from_list(examples), **shared)
    else:
        prompts = [{"prompt": problem.prompt} for problem in problems]
        trainer = DistillationTrainer(
            args=_opd_config(recipe, output),
            train_dataset=Dataset.from_list(prompts),
            teacher_model=teacher,
            **shared,
        )
    trainer.remove_callback(PrinterCallback)
    return trainer


def _sft_config(recipe: SftRecipe, output: Path) -> SFTConfig:
    return SFTConfig(
        **_settings(recipe, output),
        train_sampling_strategy="sequential",
        max_length=None,
    )


def _opd_config(recipe: OpdRecipe, output: Path) -> DistillationConfig:
    return DistillationConfig(
        **_settings(recipe, output),
        beta=1.0,  # reverse KL
        temperature=recipe.temperature,
        top_p=1.0,
        top_k=0,
        max_completion_length=recipe.max_new_tokens,
        shuffle_dataset=False,
        disable_dropout=True,
    )


def _settings(recipe: Recipe, output: Path) -> dict[str, Any]:
    """What both of TRL's configurations share."""
    cuda = torch.cuda.is_available()
    if cuda and recipe.precision == "bf16" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise RecipeError(f"recipe {recipe.name}: precision is bf16, which this GPU only emulates; use fp32")
    return {
        "output_dir": str(output),
        "per_device_train_batch_size": recipe.batch_size,
        "gradient_accumulation_steps": 1,
        "max_steps": recipe.steps,
        "optim": {"adamw": "adamw_torch_fused"}[recipe.optimizer],
        "learning_rate": recipe.learning_rate,
        "lr_scheduler_type": recipe.schedule,
        "warmup_steps": 0,
        "weight_decay": recipe.weight_decay,
        "max_grad_norm": recipe.clip,
        "bf16": recipe.precision == "bf16",
        "fp16": False,
        "activation_checkpointing": False,
        "seed": recipe.seed,
        "data_seed": recipe.seed,
        "save_strategy": "steps",
        "save_steps": recipe.save_every,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": not cuda,
        "dataloader_pin_memory": cuda,
    }


def _gold(problem: Problem, tokenizer: Any) -> dict[str, list[int]]:
    """Tokens of prompt and gold completion, the prompt's without loss.

    They are tokenized apart, as they are when the answer is generated.
    """
    prompt = tokenizer(problem.prompt)["input_ids"]
    completion = tokenizer(problem.completion, add_special_tokens=False)["input_ids"]
    return {"input_ids": prompt + completion, "labels": [-100] * len(prompt) + completion}
