"""What TRL computes, against the definitions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from opdlib.checkpoints import open_checkpoint
from opdlib.train.models import load_model, load_tokenizer
from opdlib.train.objectives import build_trainer
from opdlib.train.recipe import load_recipe

# TRL 1.16 still asks the model by the name that transformers 5.23 deprecates; `run` silences the same.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_opd_is_the_reverse_kl_on_sampled_tokens(
    tmp_path: Path,
    pico: Path,
    other_pico: Path,
    write_recipe: Callable[..., Path],
    temperature: float,
) -> None:
    path = write_recipe(tmp_path, "opd", precision="fp32", temperature=temperature)
    source = open_checkpoint(str(pico))
    student, tokenizer = load_model(source), load_tokenizer(source)
    teacher = load_model(open_checkpoint(str(other_pico)))
    trainer = build_trainer(load_recipe(path), student, tokenizer, teacher, tmp_path / "out", [])
    student.train()
    batch = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    loss = trainer.compute_loss(student, batch)

    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)
    seen = torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1)
    length = batch["completion_ids"].shape[1]
    with torch.no_grad():
        logits = [m(input_ids=ids, attention_mask=seen).logits for m in (student, teacher)]
    p, q = (torch.log_softmax(x[:, -length - 1 : -1].double() / temperature, dim=-1) for x in logits)
    per_token = (p.exp() * (p - q)).sum(-1)
    mask = batch["completion_mask"].bool()
    assert loss.item() == pytest.approx(per_token[mask].mean().item(), rel=1e-5)
    assert mask.sum() >= 4


def test_a_newline_ends_a_completion(
    tmp_path: Path, pico: Path, other_pico: Path, write_recipe: Callable[..., Path]
) -> None:
    path = write_recipe(tmp_path, "opd", batch_size=64, max_new_tokens=12)
    source = open_checkpoint(str(pico))
    student, tokenizer = load_model(source), load_tokenizer(source)
    teacher = load_model(open_checkpoint(str(other_pico)))
    trainer = build_trainer(load_recipe(path), student, tokenizer, teacher, tmp_path / "out", [])
    batch = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    newline = tokenizer.encode("\n")[0]
    rows = zip(batch["completion_ids"], batch["completion_mask"].bool(), strict=True)
    kept = [ids[mask].tolist() for ids, mask in rows]
    assert any(row[-1] == newline and len(row) < 12 for row in kept)
    assert all(newline not in row[:-1] for row in kept)


def test_sft_is_the_cross_entropy_of_the_answer_alone(
    tmp_path: Path, pico: Path, write_recipe: Callable[..., Path]
) -> None:
    path = write_recipe(tmp_path, "sft", precision="fp32")
    source = open_checkpoint(str(pico))
    model, tokenizer = load_model(source), load_tokenizer(source)
    trainer = build_trainer(load_recipe(path), model, tokenizer, None, tmp_path / "out", [])
    batch = next(iter(trainer.get_train_dataloader()))
    loss = trainer.compute_loss(model, dict(batch))
    with torch.no_grad():
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    logp = torch.log_softmax(logits[:, :-1].double(), dim=-1)
    expected, tokens = 0.0, 0
    for row, ids in enumerate(batch["input_ids"].tolist()):
        text = tokenizer.decode(ids)
        start = text.index(":", text.index("Result")) + 1
        end = text.index("\n", start) + 1
        padding = len(tokenizer.decode(ids, skip_special_tokens=False)) - len(text)
        assert padding == 0
        for position in range(start, end):
            expected -= logp[row, position - 1, ids[position]].item()
            tokens += 1
    assert loss.item() == pytest.approx(expected / tokens, rel=1e-5)


@pytest.mark.parametrize("objective", ["sft", "opd"])
def test_settings_that_trl_would_choose_otherwise(
    tmp_path: Path,
    pico: Path,
    other_pico: Path,
    write_recipe: Callable[..., Path],
    objective: str,
) -> None:
    source = open_checkpoint(str(pico))
    teacher = load_model(open_checkpoint(str(other_pico))) if objective == "opd" else None
    trainer = build_trainer(
        load_recipe(write_recipe(tmp_path, objective)),
        load_model(source),
        load_tokenizer(source),
        teacher,
        tmp_path / "out",
        [],
    )
    args = trainer.args
    assert args.lr_scheduler_type == "constant"
    assert not args.activation_checkpointing
    assert args.bf16
    assert (args.weight_decay, args.max_grad_norm, args.report_to) == (0.0, 1.0, [])
    assert {p.dtype for p in trainer.model.parameters()} == {torch.float32}
    assert len(trainer.get_train_dataloader()) == 6
