"""Parts of updates as tables and figures: gains, controls, and what is said where there are no rows."""

from pathlib import Path

import matplotlib.pyplot as plt
import pytest

from opdlib.figures import surgery as figures
from opdlib.results.study import ENERGY, PART, REST, SIZE
from opdlib.tables import study, surgery
from tests.tables.surgery_rows import ENERGIES, write_surgery


def test_the_gain_is_a_share_of_what_the_whole_update_gains(tmp_path: Path) -> None:
    table = surgery.parts("pico", write_surgery(tmp_path, arms=(("opd", 0), ("rlvr", 0))))
    gains = table[table["kind"] == PART].groupby("part")["gain"].first()
    assert gains.to_dict() == pytest.approx(ENERGIES)
    assert set(table["called"]) == {surgery.KINDS[kind] for kind in (PART, REST, SIZE, ENERGY)} | {surgery.SHORTER}
    unknown = write_surgery(tmp_path / "part")
    file = unknown / "pico" / "surgery.csv"
    file.write_text("\n".join(line for line in file.read_text().splitlines() if ",none," not in line))
    assert surgery.parts("pico", unknown)["gain"].isna().all(), "without the source there is no gain"


def test_seeds_are_taken_together(tmp_path: Path) -> None:
    table = surgery.parts("pico", write_surgery(tmp_path, arms=(("opd", 0), ("opd", 1), ("rlvr", 0))))
    table.loc[(table["seed"] == 1) & (table["part"] == "visible"), ["accuracy", "high"]] += 0.1
    found = surgery.over_seeds(table).set_index(["arm", "part", "kind"])
    assert found["seeds"].groupby("arm").first().to_dict() == {"opd": 2, "rlvr": 1}
    both, alone = found.loc[("opd", "visible", PART)], found.loc[("rlvr", "visible", PART)]
    assert both["accuracy"] == pytest.approx(alone["accuracy"] + 0.05)
    assert (both["low"], both["high"]) == (alone["low"], pytest.approx(alone["high"] + 0.1))


def test_a_part_beside_its_control(tmp_path: Path) -> None:
    table = surgery.parts("pico", write_surgery(tmp_path))
    (row,) = surgery.compared(table, "block:mlp", ENERGY).to_dict("records")
    assert (row["gain"], row["control"], row["difference"]) == pytest.approx((0.5, 0.25, 0.1))
    assert row["apart"]
    assert not surgery.compared(table, "largest:0.05", SIZE)["apart"].any(), "0.08 +- 0.03 each"
    assert surgery.compared(table, "mask:low:0.2", SIZE).empty


def test_tables_for_the_eye(tmp_path: Path) -> None:
    root = write_surgery(tmp_path, arms=(("opd", 0), ("sgd-3e-2", 0)))
    means = surgery.over_seeds(surgery.parts("pico", root))
    shown = study.shown(surgery.asking(means.query("arm == 'opd'"), "blocks"), surgery.SHOWN)
    assert shown.loc["block:attention", ["what is kept", "energy", "solved", "of the gain"]].tolist() == [
        *("the part", "25.0%", "40.0%", "25%")
    ]
    beside = surgery.beside(means)
    assert list(beside) == ["what is kept", "OPD", "SGD"]
    assert beside.loc["singular:4"].tolist() == ["the part", "40%", "40%"]
    assert "singular:4" not in surgery.beside(means[(means["part"] != "singular:4") | (means["arm"] == "opd")]).index
    standing = surgery.standing("pico", root)
    assert standing["runs"].to_dict() == dict.fromkeys(surgery.ARMS.values(), "0") | {"OPD": "1", "SGD": "1"}
    assert set(standing["command for the rest"]) == {"opd study pico --surgery --out data/study"}


@pytest.mark.parametrize("name", ["directions", "coordinates", "blocks"])
@pytest.mark.parametrize("rows", [True, False])
def test_figures_have_axes_and_every_part(tmp_path: Path, name: str, rows: bool) -> None:
    root = write_surgery(tmp_path) if rows else tmp_path
    table = surgery.over_seeds(surgery.parts("pico", root))
    ax = getattr(figures, name)(table)
    assert "%" in ax.get_xlabel()
    drawn = sum(len(line.get_xdata()) for line in ax.lines if line.get_linestyle() != ":")
    wanted = {"directions": 2 + 1 + 1 + 1, "coordinates": 3 + 2 + 2, "blocks": 3 + 1 + 1}[name]
    assert drawn == (wanted if rows else 0)
    plt.close(ax.figure)


def test_a_scale_without_rows_has_empty_tables(tmp_path: Path) -> None:
    means = surgery.over_seeds(surgery.parts("smollm2", tmp_path))
    for question in surgery.QUESTIONS:
        assert study.shown(surgery.asking(means, question), surgery.SHOWN).iloc[0].tolist() == ["no runs yet"]
    assert surgery.beside(means).iloc[0].tolist() == ["no runs yet"]
    assert surgery.standing("smollm2", tmp_path)["rows"].tolist() == ["0"] * len(surgery.ARMS)
