"""Patches: what comes back is the very checkpoint, bit for bit."""

import hashlib
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from opdlib.checkpoints import open_checkpoint
from opdlib.checkpoints.checkpoint import TensorInfo
from opdlib.checkpoints.patch import apply, make, verify
from opdlib.checkpoints.patch_header import read_header
from opdlib.errors import CheckpointError, PatchError
from tests.conftest import ODD, weights_with_oddities, write_checkpoint


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    assert one.dtype == other.dtype == torch.bfloat16
    return torch.equal(one.view(torch.int16), other.view(torch.int16))


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
