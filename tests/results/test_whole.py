"""Results are those of one measurement, whole, or not there: whoever writes at the same time, and whatever happens."""

import os
import random
import shutil
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch

import opdlib.checkpoints.local
import opdlib.measurement.sparsity
import opdlib.results.measure
from opdlib.checkpoints import open_checkpoint
from opdlib.errors import CheckpointError, OutputError, RegistryError
from opdlib.files import locked
from opdlib.measurement.ledger import Ledger
from opdlib.results.layout import check, is_whole, read_provenance
from opdlib.results.measure import measure_into, settle
from opdlib.results.open import open_results
from tests.conftest import moved, pico_weights, write_checkpoint
from tests.killed import every_kill


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A source, two checkpoints over it, and the results of both."""
    root = tmp_path_factory.mktemp("whole")
    source = pico_weights(layers=1)
    write_checkpoint(root / "source", source, config={"tie_word_embeddings": True})
    for seed, name in enumerate(("one", "two"), start=1):
        write_checkpoint(root / name, moved(source, scale=seed * 1e-3, seed=seed), config={"tie_word_embeddings": True})
        measure(root, name, root / f"results-{name}")
    return root


def measure(root: Path, name: str, out: Path, **options: object) -> None:
    sides = (open_checkpoint(str(root / side)) for side in ("source", name))
    measure_into(out, *sides, name=name, metrics=("sparsity",), workers=1, **options)


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def in_processes(*work: Callable[[], None]) -> list[int]:
    """Run each in a fork of this process, all at once: 0, 2 for an OutputError, 1 for anything else."""
    children = []
    for one in work:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of forks where there are threads: they do nothing
            child = os.fork()
        if not child:
            torch.set_num_threads(1)
            code = 1
            try:
                one()
                code = 0
            except OutputError as error:
                code = 2 if "being written by" in str(error) or "another measurement" in str(error) else 1
            finally:
                os._exit(code)
        children.append(child)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


@pytest.mark.slow
def test_two_processes_never_mix(folders: Path, tmp_path: Path) -> None:
    draw = random.Random(0)
    wanted = {name: content(folders / f"results-{name}") for name in ("one", "two")}
    refused = 0
    for number in range(20):
        out, pair = tmp_path / str(number), ("one", draw.choice(("one", "two")))
        waits = [draw.random() * 0.01 for _ in pair]

        def late(name: str, wait: float, out: Path = out) -> None:
            time.sleep(wait)
            measure(folders, name, out)

        codes = in_processes(*(partial(late, *one) for one in zip(pair, waits, strict=True)))
        assert set(codes) <= {0, 2}, codes
        assert 0 in codes
        refused += codes.count(2)
        assert content(out) in [wanted[name] for name, code in zip(pair, codes, strict=True) if code == 0]
    assert refused
    assert not list(tmp_path.glob(".*"))


@pytest.mark.slow
def test_killed_at_any_moment_the_next_run_ends_in_the_same_bytes(folders: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    wanted = content(folders / "results-one") | {"below/mine": b"mine"}

    def begin() -> None:
        for path in tmp_path.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        shutil.copytree(folders / "results-one", out)
        (out / "nulls.csv").touch()
        (out / "below").mkdir()
        (out / "below" / "mine").write_text("mine")

    begin()
    operations = 0
    for operations in every_kill(lambda: measure(folders, "one", out), tmp_path):  # noqa: B007
        assert is_whole(out) or not out.exists()
        measure(folders, "one", out)
        assert content(out) == wanted
        assert [path.name for path in tmp_path.iterdir()] == ["out"]
        begin()
    assert operations > 20


@pytest.mark.slow
def test_a_checkpoint_that_changes_is_noticed(folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, files_of = opdlib.checkpoints.local.LocalCheckpoint.read, opdlib.results.measure.files_of
    draw, reads, change = random.Random(0), [0], [lambda: None]

    def counted(self: object, name: str) -> torch.Tensor:
        reads[0] -= 1
        if reads[0] == 0:
            change[0]()
        return read(self, name)  # type: ignore[arg-type]

    def at_the_end(*arguments: object) -> object:
        if reads[0] > 0:
            change[0]()
        return files_of(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(opdlib.checkpoints.local.LocalCheckpoint, "read", counted)
    monkeypatch.setattr(opdlib.results.measure, "files_of", at_the_end)
    tensors = len(open_checkpoint(str(folders / "source")).tensors)

    def in_place(file: Path) -> None:
        with file.open("r+b") as stream:
            stream.seek(-100, os.SEEK_END)
            stream.write(b"\x12")

    def replaced(file: Path) -> None:
        shutil.copy2(file, file.with_suffix(".new"))
        file.with_suffix(".new").replace(file)

    changes = (in_place, replaced, lambda file: os.truncate(file, 500), lambda file: file.unlink())
    for number in range(20):
        root = tmp_path / str(number)
        for side in ("source", "one"):
            shutil.copytree(folders / side, root / side)
            os.utime(root / side / "model.safetensors", (1, 1))
        file = root / draw.choice(("source", "one")) / "model.safetensors"
        change[0] = lambda file=file, way=changes[number % 4]: way(file)  # type: ignore[misc]
        reads[0] = draw.randint(1, 5 * tensors)
        with pytest.raises(CheckpointError, match=r"was changed while it was read|cannot be read"):
            measure(root, "one", root / "out")
        assert not (root / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize("file", ["summary.json", "provenance.json", "tensors.csv", "curve.csv"])
def test_what_is_torn_is_refused_by_name_and_measured_again(folders: Path, tmp_path: Path, file: str) -> None:
    whole = (folders / "results-one" / file).read_bytes()
    for number, torn in enumerate((whole[: len(whole) // 2], b"", whole[:-9] + b"#" + whole[-8:], b"[" * 9999, None)):
        out = tmp_path / str(number)
        shutil.copytree(folders / "results-one", out)
        (out / file).unlink() if torn is None else (out / file).write_bytes(torn)
        with pytest.raises(RegistryError, match=file):
            open_results(out)
        assert not is_whole(out)
        measure(folders, "one", out, once=True)
        assert content(out) == content(folders / "results-one")


def test_ends_of_lines_do_not_matter(folders: Path, tmp_path: Path) -> None:
    shutil.copytree(folders / "results-one", tmp_path / "out")
    for path in (tmp_path / "out").iterdir():
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert check(tmp_path / "out") == read_provenance(folders / "results-one")
    assert open_results(tmp_path / "out").tensors.equals(open_results(folders / "results-one").tensors)


def test_a_part_of_the_ledger_counts_only_if_it_checks(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger", {"pair": 1})
    ledger.store("a", [1], {})
    whole = (tmp_path / "ledger" / "a.npz").read_bytes()
    assert ledger.load("a") == ([1], {})
    for damaged in (whole[:-1], b"", whole[:50] + b"x" + whole[51:], whole + b"x"):
        (tmp_path / "ledger" / "a.npz").write_bytes(damaged)
        assert ledger.load("a") is None
        assert "a" not in ledger
    (tmp_path / "ledger" / "b.npz").write_bytes(whole)
    assert ledger.load("b") is None, "a part of another name"
    other = Ledger(tmp_path / "ledger", {"pair": 2})
    assert not (tmp_path / "ledger").exists(), "there is nothing in it yet"
    other.store("c", [3], {})
    (tmp_path / "ledger" / "a.npz").write_bytes(whole)
    assert other.load("a") is None, "a part of another measurement"
    (tmp_path / "ledger" / "identity.json").write_bytes(b"\xff")
    assert Ledger(tmp_path / "ledger", {"pair": 2}).load("a") is None


def test_a_ledger_is_no_link_and_has_no_pipe_in_it(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "a.npz").write_text("precious")
    (tmp_path / "link").symlink_to(tmp_path / "theirs")
    (tmp_path / "piped").mkdir()
    os.mkfifo(tmp_path / "piped" / "identity.json")
    for place in ("link", "piped"):
        with pytest.raises(OutputError, match="is in the way, no measurement wrote it"):
            Ledger(tmp_path / place, {"pair": 1})
    assert (tmp_path / "theirs" / "a.npz").read_text() == "precious"


def test_a_folder_that_is_no_ledger_is_left_alone(folders: Path, tmp_path: Path) -> None:
    (tmp_path / "out" / ".ledger").mkdir(parents=True)
    (tmp_path / "out" / ".ledger" / "accounts").write_text("mine")
    measure(folders, "one", tmp_path / "out")
    assert (tmp_path / "out" / ".ledger" / "accounts").read_text() == "mine"
    (tmp_path / ".next.ledger").mkdir()
    (tmp_path / ".next.ledger" / "accounts").write_text("mine")
    with pytest.raises(OutputError, match="accounts: is in the way"):
        measure(folders, "one", tmp_path / "next")
    assert (tmp_path / ".next.ledger" / "accounts").read_text() == "mine"


def test_what_a_killed_process_left_beside_whole_results_goes(folders: Path, tmp_path: Path) -> None:
    """A kill after one of several results was written: whoever finds that one whole does not measure it again."""
    out = tmp_path / "out"
    shutil.copytree(folders / "results-one", out)
    Ledger(tmp_path / ".out.ledger", "of one").store("part", [], {})
    (tmp_path / ".out.lock").write_text("process 1 of a machine that is off")
    settle(out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]
    assert content(out) == content(folders / "results-one")


def test_what_no_measurement_wrote_and_what_another_one_holds_stays(folders: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(folders / "results-one", out)
    mine = tmp_path / ".out.ledger" / "diary.txt"
    mine.parent.mkdir()
    mine.write_text("mine")
    settle(out)
    assert mine.read_text() == "mine"
    with locked(out, "somebody's"):
        settle(out)
        assert (tmp_path / ".out.lock").exists()
