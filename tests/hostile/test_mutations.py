"""Files that are changed at random: whoever reads them raises an error of ours, or none."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from opdlib.cli.main import main
from tests.hostile import made
from tests.hostile.targets import CORPUS, Targets

NAMES = ("safetensors", "index", "config", "pickle", "patch", "recipe", "gguf", "summary", "tensors", "steps")

TOKENS = (
    *(
        b"[",
        b"{",
        b"]",
        b"}",
        b'"',
        b",",
        b":",
        b"\0",
        b"\r",
        b"\n",
        b"-",
        b"null",
        b"NaN",
        b"1e999",
        b"true",
        b"*a",
        b"&a ",
    ),
    *(b"!!float x", b"2020-13-45", b"9" * 30, b"1" * 5000, b"[" * 3000, b"\xff" * 8, bytes(8), b"\\ud800", b"<<: "),
)
CHANGE = st.tuples(
    st.integers(0, 1 << 16), st.integers(0, 64), st.one_of(st.binary(max_size=8), st.sampled_from(TOKENS))
)
"""Where, how many bytes go, and what comes instead."""


def mutated(content: bytes, changes: list[tuple[int, int, bytes]], keep: int) -> bytes:
    for at, length, new in changes:
        place = at % (len(content) + 1)
        content = content[:place] + new + content[place + length :]
    return content[: max(0, len(content) - keep)]


@pytest.fixture(scope="module")
def targets(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Targets:
    torch.save({"a": torch.ones(3), "b": torch.zeros(2, 2)}, place / "x.pt")
    spec = ("--source", str(place / "S"), "--trained", str(place / "T"), "--only", "sparsity", "--nulls", "none")
    assert main(["measure", *spec, "--out", str(place / "results")]) == 0
    return Targets(place, tmp_path_factory.mktemp("mutated"))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_only_errors_of_ours(targets: Targets, name: str) -> None:
    assert set(NAMES) == set(targets.all)
    good = targets.all[name][2]

    @settings(max_examples=120, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(CHANGE, min_size=1, max_size=4), st.sampled_from((0, 0, 0, 1, 40)))
    def tried(changes: list[tuple[int, int, bytes]], keep: int) -> None:
        targets.run(name, mutated(good, changes, keep))

    tried()


def test_a_good_file_is_read(targets: Targets) -> None:
    for name, (read, file, good) in targets.all.items():
        if name != "index":  # which lists no file that is there
            (targets.here / file).write_bytes(good)
            read(targets.here / file)


FOUND = {
    f"{name}-{find}": (name, text) for name, own in json.loads(CORPUS.read_text()).items() for find, text in own.items()
}


@pytest.mark.parametrize("find", FOUND)
def test_what_was_found_once_stays_mended(targets: Targets, find: str) -> None:
    name, text = FOUND[find]
    targets.run(name, text.encode("latin1"))


def test_mutations_change_files() -> None:
    assert mutated(b"abc", [(1, 1, b"xy")], 1) == b"axy"
    assert made.DEEP.startswith("[[")
