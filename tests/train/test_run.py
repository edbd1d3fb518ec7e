"""Whole runs of a pico model, killed ones included."""

import json
import shutil
import signal
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers.models.llama.modeling_llama import LlamaMLP

from opdlib.checkpoints import open_checkpoint
from opdlib.errors import CheckpointError, MissingDependencyError, OutputError, RecipeError
from opdlib.files import locked
from opdlib.registry import weights
from opdlib.registry.recipes import load_recipe, recipe_digest
from opdlib.registry.weights import Weights
from opdlib.train import objectives, parents, run
from opdlib.train.evaluate import evaluate
from opdlib.train.fresh import ARCHITECTURES, write_fresh
from opdlib.train.parents import plan
from opdlib.train.run import train
from opdlib.train.run_folder import prepare
from tests.train.killed import rewarded, train_until

pytestmark = pytest.mark.slow

OBJECTIVES = ["sft", "opd", "opd-topk", "opd-k1", "opsd", "opd-ce", "offline", "offline-rkl", "rlvr"]
MASK = {"kind": "delta", "of": "recipe:pico-sft", "threshold": 1e-5}
CLOCKS = {"seconds", "step_time"}


def steps(folder: Path) -> list[dict[str, Any]]:
    """metrics.jsonl without its clocks."""
    lines = (folder / "metrics.jsonl").read_text(encoding="utf8").splitlines()
    return [{k: v for k, v in json.loads(x).items() if k not in CLOCKS} for x in lines]


def strings(content: object) -> list[str]:
    """Every text that is a value, however deep."""
    if isinstance(content, str):
        return [content]
    inner = content.values() if isinstance(content, dict) else content if isinstance(content, list) else ()
    return [text for value in inner for text in strings(value)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, write_recipe: Callable[..., Path]) -> dict[str, Path]:
    """One uninterrupted run of each objective."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(objectives, "_reward", rewarded)
        return {x: train(write_recipe(folder, x), out=folder / x) for x in OBJECTIVES}


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_run_folder_describes_itself(whole: dict[str, Path], pico: Path, other_pico: Path, objective: str) -> None:
    folder = whole[objective]
    assert {path.name for path in folder.iterdir()} == {
        "recipe.yaml",
        "environment.json",
        "metrics.jsonl",
        "fp32",
        "bf16",
        "evaluation.json",
        "complete.json",
    }
    rows = steps(folder)
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert {row["learning_rate"] for row in rows} == {0.001}
    assert all(row["num_tokens"] > 0 for row in rows)
    enough = any if objective == "rlvr" else all  # a group that is right as a whole has nothing to reinforce
    assert enough(row["grad_norm"] > 0 for row in rows)

    source = load_file(pico / "model.safetensors")
    masters = load_file(folder / "fp32" / "model.safetensors")
    rounded = load_file(folder / "bf16" / "model.safetensors")
    assert masters.keys() == rounded.keys() == source.keys()
    assert all(torch.equal(rounded[k], masters[k].to(torch.bfloat16)) for k in masters)
    assert any(not torch.equal(masters[k], source[k]) for k in masters)

    scores = json.loads((folder / "evaluation.json").read_text())
    assert list(scores) == ["source", *(["teacher"] if objective not in ("sft", "opsd", "rlvr") else []), "student"]
    student = evaluate(str(folder / "bf16"), n=3)
    assert scores["student"] == json.loads(json.dumps(vars(student)))

    digests = json.loads((folder / "complete.json").read_text())["digests"]
    assert digests["source"] == open_checkpoint(str(pico)).digest()
    assert digests["bf16"] == open_checkpoint(str(folder / "bf16")).digest()
    assert digests["fp32"] == open_checkpoint(str(folder / "fp32")).digest()
    if objective == "opd":
        assert digests["teacher"] == open_checkpoint(str(other_pico)).digest()


def test_a_run_folder_names_no_place(whole: dict[str, Path]) -> None:
    for folder in whole.values():
        for name in ("environment.json", "metrics.jsonl", "evaluation.json", "complete.json"):
            # TRL names some of its numbers with a slash; a path would be a value.
            text = (folder / name).read_text()
            read = [json.loads(line) for line in text.splitlines()] if name.endswith("l") else json.loads(text)
            assert not [value for value in strings(read) if "/" in value]
        for form in ("fp32", "bf16"):
            config = json.loads((folder / form / "config.json").read_text())
            assert config["dtype"] == {"fp32": "float32", "bf16": "bfloat16"}[form]
            assert str(Path.home().anchor) + "tmp" not in json.dumps(config)


def test_the_same_recipe_gives_the_same_bits_and_another_seed_others(
    whole: dict[str, Path], tmp_path: Path, write_recipe: Callable[..., Path]
) -> None:
    recipe = write_recipe(tmp_path, "opd")
    again = train(recipe, out=tmp_path / "again")
    assert steps(again) == steps(whole["opd"])
    other = train(recipe, out=tmp_path / "other", seed=1, max_steps=2)
    assert len(steps(other)) == 2
    assert steps(other)[0] != steps(again)[0]


@pytest.mark.parametrize("objective", ["sft", "opd", "opd-k1"])
def test_checkpointed_activations_change_no_bit(
    tmp_path: Path, write_recipe: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, objective: str
) -> None:
    computed = []
    forward = LlamaMLP.forward

    def counted(layer: LlamaMLP, *inputs: Any) -> Any:
        computed.append(torch.is_grad_enabled())  # which it is not while completions are sampled
        return forward(layer, *inputs)

    monkeypatch.setattr(LlamaMLP, "forward", counted)
    folders = []
    for times, checkpointing in ((1, False), (2, True)):
        computed.clear()
        recipe = write_recipe(tmp_path, objective, activation_checkpointing=checkpointing, evaluation_size=1)
        folders.append(train(recipe, out=tmp_path / str(times), max_steps=2))
        assert sum(computed) == times * 2 * 2  # two layers in each of two steps
    assert steps(folders[0]) == steps(folders[1])
    plain, again = (folder / "fp32" / "model.safetensors" for folder in folders)
    assert plain.read_bytes() == again.read_bytes()


@pytest.mark.kill
@pytest.mark.parametrize(
    ("objective", "moment"),
    [
        *((objective, "in step 5") for objective in OBJECTIVES),
        ("opd", "while checkpoint 4 is saved"),
        ("opd", "between the two forms"),
        ("sft", "before the first checkpoint"),
    ],
)
def test_a_killed_run_resumes_to_the_same_bits(
    whole: dict[str, Path],
    tmp_path: Path,
    write_recipe: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    objective: str,
    moment: str,
) -> None:
    recipe, folder = write_recipe(tmp_path, objective), tmp_path / "killed"
    assert train_until(moment, recipe, folder) == -signal.SIGKILL
    assert not (folder / "complete.json").exists()
    with pytest.raises(OutputError, match="an unfinished run, which --resume continues"):
        train(recipe, out=folder)
    monkeypatch.setattr(objectives, "_reward", rewarded)
    train(recipe, out=folder, resume=True)
    assert steps(folder) == steps(whole[objective])
    for form in ("fp32", "bf16"):
        files = [x / form / "model.safetensors" for x in (folder, whole[objective])]
        assert files[0].read_bytes() == files[1].read_bytes()
    assert not (folder / "checkpoints").exists()
    assert not list(folder.rglob("*.part"))


def test_the_teacher_is_trained_first_and_reused(
    tmp_path: Path, write_recipe: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_recipe(tmp_path, "sft", steps=2, seed=3)
    recipe = write_recipe(tmp_path, "opd", teacher="recipe:pico-sft")
    monkeypatch.chdir(tmp_path)
    folder = train(recipe, max_steps=2)
    assert folder == Path("runs/train/pico-opd-s0")
    teacher = Path("runs/train/pico-sft-s3")
    complete = (teacher / "complete.json").stat().st_mtime_ns
    digests = json.loads((folder / "complete.json").read_text())["digests"]
    assert digests["teacher"] == open_checkpoint(str(teacher / "bf16")).digest()
    train(recipe, max_steps=2, seed=1)
    assert (teacher / "complete.json").stat().st_mtime_ns == complete
    assert train(recipe, max_steps=2, resume=True) == folder

    write_recipe(tmp_path, "sft", steps=3, seed=3)
    with pytest.raises(RecipeError, match=r"pico-sft-s3: was run with steps 2, the recipe says 3"):
        train(recipe, max_steps=2, seed=2)


def test_one_process_trains_in_a_folder(
    tmp_path: Path, write_recipe: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another is refused, and waits for what its run stands on."""
    write_recipe(tmp_path, "sft", steps=1, seed=3)
    recipe, taken = write_recipe(tmp_path, "opd", teacher="recipe:pico-sft"), []
    with (
        locked(tmp_path / "run.training", "run run"),
        pytest.raises(OutputError, match=r"run\.training: is being written by process \d+ .*\(run run\); wait"),
    ):
        train(recipe, out=tmp_path / "run", max_steps=1)
    assert not (tmp_path / "run").exists()
    assert not (tmp_path / "pico-sft-s3").exists()

    def seen(place: Path, work: str, wait: bool) -> AbstractContextManager[Path]:
        taken.append((place.name, wait))
        return locked(place, work, wait)

    monkeypatch.setattr(run, "locked", seen)
    train(recipe, out=tmp_path / "run", max_steps=1)
    assert taken == [("run.training", False), ("pico-sft-s3.training", True)]
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_parent_with_other_kernels_is_trained_by_another_process(
    tmp_path: Path, write_recipe: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_recipe(tmp_path, "sft", steps=1, seed=3, kernels="any-x86")
    recipe = write_recipe(tmp_path, "opd", teacher="recipe:pico-sft")
    with monkeypatch.context() as patched:
        patched.setattr(parents.Run, "command", lambda _: [sys.executable, "-c", "raise SystemExit(3)"])
        with pytest.raises(RecipeError, match="its training ended with status 3"):
            train(recipe, out=tmp_path / "run", max_steps=1)
    folder = train(recipe, out=tmp_path / "run", max_steps=1)
    made = [json.loads((x / "environment.json").read_text())["kernels"] for x in (tmp_path / "pico-sft-s3", folder)]
    assert made[0] != made[1]
    assert (tmp_path / "pico-sft-s3" / "results" / "summary.json").is_file()


def test_a_run_goes_on_with_the_parents_that_it_began_with(tmp_path: Path, write_recipe: Callable[..., Path]) -> None:
    recipe = load_recipe(write_recipe(tmp_path, "opd"))
    prepare(tmp_path / "run", recipe, parents={"teacher": "committed"})
    prepare(tmp_path / "run", recipe, parents={"teacher": "committed"})
    with pytest.raises(
        RecipeError, match="began with a teacher that travels with opdlib, and would go on with another"
    ):
        prepare(tmp_path / "run", recipe, parents={"teacher": "here"})


def test_weights_that_travel_are_taken_instead(
    tmp_path: Path, write_recipe: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = write_recipe(tmp_path, "sft", steps=1, seed=3)
    made = open_checkpoint(str(train(teacher, tmp_path / "elsewhere") / "bf16"))
    known = {"recipe": recipe_digest(load_recipe(teacher)), "checkpoint": made.spec, "digest": made.digest()}
    entry = Weights(run="pico-sft-s3", **known)
    monkeypatch.setattr(weights, "weights", lambda: {entry.run: entry})
    recipe = write_recipe(tmp_path, "opd", teacher="recipe:pico-sft")

    def trained(folder: str, **options: Any) -> tuple[str, str]:
        run = train(recipe, tmp_path / folder / "run", max_steps=1, **options)
        origin = json.loads((run / "environment.json").read_text())["parents"]
        assert set(origin) == {"teacher"}
        return origin["teacher"], json.loads((run / "complete.json").read_text())["digests"]["fp32"]

    taken = trained("taken")
    assert taken[0] == "committed"
    assert not (tmp_path / "taken" / "pico-sft-s3").exists()
    assert trained("again", from_scratch=True) == ("here", taken[1])
    assert (tmp_path / "again" / "pico-sft-s3" / "complete.json").exists()
    shutil.rmtree(tmp_path / "again" / "run")
    assert trained("again") == ("here", taken[1]), "what was made here is not left for what was committed"

    other = entry.model_copy(update={"digest": "0" * 64})
    monkeypatch.setattr(weights, "weights", lambda: {entry.run: other})
    with pytest.raises(RecipeError, match="wants 000000000000 for pico-sft-s3; restore the file, or train with --from"):
        trained("refused")
    assert not (tmp_path / "refused").exists()
    write_recipe(tmp_path, "sft", steps=2, seed=3)
    assert trained("another")[0] == "here", "weights are those of one recipe"


def test_what_is_in_the_way_is_refused(
    whole: dict[str, Path], tmp_path: Path, write_recipe: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "load_model", None)
    recipe = write_recipe(tmp_path, "opd")
    with pytest.raises(OutputError, match="holds a complete run; choose another --out"):
        train(recipe, out=whole["opd"])
    assert train(recipe, out=whole["opd"], resume=True) == whole["opd"]
    with pytest.raises(RecipeError, match="was run with seed 0, the recipe says 7"):
        train(recipe, out=whole["opd"], seed=7, resume=True)
    for resume in (False, True):
        with pytest.raises(OutputError, match="exists and is no run folder"):
            train(recipe, out=tmp_path, resume=resume)
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be written"):
        train(recipe, out=tmp_path / "file" / "run")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"evaluation_size": 100_000}, "choose between 1 and"),
        ({"teacher": "recipe:none"}, r"teacher is 'recipe:none', but there is no none\.yaml beside it"),
        ({"teacher": "recipe:pico-opd"}, "leads back to itself"),
        ({"student": "recipe:pico-opd"}, "leads back to itself"),
        ({"student": "fresh:pico"}, "only objective sft starts from random weights"),
        ({"mask": MASK | {"of": "recipe:none"}}, r"mask is 'recipe:none', but there is no none\.yaml beside it"),
    ],
)
def test_a_bad_recipe_is_refused_before_a_model_is_loaded(
    tmp_path: Path,
    write_recipe: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
    message: str,
) -> None:
    monkeypatch.setattr(run, "load_model", None)
    with pytest.raises(ValueError, match=message):
        train(write_recipe(tmp_path, "opd", **changes), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_recipe_that_is_not_beside_is_one_that_opdlib_ships(
    tmp_path: Path, write_recipe: Callable[..., Path]
) -> None:
    recipe = write_recipe(tmp_path, "sft", student="recipe:pico-source")
    planned = plan(recipe, load_recipe(recipe), tmp_path / "run")
    assert planned.origins() == {"student": "committed"}
    assert open_checkpoint(str(planned.spec("student"))).digest() == weights.weights()["pico-source-s0"].digest
    own = recipe.with_name("pico-source.yaml")
    own.write_text(recipe.read_text().replace("recipe:pico-source", "fresh:pico").replace("pico-sft", "pico-source"))
    assert plan(recipe, load_recipe(recipe), tmp_path / "run").parents["student"].path == own, "one's own comes first"


def test_an_unknown_architecture_is_refused(tmp_path: Path, write_recipe: Callable[..., Path]) -> None:
    with pytest.raises(RecipeError, match="fresh models are: fresh:pico"):
        train(write_recipe(tmp_path, "sft", student="fresh:giant"), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_teacher_of_another_vocabulary_is_refused(
    tmp_path: Path, other_pico: Path, write_recipe: Callable[..., Path]
) -> None:
    stranger = tmp_path / "stranger"
    stranger.mkdir()
    write_fresh(ARCHITECTURES["pico"], 0, stranger)
    with pytest.raises(RecipeError, match=r"another vocabulary .*'<eos>'|another vocabulary .* tokens, '.*' differs"):
        train(write_recipe(tmp_path, "opd", teacher=str(stranger)), out=tmp_path / "run")
    padded = tmp_path / "padded"
    shutil.copytree(other_pico, padded)
    config = json.loads((padded / "config.json").read_text())
    (padded / "config.json").write_text(json.dumps(config | {"vocab_size": config["vocab_size"] + 3}))
    with pytest.raises(RecipeError, match=r"another vocabulary .*only 26 of the 29 rows that the student can sample"):
        train(write_recipe(tmp_path, "opd", student=str(padded)), out=tmp_path / "run")
    recipe = write_recipe(tmp_path, "opd", teacher=str(padded))
    assert plan(recipe, load_recipe(recipe), tmp_path / "run").spec("teacher") == str(padded)
    assert not (tmp_path / "run").exists()


def test_a_mask_of_another_model_is_refused(tmp_path: Path, write_recipe: Callable[..., Path]) -> None:
    stranger = tmp_path / "stranger"
    stranger.mkdir()
    write_fresh(ARCHITECTURES["pico"], 0, stranger)
    with pytest.raises(RecipeError, match="another model than student"):
        train(write_recipe(tmp_path, "opd", mask=MASK | {"of": str(stranger)}), out=tmp_path / "run")
    write_recipe(tmp_path, "sft", student=str(stranger), task="sums")
    with pytest.raises(RecipeError, match=r"mask is of pico-sft, whose student is .*a mask belongs to one source"):
        train(write_recipe(tmp_path, "opd", mask=MASK | {"of": "recipe:pico-sft"}), out=tmp_path / "run")


@pytest.mark.parametrize("schedule", ["constant", "linear"])
def test_the_rate_warms_up(tmp_path: Path, write_recipe: Callable[..., Path], schedule: str) -> None:
    recipe = write_recipe(tmp_path, "sft", warmup=2, schedule=schedule, evaluation_size=1)
    after = {"constant": [1e-3] * 4, "linear": [1e-3, 0.75e-3, 0.5e-3, 0.25e-3]}[schedule]
    rates = [row["learning_rate"] for row in steps(train(recipe, tmp_path / "run"))]
    assert rates == pytest.approx([0, 0.5e-3, *after])


def test_what_is_not_installed_is_named(tmp_path: Path, write_recipe: Callable[..., Path]) -> None:
    with pytest.raises(
        MissingDependencyError, match=r"rollout is 'vllm', which is not installed; run: pip install vllm"
    ):
        train(write_recipe(tmp_path, "opd", rollout="vllm"), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("max_steps", [0, -1])
def test_an_impossible_override_is_refused(tmp_path: Path, write_recipe: Callable[..., Path], max_steps: int) -> None:
    with pytest.raises(RecipeError, match=f"command line: steps is {max_steps}"):
        train(write_recipe(tmp_path, "sft"), out=tmp_path / "run", max_steps=max_steps)


def test_a_model_that_is_not_there(tmp_path: Path, write_recipe: Callable[..., Path]) -> None:
    recipe = write_recipe(tmp_path, "sft", student=str(tmp_path / "nothing"))
    with pytest.raises(CheckpointError, match="nothing"):
        train(recipe, out=tmp_path / "run")
