"""Arms compared problem by problem, from answers that were made so that the counts are known."""

from pathlib import Path

import pandas as pd
import pytest

from opdlib.stats import mcnemar
from opdlib.tables import study
from opdlib.tables.answers import PAIRED, SHOWN, paired

PROBLEMS = 40


def write(root: Path, **runs: list[int]) -> Path:
    """A table of answers; a run is the numbers of the problems that it solves."""
    table = pd.DataFrame({"number": range(1, PROBLEMS + 1), "problem": "1+1=", "evaluated": 1})
    for name, solved in runs.items():
        table[name.replace("__", "-s").replace("_", "-")] = table["number"].isin(solved).astype(int)
    (root / "pico").mkdir()
    table.to_csv(root / "pico" / "answers.csv", index=False)
    return root


def test_pairs_of_the_seeds_that_both_have(tmp_path: Path) -> None:
    first, half = [*range(1, 31)], [*range(1, 21)]
    root = write(
        tmp_path, opd__0=first, opd__1=first, mask_own__1=half, mask_own__3=first, mask_random__0=[*range(11, 40)]
    )
    table = paired("pico", root=root).set_index("arm")
    assert ["arm", *table] == PAIRED
    assert list(table.index) == ["mask-own", "mask-random"], "arms without a run that OPD has too are left out"
    own, drawn = table.loc["mask-own"], table.loc["mask-random"]
    assert own[["partner", "seeds", "problems", "ahead", "behind"]].tolist() == ["opd", 1, PROBLEMS, 0, 10]
    assert own[["accuracy", "partner_accuracy"]].tolist() == [0.5, 0.75]
    assert own["difference"] == pytest.approx(-0.25)
    assert own["low"] < -0.25 < own["high"] < 0
    assert drawn[["ahead", "behind"]].tolist() == [9, 10]
    assert (own["p"], drawn["p"]) == (mcnemar(0, 10), mcnemar(9, 10))
    assert own["p_holm"] == 2 * own["p"]
    assert drawn["p_holm"] == drawn["p"]


def test_a_problem_counts_once_however_many_seeds_there_are(tmp_path: Path) -> None:
    """Ahead on 1 and 2 in one seed, behind on 2 and 3 in the other."""
    root = write(tmp_path, opd__0=[5], rlvr__0=[1, 2, 5], opd__1=[2, 3], rlvr__1=[])
    (row,) = paired("pico", ["rlvr"], root=root).to_dict("records")
    assert (row["seeds"], row["ahead"], row["behind"], row["difference"]) == (2, 1, 1, 0)
    shown = study.shown(paired("pico", ["rlvr"], root=root), SHOWN)
    assert shown.loc["rlvr", ["points", "ahead on", "behind on", "p"]].tolist() == ["0.0", "1", "1", "1"]


def test_no_answers_give_no_rows(tmp_path: Path) -> None:
    assert paired("pico", root=tmp_path).empty
    assert study.shown(paired("pico", root=tmp_path), SHOWN).iloc[0].tolist() == ["no runs yet"]
