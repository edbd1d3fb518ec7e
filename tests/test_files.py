"""Files and folders appear whole or not at all, and one process at a time writes them."""

import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from opdlib.errors import OutputError
from opdlib.files import build_once, locked, new_folder, write_file, write_together
from tests.killed import every_kill


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_what_a_killed_process_left_is_taken_over(tmp_path: Path) -> None:
    for left in (".a.json.part", ".a.json.lock", ".b.lock"):
        (tmp_path / left).write_text("half")
    (tmp_path / ".b.part").mkdir()
    (tmp_path / ".b.part" / "half").touch()
    write_file(tmp_path / "a.json", "whole")
    with new_folder(tmp_path / "b") as folder:
        (folder / "whole").touch()
    assert names(tmp_path) == ["a.json", "b", "b/whole"]


def test_a_folder_is_replaced_when_the_new_one_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "a"
    for content in ("old", "new"):
        with new_folder(target, replace=True) as folder:
            (folder / content).touch()

    def interrupted() -> None:
        with new_folder(target, replace=True) as folder:
            (folder / "half").touch()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert names(tmp_path) == ["a", "a/new"]


def test_files_that_belong_together(tmp_path: Path) -> None:
    """They replace what they are said to, keep what else is there, and fail without a trace."""
    with locked(tmp_path / "a") as place:
        write_together(place, {"one.csv": "1", "two.csv": "1", "last.json": "1"})
        (place / "below").mkdir()
        (place / "below" / "mine").write_text("mine")
        with pytest.raises(OutputError, match=r"a: cannot be written .* and was not"):
            write_together(place, {"one.csv": "2", "no/such/folder": "2", "last.json": "2"})
        assert {path.read_text() for path in place.glob("*.*")} == {"1"}
    with locked(tmp_path / "a") as place:
        write_together(place, {"one.csv": "3", "last.json": "3"}, instead_of=("two.csv", "last.json"))
    assert names(tmp_path) == ["a", "a/below", "a/below/mine", "a/last.json", "a/one.csv"]
    assert (tmp_path / "a" / "one.csv").read_text() == "3"


def test_what_was_not_written_leaves_no_folder(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    for refused in (tmp_path / "a" / "b", tmp_path / "mine"):
        with locked(refused / "one"), locked(refused / "two"):
            pass
    write_file(tmp_path / "c" / "written", "whole")
    assert names(tmp_path) == ["c", "c/written", "mine"]


def test_a_folder_that_goes_while_it_is_locked_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process that wrote nothing takes away what it made, between our mkdir and our lock."""
    known, gone = os.open, []

    def beside_others(path: Path, *arguments: int) -> int:
        if not gone:
            gone.append(path.parent.rmdir())
        return known(path, *arguments)

    monkeypatch.setattr(os, "open", beside_others)
    write_file(tmp_path / "a" / "b", "whole")
    assert gone
    assert names(tmp_path) == ["a", "a/b"]


def test_where_there_can_be_no_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written"), locked(Path("/proc/none/out")):
        pass


def test_who_has_the_lock_is_named(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with locked(target, "pair mine"):
        others = (lambda: locked(tmp_path / "x" / ".." / "out"), lambda: new_folder(target))
        (tmp_path / "x").mkdir()
        for other in others:
            with (
                pytest.raises(OutputError, match=rf"process {os.getpid()} on .* since 20.* \(pair mine\); wait"),
                other(),
            ):
                pass
    with new_folder(target) as folder:
        (folder / "whole").touch()
    (tmp_path / "x").rmdir()
    assert names(tmp_path) == ["out", "out/whole"]


def test_the_faster_of_two_builds_and_the_other_takes_it(tmp_path: Path) -> None:
    target, begun, built = tmp_path / "cache", threading.Event(), []

    def slowly(folder: Path) -> None:
        begun.set()
        time.sleep(0.1)
        (folder / "whole").touch()
        built.append("slowly")

    first = threading.Thread(target=build_once, args=(target, slowly))
    first.start()
    begun.wait()
    build_once(target, lambda folder: built.append("twice"))
    first.join()
    assert built == ["slowly"]
    assert names(tmp_path) == ["cache", "cache/whole"]


def test_a_place_that_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for write in (lambda path: write_file(path, ""), lambda path: build_once(path, lambda _: None)):
        with pytest.raises(OutputError, match="cannot be written"):
            write(tmp_path / "file" / "below")
    assert names(tmp_path) == ["file"]


def test_a_device_is_not_replaced_and_no_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "file").write_text("precious")
    os.mkfifo(tmp_path / "pipe")
    for write in (lambda at: write_file(at, "x"), lambda at: new_folder(at, replace=True).__enter__()):
        with pytest.raises(OutputError, match="is a pipe or a device"):
            write(tmp_path / "pipe")
        for kind in ("lock", "part", "replaced"):
            (tmp_path / f".a.{kind}").symlink_to(tmp_path / "theirs" / ("file" if kind == "lock" else ""))
            with pytest.raises(OutputError, match=rf"\.a\.{kind}: is in the way, a link"):
                write(tmp_path / "a")
            (tmp_path / f".a.{kind}").unlink()
    assert (tmp_path / "pipe").is_fifo()
    assert names(tmp_path) == ["pipe", "theirs", "theirs/file"]
    assert (tmp_path / "theirs" / "file").read_text() == "precious"
    with pytest.raises(OutputError, match="is no name of a file"):
        write_file(Path("a\0b"), "x")


def test_the_folder_that_somebody_stands_in_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OutputError, match="choose a folder in it"), new_folder(Path()):
        pass
    assert names(tmp_path) == []


@pytest.mark.slow
def test_killed_at_any_moment_the_old_or_the_new_is_whole_and_the_next_one_ends_it(tmp_path: Path) -> None:
    def one_file(to: Path, content: str) -> None:
        write_file(to / "a", content)

    def folder(to: Path, content: str) -> None:
        with new_folder(to / "a", replace=True) as new:
            (new / "one").write_text(content)

    def together(to: Path, content: str) -> None:
        with locked(to / "a") as place:
            write_together(place, {"one": content, "two": content}, instead_of=("three",))

    def state(to: Path) -> dict[str, str]:
        return {str(path.relative_to(to)): path.read_text() for path in sorted(to.rglob("*")) if path.is_file()}

    for number, write in enumerate((one_file, folder, together)):
        root = tmp_path / str(number)

        def begin(root: Path = root, write: Callable[[Path, str], None] = write) -> None:
            shutil.rmtree(root, ignore_errors=True)
            root.mkdir()
            write(root, "old")
            if write is together:
                (root / "a" / "three").touch()
                (root / "a" / "mine").write_text("mine")

        begin()
        old = state(root)
        write(root, "new")
        new = state(root)
        begin()
        operations = 0
        for operations in every_kill(lambda root=root, write=write: write(root, "new"), root):  # noqa: B007
            if (root / "a").exists() and write is not folder:
                seen = {name: text for name, text in state(root).items() if not name.startswith(".")}
                assert {**seen, "a/mine": "", "a/three": ""} in (
                    {**whole, "a/mine": "", "a/three": ""} for whole in (old, new)
                )
            write(root, "new")
            assert state(root) == new
            begin()
        assert operations > 4
