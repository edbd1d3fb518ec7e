"""Shards of a measurement: merged in any order they are what one process writes; what is missing is named."""

import json
import random
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import opdlib.measurement.sparsity
from tests.conftest import Command

Shard = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(autouse=True)
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opdlib.measurement.sparsity, "GROUP", 500)


@pytest.fixture
def measure(opd: Command, pico_pair: tuple[Path, Path]) -> Shard:
    def run(out: str, *options: object) -> subprocess.CompletedProcess[str]:
        return opd("measure", "--source", pico_pair[0], "--trained", pico_pair[1], "--out", out, *options)

    return run


@pytest.mark.slow
def test_shards_are_merged_in_any_order(measure: Shard, opd: Command, tmp_path: Path) -> None:
    for number in (1, 2, 3):
        done = measure(f"s{number}", "--shard", f"{number}/3")
        assert done.returncode == 0, done.stderr
        assert f"trained: shard {number}/3, " in done.stdout
        assert sorted(p.name for p in (tmp_path / f"s{number}").iterdir()) == [".ledger", "shard.json"]
    parts = [{p.name for p in (tmp_path / f"s{n}" / ".ledger").glob("*.npz")} for n in (1, 2, 3)]
    assert all(parts)
    assert sum(map(len, parts)) == len(set.union(*parts)), "no part is measured twice"

    lacking = opd("merge", "s1", "s3", "-o", "merged")
    assert lacking.returncode == 2
    assert f"{len(parts[1])} parts are in no shard: " in lacking.stderr
    assert "geometry of model." in lacking.stderr
    assert not (tmp_path / "merged" / "summary.json").exists()

    order = ["s1", "s2", "s3"]
    random.shuffle(order)
    done = opd("merge", *order, "-o", "merged")
    assert done.returncode == 0, done.stderr
    assert measure("whole").returncode == 0
    assert written(tmp_path / "merged") == written(tmp_path / "whole")
    again = json.loads(opd("merge", *order, "-o", "merged", "--json").stdout)
    size = json.loads((tmp_path / "whole" / "summary.json").read_text())["tensors"]
    assert again == {"name": "trained", "shards": 3, "tensors": size, "results": "merged"}


def written(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_shards_of_two_measurements_are_not_merged(measure: Shard, opd: Command, tmp_path: Path) -> None:
    measure("a", "--shard", "1/2", "--only", "sparsity")
    measure("b", "--shard", "2/2", "--only", "sparsity", "--view", "stored")
    done = opd("merge", "a", "b", "-o", "merged")
    assert done.returncode == 2
    assert "b: view is 'stored' in this shard and 'bf16' in a; merge the shards of one measurement" in done.stderr

    shutil.copytree(tmp_path / "a", tmp_path / "other")
    marker = tmp_path / "other" / ".ledger" / "identity.json"
    marker.write_text(json.dumps(json.loads(marker.read_text()) | {"trained": "0" * 64}, sort_keys=True))
    done = opd("merge", "a", "other", "-o", "merged")
    assert done.returncode == 2
    assert "of another measurement" in done.stderr


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("--shard", "2"), "--shard 2; wanted I/N"),
        (("--shard", "3/2"), "shard 3/2; wanted i/n with i from 1 to n"),
        (("--shard", "1/2", "--dask", "tcp://localhost:1"), "--shard measures a part on this machine"),
        (("--memory", "much"), "--memory much; wanted a number of bytes"),
        (("--memory", "1M"), "bytes beside"),
    ],
)
def test_what_cannot_be_meant(measure: Shard, options: tuple[str, ...], complaint: str) -> None:
    done = measure("out", *options)
    assert done.returncode == 2
    assert complaint in done.stderr


def test_a_folder_that_is_no_shard(opd: Command, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    done = opd("merge", "folder", "-o", "merged")
    assert "no shard.json; wanted a folder that opd measure --shard wrote" in done.stderr
