"""TRL's DistillationTrainer with three choices opened: who samples, what the teacher sees, which loss."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from trl import DistillationTrainer
from trl.trainer.utils import pad

from opdlib.errors import RecipeError
from opdlib.train import losses

AFTER_THE_HEAD = ("final_logit_softcapping", "logit_scale", "logits_scaling", "lm_head_multiplier", "output_multiplier")
"""Keys of a model's config that change its logits; TRL's divergence applies them, the losses here do not."""
ROWS = 1024
"""Positions whose logits are held at once: 0.6 GB in float32 for a vocabulary of 151,936 tokens."""

IMAGE_FIELDS = tuple(inspect.signature(DistillationTrainer._get_last_hidden_state).parameters)[5:]
"""What a batch holds of its images, as far as TRL hands it to a model: pixel_values, image_grid_thw, ..."""


@dataclass(frozen=True)
class Objective:
    """What distinguishes one distillation from another."""

    samples: Literal["student", "teacher"]
    """Whose completions are trained on."""
    loss: Literal["divergence", "cross-entropy", "k1", "top-k"]
    """divergence: TRL's, over the full vocabulary; the others are in `opdlib.train.losses`."""
    beta: float = 1.0
    """Of TRL's divergence: 1 reverse KL, 0 forward KL, 0.5 JSD."""
    top_k: int = 0
    """Of the loss top-k."""


class Distillation(DistillationTrainer):  # type: ignore[misc]  # trl is Any to mypy
    """The trainer of an `Objective`. A column `privileged` of the data, if there, is the prompt the teacher sees."""

    def __init__(self, objective: Objective, **options: Any) -> None:
        super().__init__(**options)
        if objective.loss != "divergence":
            for model in (self.model, self.teacher_model):
                _check_plain(self.accelerator.unwrap_model(model).config.get_text_config())
        self.objective = objective
        self._shown: tuple[Tensor, Tensor] | None = None  # ids and mask of the privileged prompts, within a loss

    def _set_signature_columns_if_needed(self) -> None:
        self._signature_columns = ["prompt", "images", "privileged"]

    def _generate_single_turn(self, *prompts: Any, **options: Any) -> Any:
        if self.objective.samples == "student":
            return super()._generate_single_turn(*prompts, **options)
        student: Any = self.model_wrapped  # type: ignore[has-type]  # set by transformers
        self.model_wrapped = self.teacher_model
        try:
            return super()._generate_single_turn(*prompts, **options)
        finally:
            self.model_wrapped = student

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        batch: dict[str, Any] = super()._generate_and_score_completions(inputs)
        if "privileged" in inputs[0]:
            ids = [torch.tensor(self._tokenizer(row["privileged"])["input_ids"]) for row in inputs]
            shown = {
                "privileged_ids": pad(ids, padding_value=self._tokenizer.pad_token_id, padding_side="left"),
                "privileged_mask": pad([torch.ones_like(x) for x in ids], padding_value=0, padding_side="left"),
            }
            batch |= {name: tensor.to(self.accelerator.device) for name, tensor in shown.items()}
        return batch

    def _get_last_hidden_state(
        self, model: Any, input_ids: Tensor, attention_mask: Tensor, logits_to_keep: int, **fields: Any
    ) -> Tensor:
        if self._shown is not None and model is self.accelerator.unwrap_model(self.teacher_model):
            shown = zip(self._shown, (input_ids, attention_mask), strict=True)
            input_ids, attention_mask = (torch.cat([new, old[:, -logits_to_keep:]], dim=1) for new, old in shown)
        hidden: Tensor = super()._get_last_hidden_state(model, input_ids, attention_mask, logits_to_keep, **fields)
        return hidden

    def _compute_loss(
        self, student: Any, inputs: dict[str, Any], num_items_in_batch: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Loss, sum of the student's entropies and number of tokens of one batch."""
        if "privileged_ids" in inputs:
            self._shown = inputs["privileged_ids"], inputs["privileged_mask"]
        try:
            if self.objective.loss == "divergence":
                done: tuple[Tensor, Tensor, Tensor] = super()._compute_loss(student, inputs, num_items_in_batch)
                return done
            return self._sampled_loss(student, inputs, num_items_in_batch)
        finally:
            self._shown = None

    def _sampled_loss(
        self, student: Any, inputs: dict[str, Any], num_items_in_batch: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        tokens = inputs["completion_ids"]
        ids = torch.cat([inputs["prompt_ids"], tokens], dim=1)
        mask = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1)
        valid = inputs["completion_mask"].bool()
        seen = {name: inputs[name] for name in IMAGE_FIELDS if name in inputs}
        hidden = self._get_last_hidden_state(student, ids, mask, tokens.shape[1], **seen)[valid]
        said = self._said_by_teacher(ids, mask, valid, tokens[valid], **seen)
        loss, entropies = hidden.new_zeros((), dtype=torch.float32), hidden.new_zeros((), dtype=torch.float32)
        for rows in range(0, len(hidden), ROWS):
            part = slice(rows, rows + ROWS)
            arguments = (student, hidden[part], tokens[valid][part], *(x[part] for x in said))
            # Recomputed in the backward pass, so that one block's logits live at a time.
            summed, entropy = checkpoint(self._block, *arguments, use_reentrant=False)
            loss, entropies = loss + summed, entropies + entropy
        return loss / num_items_in_batch, entropies.detach(), valid.sum()

    def _block(self, student: Any, hidden: Tensor, token: Tensor, *said: Tensor) -> tuple[Tensor, Tensor]:
        """Summed loss and entropy of a block of rows."""
        logits = self._logits(student, hidden)
        return LOSSES[self.objective.loss](logits, token, *said).sum(), losses.entropy(logits.detach()).sum()

    def _logits(self, model: Any, hidden: Tensor) -> Tensor:
        """The float32 logits over temperature that `hidden` (rows, width) gives: (rows, vocabulary)."""
        logits: Tensor = model.get_output_embeddings()(hidden).float() / self.temperature
        return logits

    @torch.no_grad()
    def _said_by_teacher(
        self, ids: Tensor, mask: Tensor, valid: Tensor, tokens: Tensor, **seen: Tensor
    ) -> tuple[Tensor, ...]:
        """What the loss needs of the teacher at each valid position, small beside its logits."""
        if self.objective.loss == "cross-entropy" and self.objective.samples == "teacher":
            return (tokens,)
        self.teacher_model.eval()
        teacher = self.accelerator.unwrap_model(self.teacher_model)
        hidden = self._get_last_hidden_state(teacher, ids, mask, valid.shape[1], **seen)[valid]
        blocks: list[tuple[Tensor, ...]] = []
        for rows in range(0, len(hidden), ROWS):
            logits = self._logits(teacher, hidden[rows : rows + ROWS])
            log_probabilities = torch.log_softmax(logits, dim=-1)
            if self.objective.loss == "cross-entropy":
                blocks.append((losses.drawn(logits),))
            elif self.objective.loss == "k1":
                blocks.append((log_probabilities.gather(-1, tokens[rows : rows + ROWS, None]).squeeze(-1),))
            else:
                likeliest = log_probabilities.topk(self.objective.top_k, dim=-1)
                blocks.append((likeliest.indices, likeliest.values))
        return tuple(torch.cat(parts) for parts in zip(*blocks, strict=True))


def _check_plain(config: Any) -> None:
    """Raises RecipeError for a model that does more to its logits than its head does."""
    for key in AFTER_THE_HEAD:
        if getattr(config, key, None) is not None:
            raise RecipeError(
                f"model {config.model_type}: its config has {key} {getattr(config, key)}, which the losses of opdlib "
                "do not apply; use objective opd, opd-fkl, opd-jsd or offline-rkl"
            )


LOSSES: dict[str, Callable[..., Tensor]] = {
    "cross-entropy": lambda student, _, choice: losses.cross_entropy(student, choice),
    "k1": losses.k1,
    "top-k": lambda student, _, *said: losses.top_k(student, *said),
}
"""By name: the loss of the student's logits, the sampled token and what the teacher said."""
