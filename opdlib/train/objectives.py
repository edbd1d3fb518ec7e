"""One TRL trainer per objective; every setting that TRL would choose otherwise is spelled out.

The optimizers are each one difference away from AdamW or from plain gradient descent:

| name | step | what it isolates |
| --- | --- | --- |
| `adamw` | torch's AdamW, betas 0.9 and 0.999, eps 1e-8 | the paper's |
| `rmsprop` | the same with beta1 = 0: RMSProp with Adam's bias correction | adaptive scale without momentum |
| `sgd` | gradient descent | neither |
| `sgdm` | gradient descent with momentum 0.9 | momentum without adaptive scale |

torch's own RMSprop differs from AdamW in a second way: without bias correction its first steps are
1/sqrt(1 - alpha) times too long, ten times for its default. So it is not used.
"""

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from huggingface_hub import constants
from transformers import PrinterCallback, Trainer, TrainerCallback
from trl import DistillationConfig, GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer

from opdlib.errors import RecipeError
from opdlib.registry.recipes import DistillRecipe, OpsdRecipe, Recipe, RlvrRecipe, SftRecipe, TopKRecipe
from opdlib.train import processes
from opdlib.train.adapter import lora_config
from opdlib.train.distillation import Distillation, Objective
from opdlib.train.models import cut_head, tokenizer_of
from opdlib.train.prompts import end_tokens, prompt_row, prompt_text
from opdlib.train.tasks import Task, task_of

DISTILLATIONS = {
    "opd": Objective("student", "divergence", beta=1.0),
    "opd-fkl": Objective("student", "divergence", beta=0.0),
    "opd-jsd": Objective("student", "divergence", beta=0.5),
    "opd-topk": Objective("student", "top-k"),
    "opd-k1": Objective("student", "k1"),
    "opsd": Objective("student", "divergence", beta=1.0),
    "opd-ce": Objective("student", "cross-entropy"),
    "offline": Objective("teacher", "cross-entropy"),
    "offline-rkl": Objective("teacher", "divergence", beta=1.0),
}
"""The regimes with a teacher. opd, opd-ce, offline-rkl and offline are the 2 x 2 of who samples and which loss."""

OPTIMIZERS: dict[str, dict[str, Any]] = {
    "adamw": {"optim": "adamw_torch_fused"},
    "rmsprop": {"optim": "adamw_torch_fused", "adam_beta1": 0.0},
    "sgd": {"optim": "sgd"},
    "sgdm": {"optim": "sgd", "optim_args": "momentum=0.9"},
}
"""By name: the arguments of transformers' `TrainingArguments`."""


def build_trainer(
    recipe: Recipe, model: Any, reader: Any, teacher: Any | None, output: Path, callbacks: list[TrainerCallback]
) -> Trainer:
    """The TRL trainer of a recipe over float32 models; `teacher` is None for sft and rlvr, the source for opsd.

    `reader` is the tokenizer, or the processor where the task has images (`models.load_reader`). A teacher whose head
    has more rows of padding than the student's loses them. The data are exactly one epoch, in the order the task drew
    them: a resumed run then needs to know nothing of them but its step.
    """
    # TRL reports every start to its makers; what runs here stays here, whatever was imported first.
    constants.HF_HUB_DISABLE_TELEMETRY = True
    task, tokenizer = task_of(recipe), tokenizer_of(reader)
    model.generation_config.eos_token_id = end_tokens(task, tokenizer)
    if teacher is not None:
        cut_head(teacher, model.config.get_text_config().vocab_size)
    shared = {"model": model, "processing_class": reader, "callbacks": callbacks}
    if recipe.lora is not None:
        shared["peft_config"] = lora_config(recipe.lora)
    trainer: Trainer
    if isinstance(recipe, SftRecipe):
        args = SFTConfig(**_settings(recipe, output), train_sampling_strategy="sequential", max_length=None)
        trainer = SFTTrainer(args=args, train_dataset=_gold_answers(recipe, tokenizer), **shared)
    elif isinstance(recipe, RlvrRecipe):
        args, data = _rlvr_config(recipe, tokenizer, output), _prompts(recipe, tokenizer)
        trainer = GRPOTrainer(reward_funcs=_reward(task), args=args, train_dataset=data, **shared)
    else:
        objective = DISTILLATIONS[recipe.objective]
        if isinstance(recipe, TopKRecipe):
            objective = replace(objective, top_k=recipe.top_k)
        args, data = _distillation_config(recipe, objective, tokenizer, output), _prompts(recipe, reader)
        trainer = Distillation(objective, args=args, train_dataset=data, teacher_model=teacher, **shared)
    trainer.remove_callback(PrinterCallback)
    return trainer


def _prompts(recipe: DistillRecipe | OpsdRecipe | RlvrRecipe, reader: Any) -> Dataset:
    """One row a prompt for GRPO, which repeats them itself; one row a completion for the distillations."""
    generations = 1 if isinstance(recipe, OpsdRecipe) else recipe.generations
    task = task_of(recipe)
    problems = task.training(recipe.steps * recipe.batch_size // generations, recipe.seed)
    rows = [prompt_row(problem, task, reader) for problem in problems]
    if isinstance(recipe, RlvrRecipe):
        rows = [row | {"reference": problem.reference} for row, problem in zip(rows, problems, strict=True)]
    elif isinstance(recipe, OpsdRecipe):
        shown = [prompt_text(problem, task, reader, privileged=True) for problem in problems]
        rows = [row | {"privileged": text} for row, text in zip(rows, shown, strict=True)]
    else:
        rows = [row for row in rows for _ in range(generations)]
    return Dataset.from_list(rows)


def _gold_answers(recipe: SftRecipe, tokenizer: Any) -> Dataset:
    """Tokens of prompt and gold completion, the prompt's without loss; a share of the prompts, drawn from the seed, are
    privileged ones. The two are tokenized apart, as they are when the answer is generated."""
    rng = random.Random(f"privileged {recipe.seed}")
    task = task_of(recipe)
    end = [tokenizer.eos_token_id] if task.chat else []
    rows = []
    for problem in task.training(recipe.steps * recipe.batch_size, recipe.seed):
        text = prompt_text(problem, task, tokenizer, privileged=rng.random() < recipe.privileged)
        before = tokenizer(text)["input_ids"]
        after = tokenizer(problem.completion, add_special_tokens=False)["input_ids"] + end
        rows.append({"input_ids": before + after, "labels": [-100] * len(before) + after})
    return Dataset.from_list(rows)


def _reward(task: Task) -> Callable[..., list[float]]:
    def correct(completions: list[str], reference: list[str], **_: Any) -> list[float]:
        return [float(task.is_correct(said, right)) for said, right in zip(completions, reference, strict=True)]

    return correct


def _sampling(recipe: DistillRecipe | OpsdRecipe | RlvrRecipe, tokenizer: Any) -> dict[str, Any]:
    """What distillation and GRPO share: every token of the vocabulary can be sampled, data stay in order."""
    vllm = recipe.rollout == "vllm"
    # transformers reads the model's generation config; vLLM has to be told what ends a completion.
    ends = {"stop_token_ids": end_tokens(task_of(recipe), tokenizer)} if vllm else None
    return {
        "generation_kwargs": ends,
        "temperature": recipe.temperature,
        "top_p": 1.0,
        "top_k": 0,
        "max_completion_length": recipe.max_new_tokens,
        "shuffle_dataset": False,
        "disable_dropout": True,
        "use_vllm": vllm,
        "vllm_mode": "colocate",
        "vllm_gpu_memory_utilization": recipe.vllm_memory or 0.3,
    }


def _distillation_config(
    recipe: DistillRecipe | OpsdRecipe, objective: Objective, tokenizer: Any, output: Path
) -> DistillationConfig:
    return DistillationConfig(**_settings(recipe, output), **_sampling(recipe, tokenizer), beta=objective.beta)


def _rlvr_config(recipe: RlvrRecipe, tokenizer: Any, output: Path) -> GRPOConfig:
    return GRPOConfig(
        **_settings(recipe, output),
        **_sampling(recipe, tokenizer),
        num_generations=recipe.generations,
        beta=0.0,  # no reference model
        loss_type="dapo",
        scale_rewards="group",
        num_iterations=1,
        steps_per_generation=recipe.accumulate // processes.count(),
    )


def _settings(recipe: Recipe, output: Path) -> dict[str, Any]:
    """What all of TRL's configurations share."""
    cuda = torch.cuda.is_available()
    warmed = recipe.warmup is not None and recipe.schedule == "constant"
    if cuda and recipe.precision == "bf16" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise RecipeError(f"recipe {recipe.name}: precision is bf16, which this GPU only emulates; use fp32")
    return {
        "output_dir": str(output),
        "per_device_train_batch_size": recipe.batch_size // recipe.accumulate,
        "gradient_accumulation_steps": recipe.accumulate // processes.count(),
        "max_steps": recipe.steps,
        **OPTIMIZERS[recipe.optimizer],
        "learning_rate": recipe.learning_rate,
        # transformers' own constant schedule takes no notice of a warm-up.
        "lr_scheduler_type": "constant_with_warmup" if warmed else recipe.schedule,
        "warmup_steps": recipe.warmup or 0,
        "weight_decay": recipe.weight_decay,
        "max_grad_norm": recipe.clip,
        "bf16": recipe.precision == "bf16",
        "fp16": False,
        "activation_checkpointing": recipe.activation_checkpointing,
        "seed": recipe.seed,
        "data_seed": recipe.seed,
        "save_strategy": "steps",
        "save_steps": recipe.save_every,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "report_to": "none",
        "disable_tqdm": True,
        "ddp_timeout": int(processes.PATIENCE.total_seconds()),
        "use_cpu": not cuda,
        "dataloader_pin_memory": cuda,
    }
