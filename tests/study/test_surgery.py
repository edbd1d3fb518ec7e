"""Taking updates apart: every row of the plan, once, with controls of the stated size and energy."""

import shlex
from pathlib import Path

import pandas as pd
import pytest

from opdlib.checkpoints import open_checkpoint
from opdlib.errors import CheckpointError, RegistryError
from opdlib.results.study import ENERGY, PART, REST, SHORT, SIZE, SURGERY, StudyResults
from opdlib.stats import wilson
from opdlib.study import surgery
from opdlib.study.surgery import PLAN, write_surgery
from tests.conftest import Command
from tests.study.scored import ASKED, PICO, answered, write_runs

pytestmark = pytest.mark.slow

SCORED: list[Path] = []


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_runs(tmp_path_factory.mktemp("surgery") / "runs" / "train", [("opd", 0), ("opd", 4)])


@pytest.fixture(scope="module")
def table(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """All rows; the first try was killed while it made the fourth."""
    out = tmp_path_factory.mktemp("out")

    def killed(spec: Path, *asked: object) -> object:
        if len(SCORED) == 3 and not SCORED.append(spec):
            raise KeyboardInterrupt
        SCORED.append(spec)
        return answered(spec, *asked)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(surgery, "answers", killed)
        with pytest.raises(KeyboardInterrupt):
            [*write_surgery(PICO, out, folder)]
        kept = StudyResults("pico", out / "pico").surgery
        lines = [*write_surgery(PICO, out, folder)]
        assert [*write_surgery(PICO, out, folder)] == [], "what is in the table is done"
    whole = StudyResults("pico", out / "pico").surgery
    assert len(kept) == 3
    assert len(lines) == len(whole) - 3
    assert len(SCORED) == len(whole) + 1
    return whole


def test_every_run_has_every_row_of_the_plan(table: pd.DataFrame) -> None:
    assert tuple(table) == SURGERY
    assert set(zip(table["arm"], table["seed"], strict=True)) == {("opd", 0)}, "seed 4 is not taken apart"
    found = list(zip(table["part"], table["kind"], strict=True))
    thirds = [("layers:0-0", PART), ("layers:1-1", PART)]  # of two layers, the last third has one and the middle none
    assert [row for row in found if not row[0].startswith("layers")] == [row for row in PLAN if row[0] != "layers"]
    assert [row for row in found if row[0].startswith("layers")] == thirds
    assert not any(place.exists() for place in SCORED), "edited checkpoints are dropped"


def test_numbers_of_a_row(table: pd.DataFrame, folder: Path) -> None:
    own = table.set_index(["part", "kind"])
    assert own.loc[("scale:1", PART), ["energy", "kept"]].tolist() == pytest.approx([1, 1], abs=1e-3)
    assert own.loc[("none", PART), ["energy", "rel_norm", "kept"]].tolist() == [0, 0, 0]
    assert own.loc[("none", PART), "correct"] == (own["n"].iloc[0] + 1) // 2
    assert own.loc[("largest:0.05", PART), "kept"] == pytest.approx(0.05, abs=0.01)
    assert (own["accuracy"] == own["correct"] / own["n"]).all()
    low, high = wilson(int(own["correct"].iloc[0]), int(own["n"].iloc[0]))
    assert own.iloc[0][["low", "high"]].tolist() == [low, high]
    assert set(own["digest.fp32"]) == {open_checkpoint(folder / "pico-opd-s0" / "fp32").digest()}


def test_controls_have_the_size_and_the_energy_of_the_part(table: pd.DataFrame) -> None:
    own = table.set_index(["part", "kind"])
    for part, kind in PLAN:
        whole = own.loc[(part, PART)] if part != "layers" else None
        if kind == SIZE:
            assert own.loc[(part, SIZE), "kept"] == pytest.approx(whole["kept"], abs=0.01), part
        if kind == ENERGY:
            assert own.loc[(part, ENERGY), "energy"] == pytest.approx(whole["energy"], rel=1e-4), part
    short, rest = (own.loc[("singular:16", kind)] for kind in (SHORT, REST))
    assert short["energy"] == pytest.approx(rest["energy"], rel=1e-3)
    assert short["rule"].startswith("scale:")
    assert own.loc[("largest:0.05", SIZE), "rule"] == "random:0.05"
    assert own.loc[("singular:16", ENERGY), "rule"].startswith("scale:")


def test_a_command_makes_what_was_scored(opd: Command, table: pd.DataFrame, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "runs").symlink_to(folder.parent)
    for place in ("visible", "largest:0.05"):
        row = table[table["part"] == place].iloc[-1]
        words = shlex.split(row["command"])
        assert (words[0], words[4]) == ("opd", "edited")
        words[4] = place
        assert opd(*words[1:]).returncode == 0
        again = answered(tmp_path / place, *ASKED)
        assert sum(answer.correct for answer in again) == row["correct"]


def test_rows_of_other_weights_are_refused(
    table: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs, out = write_runs(tmp_path / "runs", [("opd", 1), ("opd", 0)]), tmp_path / "out" / "pico"
    out.mkdir(parents=True)
    table.to_csv(out / "surgery.csv", index=False)
    monkeypatch.setattr(surgery, "answers", answered)
    with pytest.raises(RegistryError, match=r"pico-opd-s0: digest.fp32 is \w+ in the table and \w+ in"):
        [*write_surgery(PICO, out.parent, runs)]
    assert next(write_surgery(PICO, out.parent, runs, seeds=[1])).startswith("pico-opd-s1 scale:1 part: ")
    with pytest.raises(CheckpointError, match="none of the runs that are taken apart is in"):
        [*write_surgery(PICO, out.parent, runs, arms=["offline"])]
