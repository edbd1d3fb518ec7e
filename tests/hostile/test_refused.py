"""Files that must be refused: at once, with exit status 2 and one line that says what is wrong, and nothing written."""

import json
import os
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np
import pytest
import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import save_file

from tests.hostile import made
from tests.hostile.conftest import Run
from tests.hostile.made import DEEP, LLAMA, LONG_NUMBER, gguf, safetensors, tensor

Make = Callable[[Path, Path], tuple[object, ...]]
"""Takes the folder of good files and an empty one, writes what is hostile, and gives the command."""


def measured(spec: object) -> tuple[object, ...]:
    return "measure", "--source", "S", "--trained", spec, "--out", "out"


def stored(content: bytes) -> Make:
    """A checkpoint of one file."""

    def make(place: Path, here: Path) -> tuple[object, ...]:
        (here / "model.safetensors").write_bytes(content)
        return measured(here)

    return make


def beside(**files: Any) -> Make:
    """`T` with other files, measured."""
    return lambda place, here: measured(made.changed(here / "c", place / "T", **files))


def asked(name: str, content: str | bytes | None = None, **keys: Any) -> Make:
    """`R` with another file, or other keys in it, asked."""

    def make(place: Path, here: Path) -> tuple[object, ...]:
        said = made.with_json(place / "R" / name, **keys) if keys else content
        return "evaluate", made.changed(here / "c", place / "R", **{name.replace(".", "__"): said})

    return make


def patched(tensors: dict[str, Any] | None = None, **metadata: str | None) -> Make:
    def make(place: Path, here: Path) -> tuple[object, ...]:
        (here / "p.safetensors").write_bytes(made.patch(place / "P.safetensors", tensors, **metadata))
        return "patch", "apply", "S", here / "p.safetensors", here / "rebuilt"

    return make


def trained(text: str | bytes = "", without: str = "", **changes: Any) -> Make:
    """A recipe: this text after the good one without a key, or the good one with changes."""

    def make(place: Path, here: Path) -> tuple[object, ...]:
        content = text if isinstance(text, bytes) else (made.recipe(place, without, **changes) + text).encode()
        (here / "r.yaml").write_bytes(content)
        return "train", here / "r.yaml", "--out", here / "run"

    return make


def begun(name: str, content: str | None = None, **keys: Any) -> Make:
    """A training of `R` with another file, or other keys in it."""

    def make(place: Path, here: Path) -> tuple[object, ...]:
        _, student = asked(name, content, **keys)(place, here)
        return trained(student=str(student))(place, here)

    return make


def shipped(content: bytes) -> Make:
    """A GGUF in a package."""

    def make(place: Path, here: Path) -> tuple[object, ...]:
        (here / "hostile_package").mkdir()
        (here / "hostile_package" / "__init__.py").write_text("raise SystemExit('the package was imported')\n")
        (here / "hostile_package" / "x.gguf").write_bytes(content)
        return measured("wheel:hostile_package/x.gguf")

    return make


def number(dtype: torch.dtype, value: float) -> Make:
    def make(place: Path, here: Path) -> tuple[object, ...]:
        return measured(made.with_tensor(here / "c", "model.norm.weight", torch.full((16,), value).to(dtype)))

    return make


def other(kind: str, *words: object) -> Make:
    """A command about a pipe, a device or a folder in the place of the file X."""

    def make(place: Path, here: Path) -> tuple[object, ...]:
        at = here / "x.safetensors"
        if kind == "pipe":
            os.mkfifo(at)
        elif kind == "device":
            at.symlink_to("/dev/zero")
        elif kind == "loop":
            at.symlink_to(at.name)
        else:
            at.mkdir()
        return tuple(at if word == "X" else word for word in words)

    return make


def pickled(content: Callable[[], Any] | bytes, packed: bool = False) -> Make:
    """A file of torch.save, or these bytes in the place of one."""

    def make(place: Path, here: Path) -> tuple[object, ...]:
        file = here / "pytorch_model.bin"
        if isinstance(content, bytes):
            file.write_bytes(content)
        else:
            torch.save(content(), file)
        if packed:
            with ZipFile(file) as archive:
                items = {item.filename: archive.read(item) for item in archive.infolist()}
            with ZipFile(file, "w", ZIP_DEFLATED) as archive:
                for name, stored in items.items():
                    archive.writestr(name, stored)
        return measured(here)

    return make


def repeated() -> dict[str, torch.Tensor]:
    """One number that is seen 10^10 times."""
    return {FIRST: torch.zeros(1).set_(torch.zeros(1).untyped_storage(), 0, (10**5, 10**5), (0, 0))}


def within() -> dict[str, Any]:
    """A state dict that lies in itself."""
    found: dict[str, Any] = {}
    found["model"] = found
    return found


def distributed(place: Path, here: Path) -> tuple[object, ...]:
    """One number that is said to be 10^10."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of a group of processes that is not there
        dcp.save({"model": {FIRST: torch.zeros(1)}}, checkpoint_id=here, no_dist=True)
    metadata = pickle.loads((here / ".metadata").read_bytes())
    for stored in metadata.state_dict_metadata.values():
        stored.size = torch.Size((10**10,))
        stored.chunks[0].sizes = torch.Size((10**10,))
    (here / ".metadata").write_bytes(pickle.dumps(metadata))
    return measured(here)


def adapter(base: str, tensors: bool = True, **keys: Any) -> Make:
    """An adapter of PEFT over the folder `base` beside it."""

    def make(place: Path, here: Path) -> tuple[object, ...]:
        (here / "S").symlink_to(place / "S")
        module = "base_model.model.model.layers.0.self_attn.q_proj"
        factors = {f"{module}.lora_A.weight": torch.ones(2, 16), f"{module}.lora_B.weight": torch.ones(16, 2)}
        for own, named in (("a", base), ("b", "../a")):
            config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "base_model_name_or_path": named} | keys
            (here / own).mkdir()
            (here / own / "adapter_config.json").write_text(json.dumps(config))
            save_file(factors, here / own / "adapter_model.safetensors")
        return measured(here / "a")

    return make


def circle_over_a_patch(place: Path, here: Path) -> tuple[object, ...]:
    adapter(f"patch:{here / 'p.safetensors'}")(place, here)
    (here / "p.safetensors").write_bytes(made.patch(place / "P.safetensors", source=str(here / "a")))
    return measured(f"patch:{here / 'p.safetensors'}")


def scaled(block: object) -> Make:
    """A weight in fp8 whose scales belong to blocks of this size."""
    entries = {"z": tensor([5, 6], 0, 30, "F8_E4M3"), "z_scale_inv": tensor([2, 1], 30, 38, "F32")}
    config = json.dumps({"quantization_config": {"weight_block_size": block}})
    return beside(model__safetensors=safetensors(entries, bytes(38)), config__json=config)


def among(name: str, kind: str = "pipe") -> Make:
    """A folder with a pipe, or a link to a device, of this name."""

    def make(place: Path, here: Path) -> tuple[object, ...]:
        at = here / name
        at.parent.mkdir(parents=True, exist_ok=True)
        os.mkfifo(at) if kind == "pipe" else at.symlink_to("/dev/zero")
        return measured(here)

    return make


def shards(place: Path, here: Path) -> tuple[object, ...]:
    for number in (1, 2):
        content = safetensors({str(number): tensor([2], 0, 4)}, bytes(4))
        (here / f"model-{number}-of-{10**18}.safetensors").write_bytes(content)
    return measured(here)


def circle(place: Path, here: Path) -> tuple[object, ...]:
    for own, name, next_one in (("one", "aaa", "two"), ("two", "bbb", "one")):
        (here / f"{own}.yaml").write_text(made.recipe(place, name=name, student=f"recipe:{next_one}"))
    return "train", here / "one.yaml"


def tower(place: Path, here: Path) -> tuple[object, ...]:
    for i in range(40):
        below = f"recipe:r{i + 1}"
        (here / f"r{i}.yaml").write_text(made.recipe(place, name=f"n{i}", student=below, teacher=below))
    return "train", here / "r0.yaml"


def index(content: str) -> Make:
    return beside(model__safetensors=None, model__safetensors__index__json=content)


BLOCKS = ("llama.block_count", 4, (10**9).to_bytes(4, "little"))
FIRST = "model.embed_tokens.weight"
TWO = tensor([2], 0, 4)
BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 60)) + "steps: *a59\n"
UNTYPED = {"steps: !!float x": "float", "steps: 2020-13-45": "month", f"steps: {LONG_NUMBER}": "digit"}
WRONG_CONFIG: dict[str, Any] = {
    "a layer for every atom": {"num_hidden_layers": 10**9},
    "layers that no tensor fills": {"num_hidden_layers": 10**5},
    "a vocabulary without end": {"vocab_size": 10**12},
    "no heads": {"num_attention_heads": 0},
    "text for a number": {"hidden_size": "x"},
    "an unknown activation": {"hidden_act": "os.system"},
    "rope of text": {"rope_parameters": "x"},
    "attention from the Hub": {"attn_implementation": "someone/kernel"},
    "the same inside": {"_attn_implementation": "someone/kernel"},
    "a list for a type": {"model_type": ["llama"]},
    "another kind of model": {"model_type": "clip"},
    "a model without such layers": {"model_type": "mamba"},
}

CASES: dict[str, tuple[Make, str]] = {
    "offsets beyond any file": (stored(safetensors({"a": tensor([2**62], 0, 2**63)})), "not a whole safetensors file"),
    "an empty shape beyond torch": (
        stored(safetensors({"a": tensor([0, 2**63], 0, 0), "b": TWO}, bytes(4))),
        "no such shape can be held",
    ),
    "a tensor without a name": (stored(safetensors({"": TWO}, bytes(4))), "a tensor without a name"),
    "a deep header": (stored(safetensors(DEEP.encode())), "not a whole safetensors file"),
    "a long number in a header": (stored(safetensors(f'{{"a":{LONG_NUMBER}}}'.encode())), "not a whole safetensors"),
    "a layer of 5,000 digits": (
        stored(safetensors({f"model.layers.{LONG_NUMBER}.w": TWO}, bytes(4))),
        "tensor name in common",
    ),
    "a shard of 10^18": (shards, "shard 3 of 1000000000000000000 is missing"),
    **{
        f"{kind} for weights": (other(kind, *measured("X")), said)
        for kind, said in {
            "pipe": "no regular file",
            "device": "no regular file",
            "loop": "no such file or folder",
            "folder": "an empty folder",
        }.items()
    },
    **{
        f"a pipe called {name}": (among(name), "is no regular file")
        for name in ("pytorch_model.bin.index.json", "model_world_size_1_rank_0.pt", "x.gguf")
    },
    "a device called x.gguf": (among("x.gguf", "device"), "is no regular file"),
    "one number 10^10 times": (pickled(repeated), "and its files have"),
    "one number for 10^10": (distributed, "and its files have"),
    "what torch never packs": (pickled(lambda: {FIRST: torch.ones(40, 16)}, packed=True), "in it is compressed"),
    "a key of 2^64": (pickled(b"\x80\x02}K\x01\x85" + b"2\x86" * 64 + b"Ns."), "makes one object of more than"),
    "a dict in itself": (pickled(within), "no weights in it"),
    "an adapter over itself": (adapter("."), "its base leads back to it"),
    "two adapters over each other": (adapter("../b"), "its base leads back to it"),
    "an adapter over a patch over it": (circle_over_a_patch, "its base leads back to it"),
    "a pattern without end": (adapter("../S", rank_pattern={"((x|.)+)+!": 2}), "may take too long to match"),
    "an alpha of 400 digits": (adapter("../S", lora_alpha=10**400), "lora_alpha"),
    "blocks of 10^9": (scaled([4, 10**9]), "tensor"),
    "blocks of half a row": (scaled([4.5, 2]), "weight_block_size in config.json is [4.5, 2]"),
    "5,000 names of another model": (
        stored(safetensors({f"t{i}": tensor([0], 0, 0) for i in range(5000)})),
        "no tensor name in common",
    ),
    "the program itself for a package": (lambda place, here: measured("wheel:__main__/x.gguf"), "wheel:__main__"),
    "a null byte in a path": (lambda place, here: measured("a\0b"), "no such file or folder"),
    "a path beyond any": (lambda place, here: measured("x" * 5000), "too long"),
    "a deep index": (index(DEEP), "not readable as JSON"),
    "a long number in an index": (index(f'{{"weight_map": {{"a": {LONG_NUMBER}}}}}'), "not readable as JSON"),
    "an index of a null byte": (index('{"weight_map": {"a": "\\u0000.safetensors"}}'), "missing"),
    "a deep config": (beside(config__json=DEEP), "not readable as JSON"),
    "a config of bytes": (beside(config__json=b"\xff\xfe"), "'utf-8' codec can't decode"),
    **{name: (asked("config.json", **keys), "config.json") for name, keys in WRONG_CONFIG.items()},
    "a deep config that is asked": (asked("config.json", DEEP), "config.json"),
    "a tokenizer of nothing": (asked("tokenizer.json", ""), "cannot use its tokenizer"),
    "a deep tokenizer": (asked("tokenizer.json", DEEP), "cannot use its tokenizer"),
    "an unknown model of tokens": (asked("tokenizer.json", model={"type": "Nope"}), "cannot use its tokenizer"),
    "a tokenizer's list": (asked("tokenizer_config.json", "[]"), "cannot use its tokenizer"),
    "no end of sequence": (asked("tokenizer_config.json", eos_token=None), "no end of sequence"),
    "what tokenizers would print": (
        asked("tokenizer_config.json", added_tokens_decoder={"0": {"content": "a", "b\x1b[2J": 1}}, eos_token=None),
        "no end of sequence",
    ),
    "10^9 beams": (asked("generation_config.json", '{"num_beams": 1000000000}'), "asks for beam_search"),
    "a search that is code from the Hub": (
        asked("generation_config.json", '{"penalty_alpha": 0.6, "top_k": 4}'),
        "asks for contrastive_search",
    ),
    "beams of a student": (begun("generation_config.json", '{"num_beams": 5}'), "asks for beam_search"),
    "a student of other shapes": (begun("config.json", vocab_size=9), "describes another model"),
    "text for tokens": (asked("generation_config.json", '{"suppress_tokens": ["x"]}'), "generation_config.json"),
    "3 million entries": (
        shipped(gguf([LLAMA, ("x", 9, made.struct.pack("<IQ", 0, 3 * 10**6) + bytes(3 * 10**6))])),
        "a model has at most",
    ),
    "20,000 values": (
        shipped(gguf([LLAMA, *((f"k{i}", 4, bytes(4)) for i in range(20_000))])),
        "a model has at most 10000",
    ),
    "an empty GGUF": (shipped(b""), "an empty file"),
    "no GGUF": (shipped(gguf(magic=b"GGUX")), "begins with b'GGUX'"),
    "a GGUF of the future": (shipped(gguf(version=99)), "version 99"),
    "2^60 tensors": (shipped(gguf([LLAMA], announced=(2**60, 1))), "announces 1152921504606846976"),
    "2^60 values": (shipped(gguf([LLAMA], announced=(0, 2**60))), "announces 1152921504606846976"),
    "a string of 2^62": (shipped(gguf([("a", 8, (2**62).to_bytes(8, "little"))])), "announces"),
    "2^40 numbers": (shipped(gguf([LLAMA, ("x", 9, made.struct.pack("<IQ", 4, 2**40))])), "announces"),
    "2^40 strings": (shipped(gguf([LLAMA, ("x", 9, made.struct.pack("<IQ", 8, 2**40))])), "announces"),
    "an unknown value": (shipped(gguf([("x", 77, b"")])), "a value of type 77"),
    "a tensor outside": (shipped(gguf([LLAMA], [("token_embd.weight", (32, 2**40), 0, 0)])), "weights in"),
    "an architecture and nothing else": (shipped(gguf([LLAMA])), "x.gguf"),
    "an unknown architecture": (shipped(gguf([("general.architecture", 8, made.text("evil"))])), "x.gguf"),
    "10^9 blocks": (
        shipped(gguf([LLAMA, BLOCKS], [("a", (4,), 0, 0)], data=bytes(512))),
        "announces 1000000000 layers",
    ),
    **{
        f"a patch whose {key} are {value[:8]!r}": (patched(**{key: value}), "p.safetensors")
        for key, value in (
            *(("digests", text) for text in ("[]", "5", "{", "{}", DEEP, LONG_NUMBER)),
            *(("file_metadata", text) for text in ("[]", '{"a": 1}')),
        )
    },
    "a patch without digests": (patched(digests=None), "its header is no patch's"),
    "a patch of another result": (patched(result_digest="0" * 64), "its header says 000000000000"),
    "a patch of numbers": (patched({FIRST: np.ones(5, np.float32)}), f"{FIRST} is damaged"),
    "a patch for another model": (patched({"a\x1b[2J": np.zeros(3, np.uint8)}), r"changes a\x1b[2J"),
    "a pipe for a patch": (other("pipe", "patch", "apply", "S", "X", "out"), "no such file"),
    "a folder for a patch": (other("folder", "patch", "apply", "S", "X", "out"), "no such file"),
    **{text: (trained(text + "\n", without="steps"), said) for text, said in UNTYPED.items()},
    "aliases of aliases": (trained(BOMB, without="steps"), "an alias is not allowed"),
    "an object of Python": (trained("steps: !!python/object/apply:os.system [x]\n", "steps"), "could not determine"),
    "a deep recipe": (trained(DEEP.encode()), "not readable as YAML"),
    "a recipe of bytes": (trained(b"\xff\xfe\xff"), "'utf-8' codec can't decode"),
    "a list for a key": (trained("? [a]\n: b\n"), "not readable as YAML"),
    "10^9 threads": (trained(threads=10**9), "threads is 1000000000"),
    "10^12 steps": (trained(steps=10**12), "steps is 1000000000000"),
    "10^14 completions": (trained(steps=10**7, batch_size=10**7), "batch_size is 10000000"),
    "10^9 tokens of a task": (
        trained("task: jsonl:r.yaml\nrows: {max_new_tokens: 1000000000}\n", without="task"),
        "rows.max_new_tokens is 1000000000",
    ),
    "10^12 tokens": (trained(max_new_tokens=10**12), "max_new_tokens is 1000000000000"),
    "layers that are not there": (
        trained(lora={"rank": 2, "alpha": 1.0, "targets": ["q_proj", "nope"]}, precision="fp32"),
        "lora.targets has 'nope'",
    ),
    "a rank of 10^9": (trained(lora={"rank": 10**9, "alpha": 1.0}), "lora.rank is 1000000000"),
    "5,000 brackets": (trained(b"{" * 5000), "nested too deep"),
    "a cold sampler": (trained(temperature=1e-320), "temperature is 1e-320"),
    "a name beyond any": (trained(name="x" * 300), "name is"),
    "a recipe outside": (trained(student="recipe:../x"), "plain name of a recipe"),
    "a recipe of a null byte": (trained(student="recipe:\0"), "plain name of a recipe"),
    "a circle of other names": (circle, "leads back to itself"),
    "a tower that doubles": (tower, "recipe in a row"),
    **{f"{kind} for a recipe": (other(kind, "train", "X"), "no regular file") for kind in ("pipe", "device", "folder")},
    "bf16 NaN": (number(torch.bfloat16, float("nan")), "holds 16 NaN or Inf, the first nan at [0]"),
    "too large for bf16": (number(torch.float32, 3.4e38), "16 numbers that are too large for bf16, the first 3.4e+38"),
    "float64": (number(torch.float64, 1.0), "Save it as float32"),
    "whole numbers": (number(torch.int64, 1.0), "stored as I64"),
}  # fmt: skip


OPTIONS = {
    "measure --source S --trained T --memory " + "9" * 400: "wanted a number of bytes",
    "measure --source S --trained T --shard 1/" + LONG_NUMBER: "wanted I/N",
    "measure --source S --trained T --workers 0": "Must be >= 1",
    "measure --source S --trained T --out a\0b": "is no name of a file",
    "compare --source S T R --atol nan": "wanted a finite number",
    "trajectory --source S --trained T S --name ../../x": "cannot be that of a results folder",
    "train recipe.yaml --device tpu": "Choose from",
    "train recipe.yaml --device cuda --max-steps 1": "there is none on this machine",
    "study pico --list --seeds 1.5": "invalid literal for int",
    "noise S T out --seed 1.5": "invalid literal for int",
    "report S T -o r.html --tables csv recipe.yaml": "is no folder",
}


@pytest.mark.parametrize("words", OPTIONS, ids=lambda words: words[:60])
def test_an_option_without_sense_is_refused_before_anything_is_done(run: Run, place: Path, words: str) -> None:
    before = {*place.rglob("*")}
    code, out, error = run(*words.split(" "))
    assert (code, out) == (2, ""), error
    assert OPTIONS[words] in error
    assert error.count("\n") == 1
    assert {*place.rglob("*")} == before


@pytest.mark.slow
def test_what_is_asked_is_text_whatever_files_say(run: Run, place: Path, tmp_path: Path) -> None:
    keys = '{"return_dict_in_generate": true, "output_scores": true}'
    model, rows = made.changed(tmp_path / "m", place / "R", generation_config__json=keys), tmp_path / "rows.jsonl"
    rows.write_text("".join(f'{{"prompt": "{n}\u2028\x85", "reference": "x"}}\n' for n in range(30)))
    code, out, error = run("evaluate", model, "--tasks", f"jsonl:{rows}", "--json")
    assert (code, error) == (0, ""), error
    (tmp_path / "half.jsonl").write_text('{"prompt": "\\ud800", "reference": "x"}\n')
    code, out, error = run("evaluate", model, "--tasks", f"jsonl:{tmp_path / 'half.jsonl'}")
    assert (code, out) == (2, "")
    assert "surrogates not allowed; wanted text" in error


def kept(place: Path) -> list[Path]:
    """Every file there but the ledgers of measurements that were begun, which the next one goes on from."""
    return [path for path in place.rglob("*") if ".ledger" not in str(path)]


@pytest.mark.parametrize("name", CASES)
def test_it_is_refused_in_one_line(
    run: Run, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    make, said = CASES[name]
    monkeypatch.syspath_prepend(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in kept(place)}
    words = make(place, tmp_path)
    code, out, error = run(*words)
    assert (code, out) == (2, ""), error
    line, end = error[:-1], error[-1]
    assert end == "\n", error
    assert line.isprintable(), "one line, and nothing that a terminal obeys"
    assert len(line) < 3000
    assert line.startswith("opd: ")
    assert said in line, line
    assert {path: path.stat().st_mtime_ns for path in kept(place)} == before
    assert not {"rebuilt", "run", "out"} & {path.name for path in tmp_path.iterdir()}


NOT_FINITE = {"nan": float("nan"), "inf": float("inf")}


@pytest.mark.parametrize("value", NOT_FINITE)
def test_every_command_that_computes_refuses_what_is_no_number(run: Run, tmp_path: Path, value: str) -> None:
    bad = made.with_tensor(tmp_path / "bad", "model.norm.weight", torch.full((16,), NOT_FINITE[value]).bfloat16())
    for words in (
        ("overlap", "--source", "S", "--a", "T", "--b", bad),
        ("overlap", "--source", bad, "--a", "T", "--b", "T"),
        ("noise", "S", bad, tmp_path / "noise"),
        ("edit", "S", bad, tmp_path / "edited"),
    ):
        code, out, error = run(*words)
        assert (code, out) == (2, ""), words
        assert f"{bad}: model.norm.weight holds 16 NaN or Inf, the first {value} at [0]" in error
    assert [path.name for path in tmp_path.iterdir()] == ["bad"]


def test_an_edit_that_leaves_the_numbers_is_refused(run: Run, tmp_path: Path) -> None:
    code, _, error = run("edit", "S", "T", tmp_path / "edited", "--keep", "scale:1e300")
    assert code == 2
    assert "what the rules scale:1e300 leave is too large" in error
    assert not (tmp_path / "edited").exists()


def test_a_scalar_that_changed_makes_the_round_trip(run: Run, tmp_path: Path) -> None:
    one, two = (torch.tensor(value).bfloat16() for value in (1.0, 2.0))
    source = made.with_tensor(tmp_path / "source", "scalar", one, source=True)
    trained = made.with_tensor(tmp_path / "trained", "scalar", two)
    assert run("patch", "make", source, trained, tmp_path / "p.safetensors")[0] == 0
    assert run("patch", "verify", source, tmp_path / "p.safetensors", trained)[0] == 0
    assert run("overlap", "--source", source, "--a", trained, "--b", trained)[0] == 0


def test_the_reasons_are_short(run: Run, tmp_path: Path) -> None:
    weight_map = json.dumps({"weight_map": {"x" * 100_000: "../away"}})
    (tmp_path / "model.safetensors.index.json").write_text(weight_map)
    error = run(*measured(tmp_path))[2]
    assert "is said to lie in '../away'" in error
    assert len(error) < 1000
