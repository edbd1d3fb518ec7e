"""A pico Qwen2.5-VL, random and written as the Hub has it, that is asked to count squares: whole runs with images."""

import dataclasses
import json
import random
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image, ImageDraw
from safetensors.torch import load_file
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoProcessor,
    PreTrainedTokenizerFast,
    ProcessorMixin,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
)
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from opdlib.checkpoints import open_checkpoint
from opdlib.cli.main import main
from opdlib.errors import CheckpointError, MissingDependencyError, ParameterError, RecipeError
from opdlib.measurement.align import align
from opdlib.registry.recipes import load_recipe
from opdlib.train import run
from opdlib.train.callbacks import Metrics
from opdlib.train.evaluate import evaluate
from opdlib.train.models import load_model, load_reader
from opdlib.train.objectives import build_trainer
from opdlib.train.prompts import conversation, encode
from opdlib.train.run import train
from opdlib.train.tasks import TASKS, Problem, Split, Task

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
]

PAPER = Path(__file__).parents[2] / "data" / "recipes" / "paper" / "qwen2.5-vl-opd.yaml"
SPECIAL = ["<eos>", "<unk>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
CHARACTERS = string.ascii_letters + string.digits + " ?:\n"
TEMPLATE = (
    "{% for m in messages %}{% for c in m.content %}{% if c.type == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ c.text }}{% endif %}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}:{% endif %}"
)
# As on the Hub: one level, of which transformers makes two.
CONFIG = {
    "model_type": "qwen2_5_vl",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 256,
    "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]},
    "tie_word_embeddings": True,
    "bos_token_id": None,
    "eos_token_id": 0,
    "vision_start_token_id": 2,
    "vision_end_token_id": 3,
    "image_token_id": 4,
    "video_token_id": 5,
    "vision_config": {
        "depth": 2,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_heads": 2,
        "in_chans": 3,
        "out_hidden_size": 32,
        "patch_size": 4,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "window_size": 16,
        "fullatt_block_indexes": [1],
    },
}


class PicoProcessor(Qwen2_5_VLProcessor):  # type: ignore[misc]
    """Qwen's without its reader of videos, which needs torchvision."""

    def __init__(self, image_processor: Any = None, tokenizer: Any = None, chat_template: Any = None) -> None:
        super().__init__(image_processor, tokenizer, chat_template=chat_template)


def write_sighted(folder: Path, seed: int, rows: int = 0, tied: bool = True) -> Path:
    """A random Qwen2.5-VL (hidden 32, 2 + 2 layers), its tensors, config and processor files as on the Hub."""
    vocabulary = {token: i for i, token in enumerate([*SPECIAL, *CHARACTERS])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    backend.decoder = decoders.Fuse()
    options = {"eos_token": "<eos>", "unk_token": "<unk>", "additional_special_tokens": SPECIAL[2:]}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **options)
    images = Qwen2VLImageProcessorPil(patch_size=4, merge_size=2, size={"shortest_edge": 64, "longest_edge": 4096})
    PicoProcessor(images, tokenizer, chat_template=TEMPLATE).save_pretrained(folder)
    config = CONFIG | {"vocab_size": len(vocabulary) + rows, "tie_word_embeddings": tied}
    torch.manual_seed(seed)
    model = Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(**config))
    model.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf8")
    return folder


def drawn(count: int, rng: random.Random) -> Image.Image:
    """A picture of 32 x 32 points, or half as high again, with as many squares."""
    picture = Image.new("RGB", (32, rng.choice((32, 48))), "white")
    for place in rng.sample(range(16), count):
        x, y = place % 4 * 8, place // 4 * 8
        ImageDraw.Draw(picture).rectangle((x + 1, y + 1, x + 6, y + 6), fill=(rng.randrange(200), 0, 0))
    return picture


def squares() -> Split:
    rng = random.Random(0)
    counts = [rng.randrange(1, 10) for _ in range(24)]
    problems = [Problem("How<image>many?", str(n), images=(drawn(n, rng),)) for n in counts]
    return Split(problems[:16], [(problem,) for problem in problems[16:]])


@pytest.fixture(autouse=True)
def squares_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """`squares` is a task, and the stand-in for Qwen's processor is known by its name."""
    split = squares()
    monkeypatch.setattr("opdlib.registry.tasks.MADE", ("squares", *TASKS))
    monkeypatch.setitem(TASKS, "squares", Task("squares", 4, lambda: split, chat=True, images=True))
    monkeypatch.setitem(PROCESSOR_MAPPING._extra_content, Qwen2_5_VLConfig, PicoProcessor)


@pytest.fixture(scope="module")
def sighted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sighted(tmp_path_factory.mktemp("sighted"), seed=0)


@pytest.fixture(scope="module")
def sighted_teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Padded to more rows than the student, with a head of its own, as the paper's."""
    return write_sighted(tmp_path_factory.mktemp("teacher"), seed=1, rows=3, tied=False)


@pytest.fixture
def recipe(
    tmp_path: Path, sighted: Path, sighted_teacher: Path, write_recipe: Callable[..., Path]
) -> Callable[..., Path]:
    def write(objective: str, **changes: Any) -> Path:
        models = {"student": str(sighted), "teacher": str(sighted_teacher), "task": "squares"}
        changes = models | {"steps": 2, "save_every": 1, "accumulate": 2, "max_new_tokens": 5} | changes
        return write_recipe(tmp_path, objective, **changes)

    return write


def test_the_source_is_as_on_the_hub(sighted: Path) -> None:
    checkpoint = open_checkpoint(str(sighted))
    assert {name.split(".")[0] for name in checkpoint.tensors} == {"visual", "model"}
    assert "model.layers.0.self_attn.q_proj.weight" in checkpoint.tensors
    assert isinstance(load_reader(checkpoint, images=True), ProcessorMixin)


@pytest.mark.parametrize("renamed", [False, True])
def test_every_tensor_is_in_its_place(sighted: Path, tmp_path: Path, renamed: bool) -> None:
    """The names of the Hub and those of the module; against what transformers itself loads."""
    right = Qwen2_5_VLForConditionalGeneration.from_pretrained(sighted, dtype=torch.float32)
    folder = sighted
    if renamed:
        folder = tmp_path
        right.save_pretrained(folder, save_original_format=False)
        assert "model.visual.patch_embed.proj.weight" in open_checkpoint(str(folder)).tensors
    found, expected = load_model(open_checkpoint(str(folder))).state_dict(), right.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("kind", ["the paper's opd-topk", "opd"])
def test_a_run_goes_on_to_the_same_bits_and_is_measured(
    recipe: Callable[..., Path], sighted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    sizes = {"evaluate_every": 1, "keep_every": 1, "evaluation_size": 8}
    path, whole, broken = recipe("opd", **sizes), tmp_path / "whole", tmp_path / "broken"
    if kind != "opd":
        content = yaml.safe_load(PAPER.read_text(encoding="utf8")) | {"rollout": "transformers"}
        del content["vllm_memory"]  # nor is there a vLLM to take it
        ours = load_recipe(path).model_dump()
        small = (
            *sizes,
            "student",
            "teacher",
            "task",
            "steps",
            "batch_size",
            "accumulate",
            "max_new_tokens",
            "save_every",
        )
        # The paper's rate would not show in bf16 within two steps of so small a model.
        content |= {key: ours[key] for key in (*small, "learning_rate")}
        path.write_text(yaml.safe_dump(content), encoding="utf8")
    assert main(["train", str(path), "--out", str(whole)]) == 0

    class Broken(Metrics):
        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            super().on_step_begin(args, state, control, **kwargs)
            if state.global_step == 1:
                raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(run, "Metrics", Broken)
        with pytest.raises(KeyboardInterrupt):
            train(path, out=broken)
    assert (broken / "checkpoints" / "checkpoint-1" / "whole").exists()
    train(path, out=broken, resume=True)
    for form in ("fp32", "bf16", "steps/1"):
        one, two = (folder / form / "model.safetensors" for folder in (whole, broken))
        assert one.read_bytes() == two.read_bytes()

    source, trained = open_checkpoint(str(sighted)), open_checkpoint(str(whole / "fp32"))
    assert trained.tensors.keys() == source.tensors.keys()
    assert len(align(source, trained, whole=True).matches) == len(source.tensors)
    seen = [name for name in source.tensors if name.startswith("visual.") and name.endswith("proj.weight")]
    assert seen
    assert all(not torch.equal(source.read(name), trained.read(name)) for name in seen)
    blocks = json.loads((whole / "results" / "stored" / "summary.json").read_text())["blocks"]
    assert blocks["vision"]["parameters"] == sum(source.info(n).numel for n in source.tensors if n.startswith("visual"))
    assert blocks["vision"]["rel_norm"] > 0
    assert evaluate(str(whole / "bf16"), "squares", n=8).n == 8


def batch_of(path: Path, sighted: Path, teacher: Path, folder: Path) -> tuple[Any, Any, Any, dict[str, Any]]:
    """Trainer, student, whole teacher and the first batch, in float32."""
    student, other = (load_model(open_checkpoint(str(x))) for x in (sighted, teacher))
    whole = load_model(open_checkpoint(str(teacher)))
    for model in (other, whole):
        model.lm_head.weight.data[-3:] = 5.0  # padding that would take much of every distribution
    reader = load_reader(open_checkpoint(str(sighted)), images=True)
    trainer = build_trainer(load_recipe(path), student, reader, other, folder, [])
    student.train()
    return trainer, student, whole, trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))


def said(model: Any, batch: dict[str, Any], problems: list[Problem], reader: Any, rows: int) -> torch.Tensor:
    """Log-probabilities at every completion token, problem by problem and without padding: (tokens, rows), float64."""
    found = []
    for i, problem in enumerate(problems):
        asked = encode([problem], TASKS["squares"], reader)
        answer = batch["completion_ids"][i][batch["completion_mask"][i].bool()]
        ids = torch.cat([asked["input_ids"][0], answer])[None]
        kinds = torch.cat([asked["mm_token_type_ids"][0], torch.zeros_like(answer)])[None]
        seen = {name: asked[name] for name in ("pixel_values", "image_grid_thw")}
        with torch.no_grad():
            logits = model(input_ids=ids, mm_token_type_ids=kinds, **seen).logits[0, -len(answer) - 1 : -1, :rows]
        found.append(torch.log_softmax(logits.double(), dim=-1))
    return torch.cat(found)


@pytest.mark.parametrize("objective", ["opd-topk", "opd", "opd-k1", "offline-rkl"])
def test_the_loss_is_its_definition_and_images_are_seen(
    recipe: Callable[..., Path], sighted: Path, sighted_teacher: Path, tmp_path: Path, objective: str
) -> None:
    path = recipe(objective, precision="fp32", accumulate=1)
    trainer, student, teacher, batch = batch_of(path, sighted, sighted_teacher, tmp_path / "out")
    loss = trainer.compute_loss(student, batch).item()
    reader, rows = trainer.processing_class, student.config.get_text_config().vocab_size
    asked = {row.tobytes(): i for i, row in enumerate(p.images[0] for p in TASKS["squares"].split().training)}
    pictures = [trainer.train_dataset[i]["images"][0].convert("RGB").tobytes() for i in range(4)]
    pool = TASKS["squares"].split().training
    candidates = [pool[asked[picture]] for picture in pictures]
    grid = batch["image_grid_thw"].prod(-1).tolist()
    of_row = [
        next(p for p in candidates if torch.equal(encode([p], TASKS["squares"], reader)["pixel_values"], pixels))
        for pixels in batch["pixel_values"].split(grid)  # TRL shuffles a batch
    ]
    p, q = (said(model, batch, of_row, reader, rows) for model in (student, teacher))
    y = batch["completion_ids"][batch["completion_mask"].bool()]
    at, likeliest = torch.arange(len(y)), q.topk(3, dim=-1).indices
    expected = {
        "opd-topk": (q.exp() * (q - p)).gather(-1, likeliest).sum(-1),
        "opd": (p.exp() * (p - q)).sum(-1),
        "offline-rkl": (p.exp() * (p - q)).sum(-1),
        "opd-k1": (p[at, y] - q[at, y]) * p[at, y],
    }[objective].mean()
    assert loss == pytest.approx(expected.item(), rel=1e-4)
    blank = batch | {"pixel_values": torch.zeros_like(batch["pixel_values"])}
    assert trainer.compute_loss(student, blank).item() != pytest.approx(loss, rel=1e-3)


def test_what_is_not_shown_images_is_refused_before_a_model_is_loaded(
    recipe: Callable[..., Path], pico: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "load_model", None)
    refused = [
        ("opd", {"student": str(pico)}, r"student is '.*', a language model \(llama\), and task squares asks about"),
        ("opd-topk", {"teacher": str(pico)}, r"teacher is '.*', a language model.*choose an image-text model"),
        ("sft", {"teacher": None, "max_new_tokens": None}, r"objective is 'sft', which shows no images.*: offline"),
        ("opsd", {"teacher": None}, r"objective is 'opsd', which shows no images, and task squares asks about them"),
    ]
    for objective, changes, message in refused:
        with pytest.raises(RecipeError, match=message):
            train(recipe(objective, **changes), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with pytest.raises(ParameterError, match=r"task squares asks about images, which .*, a llama, is not shown"):
        evaluate(str(pico), "squares")


def test_what_reads_images_is_missing(sighted: Path, pico: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CheckpointError, match=r"cannot use its processor|found a tokenizer and no processor"):
        load_reader(open_checkpoint(str(pico)), images=True)

    def needs(*_: Any, **__: Any) -> None:
        raise ImportError("it requires torchvision")

    monkeypatch.setattr(AutoProcessor, "from_pretrained", needs)
    with pytest.raises(MissingDependencyError, match=r"it requires torchvision.*pip install torchvision"):
        load_reader(open_checkpoint(str(sighted)), images=True)


def test_an_image_is_where_it_is_marked() -> None:
    problem = Problem("<image>How<image> many?", "1", images=("a", "b"))
    assert conversation(problem) == [
        {
            "role": "user",
            "content": [
                {"type": "image"},
                {"type": "text", "text": "How"},
                {"type": "image"},
                {"type": "text", "text": " many?"},
            ],
        }
    ]
    with pytest.raises(ParameterError, match=r"has 1 images and 2 places marked <image>; wanted as many"):
        conversation(dataclasses.replace(problem, images=("a",)))


def test_a_batch_is_padded_on_the_left(sighted: Path) -> None:
    reader = load_reader(open_checkpoint(str(sighted)), images=True)
    asked = {p.images[0].size: p for p in TASKS["squares"].split().training}
    together = encode([asked[32, 32], asked[32, 48]], TASKS["squares"], reader)
    padding = (together["attention_mask"] == 0).int()
    assert padding.sum(dim=1).tolist() == [8, 0]  # of the larger image 6 x 4 tokens in place of 4 x 4
    assert padding[0].tolist() == sorted(padding[0].tolist(), reverse=True)
    alone = encode([asked[32, 32]], TASKS["squares"], reader)
    assert torch.equal(together["input_ids"][0, 8:], alone["input_ids"][0])


def test_a_mask_knows_the_tensors_by_the_names_of_the_source(
    recipe: Callable[..., Path], sighted: Path, tmp_path: Path
) -> None:
    owner = write_sighted(tmp_path / "owner", seed=5)
    mask = {"kind": "delta", "of": str(owner), "threshold": 0.02}
    trained = open_checkpoint(str(train(recipe("opd-topk", mask=mask, steps=1), out=tmp_path / "run") / "fp32"))
    source, owned = open_checkpoint(str(sighted)), open_checkpoint(str(owner))
    moved = 0
    for name in source.tensors:
        before = source.read(name)
        outside = (owned.read(name).bfloat16().double() - before.bfloat16().double()).abs() <= 0.02
        changed = trained.read(name) != before
        assert not (changed & outside).any()
        moved += int(changed.sum())
    assert moved > 0


def test_a_sighted_model_does_tasks_of_text_with_its_tokenizer(
    recipe: Callable[..., Path], sighted: Path, tmp_path: Path
) -> None:
    folder = train(recipe("opd-topk", task="sums"), out=tmp_path / "run")
    trained = load_file(folder / "bf16" / "model.safetensors")
    assert trained.keys() == open_checkpoint(str(sighted)).tensors.keys()
    assert load_reader(open_checkpoint(str(folder / "bf16"))).get_vocab()
    assert isinstance(load_reader(open_checkpoint(str(folder / "bf16")), images=True), ProcessorMixin)
