"""Several runs at once, with a stub in place of the training: in order, never too many, each with its log."""

import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from opdlib.registry import study as registry
from opdlib.registry.study import Arm, Scale
from opdlib.study import parallel
from opdlib.study.parallel import run_parallel
from opdlib.train.parents import Run

STUB = """
import json, pathlib, sys, time
folder, log, broken = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3:]
began = time.monotonic()
print("this is", folder.name)
if folder.name in broken:
    raise SystemExit("out of memory")
folder.mkdir(parents=True, exist_ok=True)
time.sleep(0.1)
(folder / "complete.json").write_text("{}")
with log.open("a") as stream:
    stream.write(json.dumps([folder.name, began, time.monotonic()]) + "\\n")
"""
ARMS = {"opd": 2, "mask-own": 1, "rlvr": 1}
PRIORITIES = {"opd": 1, "rlvr": 2, "mask-own": 3}


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scale:
    """Arms over a source and a teacher that are trained first; mask-own stands on opd."""
    folder = tmp_path / "data" / "recipes"
    folder.mkdir(parents=True)
    own = Path(registry.data_root()) / "recipes"
    for stem in ("source", "teacher", *ARMS):
        content = yaml.safe_load((own / f"pico-{stem}.yaml").read_text(encoding="utf8")) | {"steps": 2}
        (folder / f"pico-{stem}.yaml").write_text(yaml.safe_dump(content), encoding="utf8")
    monkeypatch.setattr(registry, "data_root", lambda: tmp_path / "data")
    monkeypatch.setattr(parallel, "POLL", 0.01)
    place = {"scale": "pico", "recipes": "pico"}
    arms = {name: Arm(name=name, seeds=seeds, priority=PRIORITIES[name], **place) for name, seeds in ARMS.items()}
    return Scale(name="pico", source="recipe:pico-source", arms=arms)


def made(
    scale: Scale, folder: Path, at_once: int, broken: Sequence[str] = ()
) -> tuple[dict[str, parallel.Ended], dict[str, tuple[float, float]]]:
    """What is said of every run, and when each that succeeded began and ended."""
    log = folder / "times.jsonl"

    def command(run: Run) -> list[str]:
        return [sys.executable, "-S", "-c", STUB, str(run.folder), str(log), *broken]

    chosen = [(arm.name, seed) for arm, seed in scale.planned]
    ended = {
        e.name: e for e in run_parallel(scale, chosen, folder / "study", at_once, folder / "runs", command=command)
    }
    lines = map(json.loads, log.read_text().splitlines()) if log.exists() else []
    return ended, {name: (began, over) for name, began, over in lines}


def test_parents_come_first_and_never_more_than_asked_for(small: Scale, tmp_path: Path) -> None:
    ended, times = made(small, tmp_path, at_once=2)
    runs = {"pico-opd-s0", "pico-opd-s1", "pico-rlvr-s0", "pico-mask-own-s0"}
    assert set(ended) == set(times) == {"pico-source-s0", "pico-teacher-s0"} | runs
    assert not any(e.failed for e in ended.values())
    for child, parent in (("teacher", "source"), ("rlvr", "source"), ("opd", "teacher"), ("mask-own", "opd")):
        assert times[f"pico-{child}-s0"][0] > times[f"pico-{parent}-s0"][1]
    at_once = [sum(began <= moment < over for began, over in times.values()) for moment, _ in times.values()]
    assert max(at_once) == 2
    assert "this is pico-opd-s1" in ended["pico-opd-s1"].log.read_text()
    assert ended["pico-opd-s1"].log == tmp_path / "runs" / "pico-opd-s1.log"


def test_what_stands_on_a_failed_run_does_not_begin(small: Scale, tmp_path: Path) -> None:
    ended, times = made(small, tmp_path, at_once=3, broken=["pico-opd-s0"])
    assert {name for name, e in ended.items() if e.failed} == {"pico-opd-s0", "pico-mask-own-s0"}
    assert "out of memory" in ended["pico-mask-own-s0"].log.read_text()
    assert {"pico-rlvr-s0", "pico-opd-s1"} <= set(times)
    again, after = made(small, tmp_path, at_once=3)
    assert "pico-source-s0" not in again
    assert not any(e.failed for e in again.values())
    assert {"pico-opd-s0", "pico-mask-own-s0"} <= set(after)


def test_processes_end_when_it_is_left(small: Scale, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The teacher would take a minute, what stands on the source alone takes no time."""
    started, start = {}, parallel._start

    def command(run: Run) -> list[str]:
        stub = STUB.replace("0.1", "60 if 'teacher' in folder.name else 0")
        return [sys.executable, "-S", "-c", stub, str(run.folder), str(tmp_path / "log")]

    def kept(run: Run, *others: Any) -> subprocess.Popen[bytes]:
        started[run.folder.name] = start(run, *others)
        return started[run.folder.name]

    monkeypatch.setattr(parallel, "_start", kept)
    chosen = [("opd", 0), ("rlvr", 0)]
    going = run_parallel(small, chosen, tmp_path / "study", 2, tmp_path / "runs", command=command)
    try:
        assert [next(going).name for _ in range(2)] == ["pico-source-s0", "pico-rlvr-s0"]
        assert started["pico-teacher-s0"].poll() is None
        going.close()
        assert started["pico-teacher-s0"].poll() == -signal.SIGTERM
    finally:
        for process in started.values():
            process.kill()
