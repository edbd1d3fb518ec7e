"""Files and folders appear whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from opdlib.errors import OutputError
from opdlib.files import build_once, new_folder, write_file, write_together


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_what_a_killed_process_left_is_taken_over(tmp_path: Path) -> None:
    (tmp_path / ".a.json.part").write_text("half")
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
    write_together(tmp_path, {"a.csv": "1", "last.json": "1"}, last="last.json")
    with pytest.raises(OutputError, match=r"last\.json: cannot be written"):
        write_together(tmp_path, {"a.csv": "2", "no/such/folder": "2", "last.json": "2"}, last="last.json")
    assert {name: (tmp_path / name).read_text() for name in names(tmp_path)} == {"a.csv": "1", "last.json": "1"}


def test_the_faster_of_two_processes_builds(tmp_path: Path) -> None:
    target = tmp_path / "cache"

    def build(folder: Path) -> None:
        (folder / "slow").touch()
        if not target.is_dir():
            build_once(target, lambda other: (other / "fast").touch())

    assert build_once(target, build) == target
    assert names(tmp_path) == ["cache", "cache/fast"]


def test_a_place_that_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for write in (lambda path: write_file(path, ""), lambda path: build_once(path, lambda _: None)):
        with pytest.raises(OutputError, match="cannot be written"):
            write(tmp_path / "file" / "below")
    assert names(tmp_path) == ["file"]
