"""A run measured on its way is the run itself: same weights, rows of every step, weights dropped, a kill survived."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from opdlib.errors import RegistryError
from opdlib.files import data_root
from opdlib.registry import study as registry
from opdlib.registry.study import Arm, Scale
from opdlib.results.missing import missing_along
from opdlib.results.study import SIMILARITY, StudyResults
from opdlib.study import along
from opdlib.study.along import run_along
from opdlib.study.runner import run_arm

pytestmark = pytest.mark.slow

SHORT = {
    "steps": 3,
    "save_every": 1,
    "batch_size": 16,
    "evaluation_size": 4,
    "probe_every": None,
    "evaluate_every": None,
    "kernels": "native",
}
SMALL = Scale(
    name="pico",
    source="recipe:pico-source",
    arms={"offline": Arm(name="offline", seeds=2, scale="pico", recipes="pico")},
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One arm of two runs over a source, three steps each, of which the first is made: `data`, `study` and `runs`."""
    root = tmp_path_factory.mktemp("trained")
    folder = root / "data" / "recipes"
    folder.mkdir(parents=True)
    for stem in ("source", "teacher", "offline"):
        content = yaml.safe_load((data_root() / "recipes" / f"pico-{stem}.yaml").read_text(encoding="utf8")) | SHORT
        content = {key: value for key, value in content.items() if value is not None}
        (folder / f"pico-{stem}.yaml").write_text(yaml.safe_dump(content), encoding="utf8")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(registry, "data_root", lambda: root / "data")
        run_arm(SMALL, "offline", 0, root / "study", root / "runs" / "train")
    return root


@pytest.fixture
def small(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scale:
    """That study, to go on with."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    monkeypatch.setattr(registry, "data_root", lambda: tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    return SMALL


def test_the_run_itself_step_by_step(small: Scale, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, runs = tmp_path / "study", tmp_path / "runs" / "train"
    assert missing_along(small, out) == [("offline", 0)]
    with pytest.raises(RegistryError, match=r"no arm 'opd'; choose among: offline"):
        missing_along(small, out, arms=["opd"])
    measure, calls = along.measure_last, []

    def killed(source: Any, steps: Any, folder: Path, **options: Any) -> None:
        calls.append(steps[-1][0])
        if len(calls) == 2:
            raise KeyboardInterrupt
        measure(source, steps, folder, **options)

    monkeypatch.setattr(along, "measure_last", killed)
    with pytest.raises(KeyboardInterrupt):
        run_along(small, "offline", 0, out, runs, every=1)
    run_along(small, "offline", 0, out, runs, every=1)
    assert calls == [1, 2, 2, 3], "of what was measured before the kill nothing is measured again"
    folder = runs / "along-pico-offline-s0"
    digests = [
        json.loads((runs / n / "complete.json").read_text())["digests"] for n in ("pico-offline-s0", folder.name)
    ]
    assert digests[0] == digests[1]
    assert not (folder / "steps").exists()
    found = StudyResults("pico", out / "pico")
    assert found.along[["arm", "seed", "view", "step"]].to_numpy().tolist() == [
        ["offline", 0, view, step] for view in ("bf16", "stored") for step in (1, 2, 3)
    ]
    last, rows = found.along[found.along["step"] == 3], found.runs
    shared = [key for key in found.along if key in rows.columns[3:]]
    assert len(shared) == 9
    for key in shared:
        assert last[key].to_list() == pytest.approx(rows[key].to_list(), rel=1e-7), key
    assert last[last["view"] == "stored"][[*SIMILARITY]].to_numpy() == pytest.approx(1)
    assert last[last["view"] == "bf16"][[*SIMILARITY]].notna().to_numpy().tolist() == [[True] * 2 + [False] * 4]
    assert found.along["step_cosine"].notna().tolist() == [False, True, True] * 2
    assert missing_along(small, out) == []


def test_a_run_that_goes_on_before_its_last_weights_compares_the_same_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its last checkpoint is older than the weights that were measured before it was killed."""
    compared: list[list[int]] = []

    def seen(source: Any, steps: Any, folder: Path) -> None:
        compared.append([number for number, _ in steps][-3:])
        if len(compared) == 4:
            raise KeyboardInterrupt
        (folder / str(compared[-1][-1])).mkdir(parents=True)

    monkeypatch.setattr(along, "open_checkpoint", str)
    monkeypatch.setattr(along, "measure_last", seen)
    monkeypatch.setattr(along, "is_measured", lambda folder, step: (folder / str(step)).is_dir())

    def go_on() -> None:
        for step in range(1, 6):
            place = tmp_path / "steps" / str(step)
            place.mkdir(parents=True, exist_ok=True)
            along._measure(None, place)  # type: ignore[arg-type]  # it is handed on

    with pytest.raises(KeyboardInterrupt):
        go_on()
    go_on()
    assert compared == [[1], [1, 2], [1, 2, 3], [2, 3, 4], [2, 3, 4], [3, 4, 5]]


def test_another_training_is_refused(small: Scale, tmp_path: Path) -> None:
    out, runs = tmp_path / "study", tmp_path / "runs" / "train"
    table = out / "pico" / "runs.csv"
    digest = json.loads((runs / "pico-offline-s0" / "complete.json").read_text())["digests"]["fp32"]
    table.write_text(table.read_text().replace(digest, "0" * 64))
    with pytest.raises(RegistryError, match=rf"ended at float32 weights {digest[:12]}, the run in .* at 000000000000"):
        run_along(small, "offline", 0, out, runs, every=2)
    assert not (out / "pico" / "along.csv").exists()
