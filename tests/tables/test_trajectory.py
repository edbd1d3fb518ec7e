"""Tables of runs that were measured step by step."""

from pathlib import Path

import pandas as pd

from opdlib.tables import trajectory
from tests.tables.trajectory_rows import STEPS, write_along


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    assert trajectory.missing("smollm2", tmp_path) == ["opd", "rlvr", "offline"]
    assert trajectory.missing("smollm2", write_along(tmp_path)) == ["rlvr"]
    assert trajectory.ends(trajectory.steps("smollm2", tmp_path / "none")).loc["-"].to_list() == ["no runs yet"]


def test_halfway_is_the_last_step_in_the_first_half(tmp_path: Path) -> None:
    steps = trajectory.steps("smollm2", write_along(tmp_path))
    assert len(steps) == 2 * 2 * len(STEPS)
    assert list(steps["regime"].unique()) == ["OPD", "offline distillation"]
    half = trajectory.halfway(steps)
    assert half[["arm", "view", "step"]].to_numpy().tolist() == [
        [arm, view, 20] for arm in ("opd", "offline") for view in ("bf16", "stored")
    ]


def test_they_are_written_from_first_to_last(tmp_path: Path) -> None:
    steps = trajectory.steps("smollm2", write_along(tmp_path))
    table = trajectory.ends(steps)
    row = table[table["view"] == "bf16"].loc["offline, seed 0"]
    assert row["updates"] == "10 to 50"
    assert row["relative norm"] == "0.0400% to 0.20%"
    assert row["unchanged"] == "92.00% to 60.00%"
    assert row["stable rank"] == "18.00 to 10.00"
    assert row["cosine"] == "0.30"
    shown = trajectory.locked(steps)
    assert len(shown) == 2 * 2 * 2
    assert shown.iloc[0].to_list() == ["bf16", "20", "left", "70.00%", "-", "-"]
    assert shown.iloc[2].to_list() == ["stored", "20", "left", "70.00%", "2.56%", "16.00%"]


def test_a_span_of_one_number_is_that_number() -> None:
    half = pd.DataFrame({"one": [0.5, 0.502], "two": [0.5, 0.6]})
    assert trajectory.span(half, "one") == "50%"
    assert trajectory.span(half, "two") == "50% to 60%"
