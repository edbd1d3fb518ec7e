from __future__ import annotations

import contextlib
import hashlib
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from opdlib.checkpoints import TensorInfo, open_checkpoint
from opdlib.checkpoints.patched import PatchedCheckpoint, read_header
from opdlib.checkpoints.writing import write_safetensors
from opdlib.errors import CheckpointError, OutputError, PatchError
from opdlib.patch import apply, make, verify
from tests.conftest import Weights, moved, pico_weights, write_checkpoint

ODD = "model.layers.1.mlp.up_proj.weight"


def weights_with_oddities() -> tuple[Weights, Weights]:
    """A pico pair with a scalar, an empty, a 3-D and an unchanged tensor, and bit patterns that are no numbers."""
    source = pico_weights() | {
        "scalar": torch.tensor(2.5, dtype=torch.bfloat16),
        "none": torch.zeros(0, 4, dtype=torch.bfloat16),
        "experts": torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(2)).bfloat16(),
    }
    trained = moved(source) | {"model.norm.weight": source["model.norm.weight"]}
    trained[ODD].view(torch.int16).view(-1)[:5] = torch.tensor([0x7FC1, -1, 0x7F80, -32768, 1], dtype=torch.int16)
    source[ODD].view(torch.int16).view(-1)[:3] = torch.tensor([0x7FC2, 5, -32768], dtype=torch.int16)
    return source, trained


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    assert one.dtype == other.dtype == torch.bfloat16
    return torch.equal(one.view(torch.int16), other.view(torch.int16))


@pytest.fixture
def patched(tmp_path: Path) -> tuple[Path, Path, Path]:
    """Folders of source and trained, and the patch between them."""
    source, trained = weights_with_oddities()
    a = write_checkpoint(tmp_path / "source", source, config={"model_type": "llama"})
    b = write_checkpoint(tmp_path / "trained", trained)
    make(open_checkpoint(str(a)), open_checkpoint(str(b)), tmp_path / "x.safetensors")
    return a, b, tmp_path / "x.safetensors"


@pytest.mark.parametrize("shards", [1, 3])
def test_the_trained_checkpoint_comes_back_bit_for_bit(tmp_path: Path, shards: int) -> None:
    before, after = weights_with_oddities()
    source = open_checkpoint(str(write_checkpoint(tmp_path / "source", before, shards)))
    trained = open_checkpoint(str(write_checkpoint(tmp_path / "trained", after, shards)))
    file = tmp_path / "x.safetensors"
    sizes = make(source, trained, file)
    verify(source, file, trained)

    checkpoint = open_checkpoint(f"patch:{file}")
    assert set(checkpoint.tensors) == set(after)
    for name, weight in after.items():
        assert checkpoint.tensors[name] == TensorInfo(tuple(weight.shape), "BF16")
        assert same_bits(checkpoint.read(name), weight)
        assert checkpoint.tensor_digest(name) == trained.tensor_digest(name)
    assert checkpoint.digest() == trained.digest()

    changed = {n: int((before[n].view(torch.int16) != after[n].view(torch.int16)).sum()) for n in after}
    assert (sizes.tensors, sizes.changed_tensors) == (len(after), sum(c > 0 for c in changed.values()))
    assert (sizes.coordinates, sizes.changed) == (sum(w.numel() for w in after.values()), sum(changed.values()))
    assert (sizes.full_bytes, sizes.patch_bytes) == (2 * sizes.coordinates, file.stat().st_size)
    assert f"{sizes.changed:,} of {sizes.coordinates:,}" in str(sizes)
    with safe_open(file, "np") as stored:
        assert set(stored.keys()) == {n for n, c in changed.items() if c}


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {"é": "ü\n"}])
def test_one_file_comes_back_with_the_very_same_bytes(tmp_path: Path, metadata: dict[str, str] | None) -> None:
    before, after = weights_with_oddities()
    before["ünï"], after["ünï"] = before["scalar"].clone(), after["scalar"].clone()
    source = open_checkpoint(str(write_checkpoint(tmp_path / "source", before)))
    trained = tmp_path / "trained.safetensors"
    save_file(after, trained, metadata)
    make(source, open_checkpoint(str(trained)), tmp_path / "x.safetensors")
    assert apply(source, tmp_path / "x.safetensors", tmp_path / "out.safetensors") == tmp_path / "out.safetensors"
    assert sha256(tmp_path / "out.safetensors") == sha256(trained)


def test_a_folder_comes_with_configuration_and_tokenizer_but_no_other_weights(patched: tuple[Path, Path, Path]) -> None:
    source, trained, file = patched
    for name in ("tokenizer.json", "chat_template.jinja", "pytorch_model.bin", "notes.md"):
        (source / name).write_text(name)
    out = apply(open_checkpoint(str(source)), file, source.parent / "new" / "out")
    assert sorted(p.name for p in out.iterdir()) == [
        "chat_template.jinja",
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    ]
    assert sha256(out / "model.safetensors") == sha256(trained / "model.safetensors")
    assert open_checkpoint(str(out)).config == {"model_type": "llama"}


def test_shards_are_rebuilt_as_one_file(tmp_path: Path) -> None:
    before, after = weights_with_oddities()
    source = open_checkpoint(str(write_checkpoint(tmp_path / "source", before, shards=2)))
    trained = open_checkpoint(str(write_checkpoint(tmp_path / "trained", after, shards=3)))
    make(source, trained, tmp_path / "x.safetensors")
    out = apply(source, tmp_path / "x.safetensors", tmp_path / "out")
    assert [p.name for p in out.iterdir()] == ["model.safetensors"]
    assert open_checkpoint(str(out)).digest() == trained.digest()
    assert all(same_bits(w, after[n]) for n, w in load_file(out / "model.safetensors").items())


def test_making_twice_gives_the_same_bytes(patched: tuple[Path, Path, Path]) -> None:
    source, trained, file = patched
    again = file.with_name("again.safetensors")
    make(open_checkpoint(str(source)), open_checkpoint(str(trained)), again)
    assert again.read_bytes() == file.read_bytes()


def test_an_unchanged_checkpoint_costs_a_header(patched: tuple[Path, Path, Path]) -> None:
    source, _, file = patched
    same = open_checkpoint(str(source))
    sizes = make(same, same, file)
    assert (sizes.changed, sizes.changed_tensors) == (0, 0)
    assert open_checkpoint(f"patch:{file}").digest() == same.digest()
    verify(same, file, same)


def test_a_patched_checkpoint_has_the_sources_folder_and_travels_to_workers(patched: tuple[Path, Path, Path]) -> None:
    source, trained, file = patched
    checkpoint = pickle.loads(pickle.dumps(open_checkpoint(f"patch:{file}")))
    assert checkpoint.folder == source
    assert checkpoint.config == {"model_type": "llama"}
    assert same_bits(checkpoint.read(ODD), open_checkpoint(str(trained)).read(ODD))
    with pytest.raises(CheckpointError, match="no tensor 'nothing'"):
        checkpoint.read("nothing")


def test_a_relative_source_is_found_from_the_patch_then_from_here(
    patched: tuple[Path, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, trained, _ = patched
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "patches" / "x.safetensors"
    make(open_checkpoint("source"), open_checkpoint("trained"), Path("patches/x.safetensors"))
    assert read_header(file).source == "./../source"
    monkeypatch.chdir("/")
    assert open_checkpoint(f"patch:{file}").digest() == open_checkpoint(str(trained)).digest()
    moved_away = tmp_path / "elsewhere" / "deep" / "x.safetensors"
    moved_away.parent.mkdir(parents=True)
    shutil.copy(file, moved_away)
    with pytest.raises(PatchError, match=r"its source cannot be opened.*\.\./source"):
        open_checkpoint(f"patch:{moved_away}")
    monkeypatch.chdir(tmp_path / "patches")
    assert open_checkpoint(f"patch:{moved_away}").digest() == open_checkpoint(str(trained)).digest()


def test_the_commit_of_a_source_on_the_hub_is_recorded(patched: tuple[Path, Path, Path]) -> None:
    source, trained, file = patched
    hub = open_checkpoint(str(source))
    hub.spec, hub.revision = "org/name@main", "0" * 40
    make(hub, open_checkpoint(str(trained)), file)
    assert read_header(file).source == f"org/name@{'0' * 40}"


def test_progress_sees_every_tensor(patched: tuple[Path, Path, Path]) -> None:
    source, trained, file = patched
    a, b = open_checkpoint(str(source)), open_checkpoint(str(trained))
    seen: list[str] = []

    def progress(names: list[str]) -> list[str]:
        seen.extend(names)
        return names

    make(a, b, file, progress)
    verify(a, file, b, progress)
    apply(a, file, file.with_name("out"), progress)
    assert seen == 3 * sorted(a.tensors)


def test_a_wrong_source_is_refused_with_both_digests(patched: tuple[Path, Path, Path], tmp_path: Path) -> None:
    source, trained, file = patched
    wrong = open_checkpoint(str(trained))
    right = open_checkpoint(str(source))
    for action in (
        lambda: apply(wrong, file, tmp_path / "out"),
        lambda: verify(wrong, file, wrong),
        lambda: PatchedCheckpoint(file, wrong, "x"),
    ):
        with pytest.raises(PatchError, match=f"{right.digest()[:12]}.*{wrong.digest()[:12]}.*give the") as caught:
            action()
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()
    shutil.copy(trained / "model.safetensors", source / "model.safetensors")
    with pytest.raises(PatchError, match="made over a source"):
        open_checkpoint(f"patch:{file}")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w | {ODD: w[ODD].float()}, rf"{ODD} is stored as F32.*round the checkpoint"),
        (lambda w: w | {ODD: w[ODD][:3].clone()}, rf"{ODD} is \(24, 16\).*\(3, 16\).*equal shapes"),
        (lambda w: {n: t for n, t in w.items() if n != ODD}, rf"lacks 1 of the .*{ODD}"),
        (lambda w: w | {"lm_head.weight": w[ODD].clone()}, r"source: lacks 1 of the .*lm_head"),
    ],
)
def test_pairs_that_no_patch_can_hold_are_refused(
    patched: tuple[Path, Path, Path], tmp_path: Path, change: Callable[[Weights], Weights], message: str
) -> None:
    source, trained, file = patched
    before = file.read_bytes()
    other = write_checkpoint(tmp_path / "other", change(load_file(trained / "model.safetensors")))
    for action in (
        lambda: make(open_checkpoint(str(source)), open_checkpoint(str(other)), file),
        lambda: verify(open_checkpoint(str(source)), file, open_checkpoint(str(other))),
    ):
        with pytest.raises(PatchError, match=message) as caught:
            action()
        assert "\n" not in str(caught.value)
    assert file.read_bytes() == before


def test_verify_names_the_first_tensor_that_differs(patched: tuple[Path, Path, Path], tmp_path: Path) -> None:
    source, trained, file = patched
    weights = load_file(trained / "model.safetensors")
    weights[ODD].view(torch.int16).view(-1)[7] ^= 1
    other = open_checkpoint(str(write_checkpoint(tmp_path / "other", weights)))
    with pytest.raises(PatchError, match=rf"{ODD} differs from .* in 1 of 384 coordinates, first at flat index 7"):
        verify(open_checkpoint(str(source)), file, other)


def test_a_patch_is_no_source(patched: tuple[Path, Path, Path], tmp_path: Path) -> None:
    _, trained, file = patched
    with pytest.raises(PatchError, match="a patch cannot be a patch's source"):
        make(open_checkpoint(f"patch:{file}"), open_checkpoint(str(trained)), tmp_path / "y.safetensors")
    forge(file, tmp_path / "z.safetensors", source=f"patch:{tmp_path / 'z.safetensors'}")
    with pytest.raises(PatchError, match="its source is a patch too"):
        open_checkpoint(f"patch:{tmp_path / 'z.safetensors'}")


def forge(file: Path, out: Path, **fields: str) -> None:
    """Copy a patch with other fields in its header, sealed like a true one."""
    header = read_header(file)
    forged = type(header)(**(header.__dict__ | fields)).to_metadata()
    with safe_open(file, "np") as stored, out.open("wb") as stream:
        contents = {name: stored.get_tensor(name).tobytes() for name in stored.keys()}  # noqa: SIM118
        infos = {name: TensorInfo((len(content),), "U8") for name, content in contents.items()}
        write_safetensors(stream, forged, infos, contents.values())


def test_what_is_no_patch_is_refused(patched: tuple[Path, Path, Path], tmp_path: Path) -> None:
    _, trained, file = patched
    (tmp_path / "text.safetensors").write_text("not a safetensors file at all")
    (tmp_path / "huge.safetensors").write_bytes((1 << 60).to_bytes(8, "little") + b"{}")
    (tmp_path / "empty.safetensors").write_bytes(b"")
    for path, message in (
        (trained / "model.safetensors", "a safetensors file, but no patch"),
        (trained, "no such file"),
        (tmp_path / "absent.safetensors", "no such file"),
        (tmp_path / "text.safetensors", "not a whole safetensors file"),
        (tmp_path / "huge.safetensors", "not a whole safetensors file"),
        (tmp_path / "empty.safetensors", "not a whole safetensors file"),
    ):
        with pytest.raises(PatchError, match=message) as caught:
            open_checkpoint(f"patch:{path}")
        assert "\n" not in str(caught.value)
    metadata = read_header(file).to_metadata()
    save_file({"x": torch.zeros(1)}, tmp_path / "next.safetensors", metadata | {"version": "2"})
    with pytest.raises(PatchError, match="a patch of version 2, this opdlib reads version 1"):
        open_checkpoint(f"patch:{tmp_path / 'next.safetensors'}")
    save_file({"x": torch.zeros(1)}, tmp_path / "edited.safetensors", metadata | {"source": "elsewhere"})
    with pytest.raises(PatchError, match="its header is damaged"):
        open_checkpoint(f"patch:{tmp_path / 'edited.safetensors'}")
    save_file({"x": torch.zeros(1)}, tmp_path / "stray.safetensors", metadata)
    with pytest.raises(PatchError, match=r"changes x, which .*source lacks"):
        open_checkpoint(f"patch:{tmp_path / 'stray.safetensors'}")


def test_a_truncated_patch_is_refused(patched: tuple[Path, Path, Path]) -> None:
    _, _, file = patched
    whole = file.read_bytes()
    for size in (7, 8, 200, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:size])
        with pytest.raises(PatchError, match="not a whole safetensors file"):
            open_checkpoint(f"patch:{file}")


def test_no_flipped_bit_goes_unnoticed(patched: tuple[Path, Path, Path], tmp_path: Path) -> None:
    source, trained, file = patched
    whole = file.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    good, bad = open_checkpoint(str(source)), tmp_path / "bad.safetensors"
    generator = np.random.default_rng(0)
    positions = [*range(8), *generator.integers(8, header, 60), *generator.integers(header, len(whole), 60)]
    passed = 0
    for position in map(int, positions):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << int(generator.integers(8))
        bad.write_bytes(damaged)
        with contextlib.suppress(PatchError):
            # Where it goes through, the bit meant nothing: blanks after the header, or the filling of a last byte.
            apply(good, bad, tmp_path / "out.safetensors")
            assert sha256(tmp_path / "out.safetensors") == sha256(trained / "model.safetensors")
            (tmp_path / "out.safetensors").unlink()
            passed += 1
    assert passed < 0.1 * len(positions)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bad.safetensors", "source", "trained", "x.safetensors"]


FULL_DISK = """
import resource, sys
from pathlib import Path
from opdlib.checkpoints import open_checkpoint
from opdlib.errors import OutputError
from opdlib.patch import apply, make
source, trained = map(open_checkpoint, sys.argv[1:3])
resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
try:
    if sys.argv[3] == "make":
        make(source, trained, Path(sys.argv[5]))
    else:
        apply(source, Path(sys.argv[4]), Path(sys.argv[5]))
except OutputError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("action", "out"), [("make", "y.safetensors"), ("apply", "y.safetensors"), ("apply", "folder")]
)
def test_a_full_disk_leaves_what_was_there(patched: tuple[Path, Path, Path], action: str, out: str) -> None:
    source, trained, file = patched
    target = file.with_name(out)
    if target.suffix:
        target.write_text("from an earlier run")
    before = sorted(file.parent.rglob("*"))
    command = [sys.executable, "-c", FULL_DISK, *map(str, (source, trained, action, file, target))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"{target}: cannot be written (File too large)"), done.stderr
    assert sorted(file.parent.rglob("*")) == before
    if target.suffix:
        assert target.read_text() == "from an earlier run"


def test_what_is_in_the_way_is_kept(patched: tuple[Path, Path, Path]) -> None:
    source, trained, file = patched
    checkpoint = open_checkpoint(str(source))
    before = sorted(file.parent.rglob("*"))
    with pytest.raises(OutputError, match="in the way"):
        apply(checkpoint, file, trained)
    with pytest.raises(OutputError, match="cannot be written"):
        make(checkpoint, checkpoint, trained)
    with pytest.raises(OutputError, match="cannot be written"):
        make(checkpoint, checkpoint, file / "below-a-file")
    assert sorted(file.parent.rglob("*")) == before
    (file.parent / "empty").mkdir()
    assert apply(checkpoint, file, file.parent / "empty").is_dir()


def test_an_interrupted_patch_leaves_nothing(patched: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    source, _, file = patched
    read = PatchedCheckpoint.read

    def interrupted(self: PatchedCheckpoint, name: str) -> torch.Tensor:
        if name == ODD:
            raise KeyboardInterrupt
        return read(self, name)

    monkeypatch.setattr(PatchedCheckpoint, "read", interrupted)
    before = sorted(file.parent.rglob("*"))
    for out in ("y.safetensors", "folder"):
        with pytest.raises(KeyboardInterrupt):
            apply(open_checkpoint(str(source)), file, file.with_name(out))
    assert sorted(file.parent.rglob("*")) == before
