"""Several checkpoints in one command: which are meant, what each is called, and what is measured of them."""

import json
from pathlib import Path

import pytest

from opdlib.checkpoints.series import listed, names_of, step_of
from opdlib.errors import CheckpointError
from opdlib.measurement import geometry
from tests.cli.test_cli import complains
from tests.conftest import Command, moved, pico_weights, write_checkpoint

STEPS = (10, 20, 100)


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A source, and the folder of a training with three checkpoints of growing distance."""
    folder, source = tmp_path_factory.mktemp("training"), pico_weights()
    write_checkpoint(folder / "source", source)
    for step in STEPS:
        write_checkpoint(folder / "run" / f"checkpoint-{step}", moved(source, scale=2e-5 * step))
    (folder / "run" / "logs").mkdir()
    return folder


def test_a_folder_and_a_pattern_stand_for_their_checkpoints_by_step(training: Path) -> None:
    steps = [str(training / "run" / f"checkpoint-{step}") for step in STEPS]
    assert listed([str(training / "run")]) == steps
    assert listed([str(training / "run" / "checkpoint-*")]) == steps
    assert listed([steps[1], str(training / "run")]) == [steps[1], steps[0], steps[2]], "each once"
    assert listed(["org/name", "wheel:a/b.gguf"]) == ["org/name", "wheel:a/b.gguf"]
    assert list(map(step_of, steps)) == [*STEPS]
    assert step_of(f"runs/checkpoint-{'9' * 5000}") is None
    with pytest.raises(CheckpointError, match="matches nothing"):
        listed([str(training / "nothing-*")])
    with pytest.raises(CheckpointError, match="checkpoint-10"):
        listed([str(training / "source")], series=True)


def test_weights_of_its_own_make_a_folder_a_checkpoint(tmp_path: Path) -> None:
    run = write_checkpoint(tmp_path / "run", pico_weights(layers=1))
    (run / "checkpoint-5").mkdir()
    assert listed([str(run)]) == [str(run)]
    assert listed([str(run)], series=True) == [str(run / "checkpoint-5")]


def test_a_run_of_ours_is_its_kept_steps_and_its_end(tmp_path: Path) -> None:
    for place in ("steps/50", "steps/100", "bf16", "fp32"):
        (tmp_path / "run" / place).mkdir(parents=True)
    kept = [str(tmp_path / "run" / "steps" / step) for step in ("50", "100")]
    assert listed([str(tmp_path / "run")], series=True) == kept, "one that still runs"
    (tmp_path / "run" / "complete.json").write_text('{"steps": 150}')
    assert listed([str(tmp_path / "run")], series=True) == [*kept, str(tmp_path / "run" / "bf16")]
    assert [step_of(spec) for spec in listed([str(tmp_path / "run")])] == [50, 100, 150]
    for content, wrong in {
        "{}": "no steps in it",
        '{"steps": "many"}': "'many'",
        '{"steps": -1}': "-1",
        "[": "not",
    }.items():
        (tmp_path / "run" / "complete.json").write_text(content)
        with pytest.raises(CheckpointError, match=f"complete.json: .*{wrong}.*; train again, or name"):
            listed([str(tmp_path / "run")])


def test_two_folders_of_one_step_are_refused(tmp_path: Path) -> None:
    """Which of them the training was at is not for us to say."""
    for place in ("steps/2", "steps/0002", "checkpoint-10"):
        (tmp_path / place).mkdir(parents=True)
    with pytest.raises(CheckpointError, match="steps/0002 and steps/2 are both step 2; wanted one folder a step"):
        listed([str(tmp_path)])


def test_names_tell_checkpoints_apart() -> None:
    assert names_of(["/x/a/bf16", "y/b/bf16"]) == ["a-bf16", "b-bf16"]
    assert names_of(["org/name@v1", "org/name@v2"]) == ["name-v1", "name-v2"]
    assert names_of(["a", "./a"]) == ["1-a", "2-a"]
    assert names_of(["lora:mine@org/base", "patch:x/y.safetensors"]) == ["mine-org-base", "y.safetensors"]
    assert names_of([]) == []


@pytest.mark.slow
def test_all_are_measured_over_one_decomposition_of_the_source(
    opd: Command, training: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    together: list[int] = []
    known = geometry.geometries

    def counted(source, trained, chances=()):  # type: ignore[no-untyped-def]
        together.append(len(trained))
        return known(source, trained, chances)

    monkeypatch.setattr(geometry, "geometries", counted)
    words = "measure", "--source", training / "source", "--out", tmp_path / "out"
    done = opd(*words, "--trained", training / "run" / "checkpoint-10", "--trained", training / "run", "--json")
    assert done.returncode == 0, done.stderr
    names = [f"checkpoint-{step}" for step in STEPS]
    rows = json.loads(done.stdout)
    assert [row["name"] for row in rows] == names
    assert set(together) == {3}, "tensors outside, checkpoints inside"
    alone = opd(*words[:3], "--out", tmp_path / "alone", "--trained", training / "run" / "checkpoint-20")
    assert alone.returncode == 0, alone.stderr
    for file in ("summary.json", "geometry.csv"):
        assert (tmp_path / "alone" / file).read_bytes() == (tmp_path / "out" / names[1] / file).read_bytes()

    before = (tmp_path / "out" / names[0] / "summary.json").stat().st_mtime_ns
    (tmp_path / "out" / names[2] / "summary.json").unlink()
    together.clear()
    again = opd(*words, "--trained", training / "run")
    assert [("finished before" in line) for line in again.stdout.splitlines()] == [True, True, False]
    assert set(together) == {1}, "only what is missing"
    assert (tmp_path / "out" / names[0] / "summary.json").stat().st_mtime_ns == before


def test_names_of_several(opd: Command, training: Path, tmp_path: Path) -> None:
    steps = [training / "run" / f"checkpoint-{step}" for step in STEPS[:2]]
    words = "measure", "--source", training / "source", "--only", "sparsity", "--trained", *steps
    assert opd(*words, "--name", "early", "late").returncode == 0
    assert (tmp_path / "runs" / "measured" / "late" / "summary.json").is_file()
    complains(opd(*words, "--name", "one"), "1 names for 2 checkpoints")
    complains(opd(*words, "--name", "one", "one"), "names that differ")


def test_a_checkpoint_of_another_model_is_refused_before_anything_is_written(
    opd: Command, training: Path, tmp_path: Path
) -> None:
    cut = {name: weight[:1] for name, weight in pico_weights().items()}
    other = write_checkpoint(tmp_path / "checkpoint-99", cut)
    words = "measure", "--source", training / "source", "--out", tmp_path / "new" / "out"
    complains(opd(*words, "--trained", training / "run" / "checkpoint-10", other), "a delta needs equal shapes")
    assert not (tmp_path / "new").exists()


def test_quiet_prints_what_json_asks_for_and_errors(opd: Command, training: Path) -> None:
    words = "measure", "--source", training / "source", "--only", "sparsity", "--trained"
    done = opd(*words, training / "run" / "checkpoint-10", "--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert json.loads(opd("pairs", "--json", "--quiet").stdout)[0]["pair"]
    complains(opd(*words, training / "nowhere", "--quiet"), "nowhere")
