"""What TRL computes, against the definitions."""

import copy
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch

from opdlib.checkpoints import open_checkpoint
from opdlib.errors import RecipeError
from opdlib.registry.recipes import DistillRecipe, RlvrRecipe, load_recipe
from opdlib.tables.matched.arms import CORNERS
from opdlib.train.models import load_model, load_reader
from opdlib.train.objectives import DISTILLATIONS, _distillation_config, _rlvr_config, _sampling, build_trainer
from opdlib.train.processes import PATIENCE
from opdlib.train.prompts import end_tokens
from opdlib.train.tasks import Task, find_task, is_correct

# TRL 1.16 still asks the model by the name that transformers 5.23 deprecates; `run` silences the same.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
]


Batch = dict[str, torch.Tensor]


def distillation(
    objective: str, tmp_path: Path, pico: Path, other_pico: Path, write_recipe: Callable[..., Path], **changes: Any
) -> tuple[Any, Any, Any, Batch, torch.Tensor]:
    """Trainer, student, teacher, its first batch and the loss on it, in float32."""
    recipe = load_recipe(write_recipe(tmp_path, objective, precision="fp32", **changes))
    source = open_checkpoint(str(pico))
    student, tokenizer = load_model(source), load_reader(source)
    teacher = load_model(open_checkpoint(str(other_pico)))
    teacher.model.norm.weight.data.neg_()  # untrained models agree; this one likes least what it liked most
    trainer = build_trainer(recipe, student, tokenizer, teacher, tmp_path / "out", [])
    student.train()
    batch = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    torch.manual_seed(11)
    return trainer, student, teacher, batch, trainer.compute_loss(student, batch)


def log_probabilities(
    model: Any,
    prompts: torch.Tensor,
    prompt_mask: torch.Tensor,
    batch: Batch,
    temperature: float,
    rows: int | None = None,
) -> torch.Tensor:
    """Of every completion token's position, over the first `rows` tokens, in float64: (valid positions, vocabulary)."""
    ids = torch.cat([prompts, batch["completion_ids"]], dim=1)
    seen = torch.cat([prompt_mask, batch["completion_mask"]], dim=1)
    length = batch["completion_ids"].shape[1]
    with torch.no_grad():
        logits = model(input_ids=ids, attention_mask=seen).logits
    said = torch.log_softmax(logits[:, -length - 1 : -1, :rows].double() / temperature, dim=-1)
    return said[batch["completion_mask"].bool()]


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize(
    "objective", ["opd", "opd-fkl", "opd-jsd", "opd-topk", "opd-k1", "opd-ce", "offline", "offline-rkl", "opsd"]
)
def test_the_loss_is_its_definition_on_the_sampled_tokens(
    tmp_path: Path, pico: Path, other_pico: Path, write_recipe: Callable[..., Path], objective: str, temperature: float
) -> None:
    _, student, teacher, batch, loss = distillation(
        objective, tmp_path, pico, other_pico, write_recipe, temperature=temperature
    )
    shown = "privileged" if objective == "opsd" else "prompt"
    p = log_probabilities(student, batch["prompt_ids"], batch["prompt_mask"], batch, temperature)
    q = log_probabilities(teacher, batch[f"{shown}_ids"], batch[f"{shown}_mask"], batch, temperature)
    y = batch["completion_ids"][batch["completion_mask"].bool()]
    at = torch.arange(len(y))
    middle = ((p.exp() + q.exp()) / 2).log()
    if objective == "opd-ce":
        torch.manual_seed(11)
        drawn = torch.multinomial(q.float().exp(), 1).squeeze(-1)
    reverse = (p.exp() * (p - q)).sum(-1)
    likeliest = q.topk(3, dim=-1).indices
    expected = {
        "opd": lambda: reverse,
        "offline-rkl": lambda: reverse,
        "opsd": lambda: reverse,
        "opd-fkl": lambda: (q.exp() * (q - p)).sum(-1),
        "opd-jsd": lambda: ((p.exp() * (p - middle)).sum(-1) + (q.exp() * (q - middle)).sum(-1)) / 2,
        "opd-topk": lambda: (q.exp() * (q - p)).gather(-1, likeliest).sum(-1),
        "opd-k1": lambda: (p[at, y] - q[at, y]) * p[at, y],
        "opd-ce": lambda: -p[at, drawn],
        "offline": lambda: -p[at, y],
    }[objective]().mean()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert len(y) >= 4


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("objective", ["opd", "opd-fkl", "opd-topk", "opd-k1", "offline-rkl"])
def test_a_teachers_rows_of_padding_are_left_out(
    tmp_path: Path, pico: Path, other_pico: Path, write_recipe: Callable[..., Path], objective: str, tied: bool
) -> None:
    recipe = load_recipe(write_recipe(tmp_path, objective, precision="fp32"))
    source = open_checkpoint(str(pico))
    student, teacher = load_model(source), load_model(open_checkpoint(str(other_pico)))
    rows = student.config.vocab_size
    teacher.resize_token_embeddings(rows + 3, mean_resizing=False)
    if not tied:
        teacher.config.tie_word_embeddings = False
        teacher.lm_head.weight = torch.nn.Parameter(-teacher.lm_head.weight.detach())
    teacher.get_output_embeddings().weight.data[rows:] = 5 * torch.ones(32)  # would take much of every distribution
    whole = copy.deepcopy(teacher)
    trainer = build_trainer(recipe, student, load_reader(source), teacher, tmp_path / "out", [])
    student.train()
    batch = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    loss = trainer.compute_loss(student, batch)
    p = log_probabilities(student, batch["prompt_ids"], batch["prompt_mask"], batch, 1.0)
    q = log_probabilities(whole, batch["prompt_ids"], batch["prompt_mask"], batch, 1.0, rows)
    y = batch["completion_ids"][batch["completion_mask"].bool()]
    at, likeliest = torch.arange(len(y)), q.topk(3, dim=-1).indices
    reverse = (p.exp() * (p - q)).sum(-1)
    expected = {
        "opd": reverse,
        "offline-rkl": reverse,
        "opd-fkl": (q.exp() * (q - p)).sum(-1),
        "opd-topk": (q.exp() * (q - p)).gather(-1, likeliest).sum(-1),
        "opd-k1": (p[at, y] - q[at, y]) * p[at, y],
    }[objective].mean()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert y.max() < rows


@pytest.mark.parametrize("objective", ["opd", "offline", "offline-rkl", "opd-ce"])
def test_who_samples(
    tmp_path: Path, pico: Path, other_pico: Path, write_recipe: Callable[..., Path], objective: str
) -> None:
    """A cold temperature makes each model sample its own greedy completion."""
    _, student, teacher, batch, _ = distillation(
        objective, tmp_path, pico, other_pico, write_recipe, temperature=1e-4, batch_size=8
    )
    chosen = {}
    for name, model in (("student", student), ("teacher", teacher)):
        rows = log_probabilities(model, batch["prompt_ids"], batch["prompt_mask"], batch, 1.0)
        chosen[name] = rows.argmax(-1)
    y = batch["completion_ids"][batch["completion_mask"].bool()]
    sampler, other = ("teacher", "student") if objective.startswith("offline") else ("student", "teacher")
    assert torch.equal(y, chosen[sampler])
    assert not torch.equal(y, chosen[other])


def test_a_self_teacher_sees_the_solved_problem(
    tmp_path: Path, pico: Path, other_pico: Path, write_recipe: Callable[..., Path]
) -> None:
    trainer, *_, batch, _ = distillation("opsd", tmp_path, pico, other_pico, write_recipe)
    texts = [
        trainer.processing_class.batch_decode(batch[f"{x}_ids"], skip_special_tokens=True)
        for x in ("prompt", "privileged")
    ]
    for plain, shown in zip(*texts, strict=True):
        assert shown.startswith(plain)
        assert shown.endswith(plain)
        assert is_correct(shown[len(plain) :], str(eval(plain.split(":")[1].split("\n")[0])))


def test_rlvr_rewards_exact_answers_and_normalises_within_groups(
    tmp_path: Path, pico: Path, write_recipe: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = load_recipe(write_recipe(tmp_path, "rlvr", precision="fp32", batch_size=8, generations=4))
    source = open_checkpoint(str(pico))
    model = load_model(source)
    # No random answer is ever right: call those right that begin with an even token.
    monkeypatch.setattr(Task, "is_correct", lambda _, completion, answer: len(completion) % 2 == 0)
    trainer = build_trainer(recipe, model, load_reader(source), None, tmp_path / "out", [])
    model.train()
    rows = next(iter(trainer.get_train_dataloader()))
    assert [row["prompt"] for row in rows] == [p for p in dict.fromkeys(r["prompt"] for r in rows) for _ in range(4)]
    torch.manual_seed(3)
    batch = trainer._generate_and_score_completions(rows)
    texts = trainer.processing_class.batch_decode(batch["completion_ids"], skip_special_tokens=True)
    rewards = torch.tensor([float(len(text) % 2 == 0) for text in texts]).reshape(2, 4)
    expected = (rewards - rewards.mean(1, keepdim=True)) / (rewards.std(1, keepdim=True) + 1e-4)
    torch.testing.assert_close(batch["advantages"].flatten(), expected.flatten(), atol=1e-5, rtol=1e-5)
    trainer.current_gradient_accumulation_steps = 1  # what train() would set
    loss = trainer.compute_loss(model, batch)
    # On the first pass the ratio is 1, so the loss is minus the mean advantage over tokens.
    mask = batch["completion_mask"].float()
    value = -(batch["advantages"].reshape(-1, 1) * mask).sum() / mask.sum()
    assert loss.item() == pytest.approx(value.item(), abs=1e-5)


def test_a_newline_ends_a_completion(
    tmp_path: Path, pico: Path, other_pico: Path, write_recipe: Callable[..., Path]
) -> None:
    path = write_recipe(tmp_path, "opd", batch_size=64, max_new_tokens=12)
    source = open_checkpoint(str(pico))
    student, tokenizer = load_model(source), load_reader(source)
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
    model, tokenizer = load_model(source), load_reader(source)
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
    tmp_path: Path, pico: Path, other_pico: Path, write_recipe: Callable[..., Path], objective: str
) -> None:
    source = open_checkpoint(str(pico))
    teacher = load_model(open_checkpoint(str(other_pico))) if objective == "opd" else None
    trainer = build_trainer(
        load_recipe(write_recipe(tmp_path, objective)),
        load_model(source),
        load_reader(source),
        teacher,
        tmp_path / "out",
        [],
    )
    args = trainer.args
    assert args.lr_scheduler_type == "constant"
    assert not args.activation_checkpointing
    assert args.bf16
    assert args.ddp_timeout_delta == PATIENCE > timedelta(hours=2)
    assert (args.weight_decay, args.max_grad_norm, args.report_to) == (0.0, 1.0, [])
    assert {p.dtype for p in trainer.model.parameters()} == {torch.float32}
    assert len(trainer.get_train_dataloader()) == 6


def test_vllm_is_told_what_ends_a_completion(tmp_path: Path, pico: Path, write_recipe: Callable[..., Path]) -> None:
    tokenizer = load_reader(open_checkpoint(str(pico)))
    stops = end_tokens(find_task("arithmetic"), tokenizer)
    for rollout, ends in (("vllm", {"stop_token_ids": stops}), ("transformers", None)):
        recipe = load_recipe(write_recipe(tmp_path, "opd", rollout=rollout))
        assert isinstance(recipe, DistillRecipe)
        assert _sampling(recipe, tokenizer)["generation_kwargs"] == ends
    assert len(stops) == 2


@pytest.mark.parametrize("objective", ["opd", "rlvr"])
@pytest.mark.parametrize(("said", "share"), [({}, 0.3), ({"vllm_memory": 0.55}, 0.55)])
def test_vllm_is_told_its_share_of_the_gpu(
    tmp_path: Path, pico: Path, write_recipe: Callable[..., Path], objective: str, said: dict[str, float], share: float
) -> None:
    recipe = load_recipe(write_recipe(tmp_path, objective, rollout="vllm", **said))
    tokenizer = load_reader(open_checkpoint(str(pico)))
    if isinstance(recipe, DistillRecipe):
        args = _distillation_config(recipe, DISTILLATIONS[objective], tokenizer, tmp_path)
    else:
        assert isinstance(recipe, RlvrRecipe)
        args = _rlvr_config(recipe, tokenizer, tmp_path)
    assert args.use_vllm
    assert (args.vllm_mode, args.vllm_gpu_memory_utilization) == ("colocate", share)


@pytest.mark.parametrize(("objective", "refused"), [("opd-k1", True), ("offline", True), ("opd", False)])
def test_logits_that_change_after_the_head_are_refused_where_they_would_be_missed(
    tmp_path: Path, pico: Path, other_pico: Path, write_recipe: Callable[..., Path], objective: str, refused: bool
) -> None:
    recipe = load_recipe(write_recipe(tmp_path, objective))
    source = open_checkpoint(str(pico))
    student, teacher = load_model(source), load_model(open_checkpoint(str(other_pico)))
    teacher.config.final_logit_softcapping = 30.0
    if not refused:
        build_trainer(recipe, student, load_reader(source), teacher, tmp_path / "out", [])
        return
    with pytest.raises(RecipeError, match=r"its config has final_logit_softcapping 30\.0"):
        build_trainer(recipe, student, load_reader(source), teacher, tmp_path / "out", [])


def test_the_corners_are_what_the_objectives_are() -> None:
    losses = {"divergence": "reverse KL", "cross-entropy": "cross-entropy"}
    for arm, (samples, loss) in CORNERS.items():
        objective = DISTILLATIONS[arm]
        assert (objective.samples, losses[objective.loss]) == (samples, loss)
        assert objective.loss == "cross-entropy" or objective.beta == 1.0
