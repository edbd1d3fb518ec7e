"""`opd patch` and `opd edit`: checkpoints made of others, whole or not at all."""

import json
from pathlib import Path

import pytest

from tests.cli.test_cli import complains
from tests.conftest import Command, pico_weights, write_checkpoint


@pytest.mark.slow
def test_a_patch_makes_the_round_trip_and_is_measured_like_its_checkpoint(
    opd: Command, pico_pair: tuple[Path, Path], tmp_path: Path
) -> None:
    source, trained = pico_pair
    file, rebuilt = tmp_path / "x.safetensors", tmp_path / "rebuilt"
    assert "coordinates changed" in opd("patch", "make", source, trained, file).stdout
    told = opd("patch", "make", source, trained, tmp_path / "y.safetensors", "--json").stdout
    assert json.loads(told)["tensors"] == len(pico_weights())
    assert opd("patch", "apply", source, file, rebuilt).returncode == 0
    assert (rebuilt / "model.safetensors").read_bytes() == (trained / "model.safetensors").read_bytes()
    assert "bit for bit" in opd("patch", "verify", source, file, trained).stdout
    for name, spec in (("patched", f"patch:{file}"), ("plain", str(trained))):
        done = opd("measure", "--source", source, "--trained", spec, "--name", "x", "--out", tmp_path / name)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "patched" / "summary.json").read_bytes() == (tmp_path / "plain" / "summary.json").read_bytes()


def test_a_patch_over_the_wrong_source(opd: Command, pico_pair: tuple[Path, Path], tmp_path: Path) -> None:
    source, trained = pico_pair
    file, other = tmp_path / "x.safetensors", write_checkpoint(tmp_path / "other", pico_weights(seed=5))
    assert opd("patch", "make", source, trained, file).returncode == 0
    complains(opd("patch", "apply", other, file, tmp_path / "rebuilt"), "digest")
    assert not (tmp_path / "rebuilt").exists()
    complains(opd("patch", "verify", source, file, other))
    write_checkpoint(source, pico_weights(seed=5))  # the named source is now another
    done = opd("measure", "--source", other, "--trained", f"patch:{file}", "--out", tmp_path / "out")
    complains(done, "digest")
    assert not (tmp_path / "out" / "summary.json").exists()


def test_edit_writes_a_part_and_nothing_over_what_is_there(
    opd: Command, pico_pair: tuple[Path, Path], tmp_path: Path
) -> None:
    source, trained = pico_pair
    before = [(side / "model.safetensors").read_bytes() for side in pico_pair]
    done = opd("edit", source, trained, "part", "--keep", "block:mlp", "--keep", "layers:0-0", "--complement")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("part: ")
    assert (tmp_path / "part" / "config.json").read_bytes() == (trained / "config.json").read_bytes()
    for out in (source, trained, trained / "model.safetensors"):
        complains(opd("edit", source, trained, out), str(out), "new")
    complains(opd("edit", source, trained, "x", "--keep", "block:mpl"), "block:mpl", "mlp")
    complains(opd("edit", source, trained, "x", "--keep", "layers:0-9"), "layers:0-9", "0 to 1")
    complains(opd("edit", source, trained), "OUT", "opd edit --help")
    assert not (tmp_path / "x").exists()
    assert [(side / "model.safetensors").read_bytes() for side in pico_pair] == before
