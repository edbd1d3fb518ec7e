"""`opd train` refuses what it can before torch is loaded, which takes seconds, and before anything is written."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from opdlib.cli.main import main
from tests.conftest import alone
from tests.registry.recipe_files import recipe_content

GOOD = recipe_content("opd", "org/student", "org/teacher")
MASK = {"kind": "delta", "of": "recipe:none", "threshold": 0.0}
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "value": ({"steps": 0}, "steps is 0"),
    "key": ({"stepz": 1}, "key 'stepz' = 1 is unknown"),
    "task": ({"task": "chess"}, "task is 'chess'"),
    "file": ({"task": "jsonl:nowhere.jsonl"}, "nowhere.jsonl: missing"),
    "size": ({"evaluation_size": 10**6}, "choose between 1 and"),
    "parent": ({"teacher": "recipe:none"}, "there is no none.yaml beside it"),
    "mask": ({"mask": MASK}, "there is no none.yaml beside it"),
    "folder": ({"student": "no/such/folder"}, "student is 'no/such/folder': no such file or folder"),
    "fresh": ({"student": "fresh:pico"}, "only objective sft starts from random weights"),
    "rollout": ({"rollout": "vllm"}, "'vllm', which is not installed; run: pip install vllm"),
}
"""Name -> what makes a recipe bad, and what is said of it."""

PROGRAM = """
import json, sys
from opdlib.cli.main import main
codes = [main(["train", *words]) for words in json.loads(sys.argv[1])]
print(json.dumps([codes, [name for name in ("torch", "transformers", "trl") if name in sys.modules]]))
"""


@pytest.mark.slow
def test_what_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    for name, (changes, _) in (REFUSED | {"good": ({}, "")}).items():
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(GOOD | changes), encoding="utf8")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    before = sorted(tmp_path.rglob("*"))
    asked = {f"{name}.yaml": said for name, (_, said) in REFUSED.items()} | {"pico-odp": "did you mean pico-opd"}
    words = [*([name] for name in asked), ["good.yaml", "--out", "full"], ["good.yaml", "--max-steps", "0"]]
    said = [*asked.values(), "full: exists and is no run folder", "command line: steps is 0"]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(words)],
        cwd=tmp_path,
        env=os.environ | alone(tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )
    assert json.loads(done.stdout) == [[2] * len(words), []], done.stderr
    for line, wanted in zip(done.stderr.splitlines(), said, strict=True):
        assert line.startswith("opd: ")
        assert wanted in line
    assert sorted(tmp_path.rglob("*")) == before, "nothing is written"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--collect", "--overlaps"], "--collect with --overlaps: a command does one of them"),
        (["--score", "--list"], "--score with --list: a command does one of them"),
        (["--surgery", "--parallel", "2"], "--surgery with --parallel: a command does one of them"),
        (["--overlaps", "--arms", "opd"], "--overlaps takes no --arms and no --seeds"),
        (["--repeat", "pico-opd-s0", "--seeds", "0"], "--repeat takes no --arms and no --seeds"),
        (["--arms", "opd", "--seeds", "99"], "scale pico: no run with seed 99; choose among: 0, 1, 2, 3, 4"),
        (["--collect", "--arms", "nosuch"], "scale pico: no arm 'nosuch'; choose among: opd, "),
        (["--score", "--seeds", "99"], "scale pico: no run with seed 99"),
        (["--surgery", "--arms", "nosuch"], "scale pico: no arm 'nosuch'"),
        (["--list", "--along", "--arms", "nosuch"], "scale pico: no arm 'nosuch'"),
    ],
)
def test_a_study_refuses_what_it_would_not_heed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert main(["study", "pico", "--out", str(tmp_path / "out"), *words]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
