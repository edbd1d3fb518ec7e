"""From run folders to the study's tables and back: nothing is lost, nothing overwritten."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from opdlib.cli.main import main
from opdlib.errors import RegistryError
from opdlib.files import data_root
from opdlib.quantities import flat
from opdlib.registry.study import Arm, Scale
from opdlib.results.collect import add_rows, collect
from opdlib.results.study import StudyResults
from tests.conftest import reseal

THIRD = 0.1 + 0.2
"""A number whose shortest form has seventeen digits."""
STEPS = 4
PLACE = {"scale": "pico", "recipes": "pico"}
SCALE = Scale(
    name="pico",
    source="recipe:pico-source",
    arms={
        "opd": Arm(name="opd", seeds=[2, 0], **PLACE),
        "adam-zero": Arm(name="adam-zero", seeds=1, partner="opd", **PLACE),
    },
)


def write_run(runs: Path, arm: str, seed: int, norm: float = THIRD, **training: Any) -> Path:
    """A run folder as training and measuring leave it; adam-zero changed nothing."""
    folder = write_trained(runs, f"pico-{arm}", seed, **training)
    for place, view, part in (("", "bf16", 1.0), ("stored", "stored", 1.0), ("steps/2", "bf16", 0.5)):
        write_measurement(
            folder / "results" / place, f"pico-{arm}-s{seed}", view, None if arm == "adam-zero" else norm * part
        )
    return folder


def write_trained(runs: Path, name: str, seed: int, **training: Any) -> Path:
    """A run folder of a recipe that opdlib has, as training leaves it."""
    folder = runs / f"{name}-s{seed}"
    recipe = yaml.safe_load((data_root() / "recipes" / f"{name}.yaml").read_text()) | {"seed": seed}
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    score = {"task": "sums", "seed": 0, "n": 1000, "correct": 400 + seed, "accuracy": 0.4, "interval": [0.37, THIRD]}
    write_json(folder / "evaluation.json", {"source": score | {"correct": 251}, "student": score})
    digests = {"source": "0" * 64, "fp32": "1e5", "bf16": "007"}
    write_json(folder / "complete.json", {"steps": STEPS, "training_seconds": 1.5, "digests": digests} | training)
    made = {"git": {"commit": "0123", "dirty": False}, "python": "3.11", "packages": {"torch": "2.10"}, "threads": 1}
    write_json(folder / "environment.json", made | {"cpu": {"model": "x", "instruction_sets": ["avx", "fma"]}})
    lines = [{"step": step, "loss": THIRD * step, "num_tokens": 10.0 * step} for step in range(1, STEPS + 1)]
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    probe = {"step": 2, "distance": 0.5, "accuracy": 0.3, "interval": [0.2, 0.4], "n": 10, "unheard": 1}
    (folder / "probes.jsonl").write_text(json.dumps(probe) + "\n")
    return folder


def write_measurement(folder: Path, pair: str, view: str, norm: float | None, **changed: Any) -> None:
    """A measurement of two layers; of no change at all without a norm."""
    layer = {"exact_zero": 0.5, "sparsity": {"1e-05": 0.75}, "energy_share": None if norm is None else 0.5}
    summary = {
        "pair": pair,
        "view": view,
        "tensors": 3,
        "parameters": 30,
        "rel_norm": norm or 0.0,
        "sparsity": {"1e-08": 0.5, "1e-05": THIRD},
        "blocks": {"mlp": {"rel_norm": 1e-300, "parameters": 20}},
        "layers": [{"layer": 0, **layer}, {"layer": 1, **layer, "energy_share": 0.25}],
        "stable_rank": None if norm is None else 2.0,
        "rank_share": {"1e-05": 1.0},
        "projection": {"joint": {"0.1": norm and norm / 3}},
    } | changed
    if folder.name == "results" and norm is not None:
        ratio = {"ratio": 0.99, "interval": [0.98, THIRD], "verdict": "explained"}
        alone = ratio | {"interval": [None, None], "verdict": "undecided"}
        expected = {"exact_zero": THIRD, "coverage": {"low": {"0.1": 0.4}}}
        summary |= {
            "nulls_scale": "fp32",
            "nulls": {"visibility": expected, "permutation": {"stable_rank": 2.5}},
            "explained": {
                "visibility": {"coverage.low.0.1": ratio, "changed": ratio},
                "permutation": {"stable_rank": alone},
            },
        }
    undefined = {key: "nothing changed" for key, value in flat(summary) if value is None}
    identity = {"source": "0" * 64, "trained": "12", "view": view, "skip": [], "metrics": ["sparsity"], "format": 2}
    sides = {side: {"spec": side, "digest": "0" * 64} for side in ("source", "trained")}
    known = {
        "pair": pair,
        **sides,
        "identity": identity,
        "tied_or_skipped": {"a": "tied to b"},
        "renamed": {},
        "undefined": undefined,
    }
    write_json(folder / "summary.json", summary)
    write_json(folder / "provenance.json", known | {"device": "cpu", "versions": {"python": "3.10", "torch": "2.10"}})
    reseal(folder)


def write_json(file: Path, content: dict[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content), encoding="utf8")


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    for arm, seed in (("opd", 0), ("adam-zero", 0)):
        write_run(tmp_path / "runs", arm, seed)
    return tmp_path / "runs"


def contents(folder: Path) -> dict[str, str]:
    return {file.name: file.read_text() for file in folder.iterdir()}


def test_summaries_come_back_as_they_were(runs: Path, tmp_path: Path) -> None:
    assert collect(SCALE, tmp_path, runs) == ["pico-opd-s0", "pico-adam-zero-s0"]
    found = StudyResults("pico", tmp_path / "pico")
    for arm in ("opd", "adam-zero"):
        for place, view, step in ((".", "bf16", None), ("stored", "stored", None), ("steps/2", "bf16", 2)):
            written = (runs / f"pico-{arm}-s0" / "results" / place / "summary.json").read_text()
            assert json.dumps(found.summary(arm, 0, view, step)) == written
        assert found.summary(arm, 0, step=STEPS) == found.summary(arm, 0)


def test_columns_have_their_types(runs: Path, tmp_path: Path) -> None:
    collect(SCALE, tmp_path, runs)
    found = StudyResults("pico", tmp_path / "pico")
    row = found.runs.iloc[0]
    texts = {
        "git.commit": "0123",
        "digest.bf16": "007",
        "digest.fp32": "1e5",
        "measured.python": "3.10",
        "python": "3.11",
    }
    texts |= {"packages.torch": "2.10", "cpu.instruction_sets": "avx fma", "left_out": "a: tied to b", "note": ""}
    assert {name: row[name] for name in texts} == texts
    assert (row["tokens"], row["steps"], row["student.correct"], row["threads"]) == (40, STEPS, 400, 1)
    assert row["student.high"] == THIRD
    assert row["git.dirty"] is False or not row["git.dirty"]
    assert found.runs.dtypes["tokens"] == found.curves.dtypes["step"] == "int64"
    assert found.curves.dtypes["n"] == "Int64"
    assert found.curves["loss"].tolist()[:2] == [THIRD, THIRD * 2]
    assert found.curves.loc[1, ["distance", "accuracy", "low", "high", "n"]].tolist() == [0.5, 0.3, 0.2, 0.4, 10]
    assert found.curves["n"].isna().sum() == len(found.curves) - 2
    for text in contents(tmp_path / "pico").values():
        assert "{" not in text
        assert "nan" not in text


def test_what_is_undefined_is_named_and_what_is_absent_is_not(runs: Path, tmp_path: Path) -> None:
    only_sparsity = runs / "pico-opd-s0" / "results" / "summary.json"
    content = json.loads(only_sparsity.read_text())
    del content["stable_rank"]
    only_sparsity.write_text(json.dumps(content))
    reseal(only_sparsity.parent)
    collect(SCALE, tmp_path, runs)
    found = StudyResults("pico", tmp_path / "pico")
    assert "stable_rank" not in found.summary("opd", 0)
    assert found.summary("adam-zero", 0)["stable_rank"] is None
    assert found.runs["stable_rank"].isna().tolist() == [True, False, True, True]
    table = found.undefined[found.undefined["key"] == "stable_rank"]
    assert table[["arm", "view", "step"]].to_numpy().tolist() == [
        ["adam-zero", "bf16", 2],
        ["adam-zero", "bf16", STEPS],
        ["adam-zero", "stored", STEPS],
    ]
    assert set(table["reason"]) == {"nothing changed"}


def test_a_second_time_changes_nothing(runs: Path, tmp_path: Path) -> None:
    collect(SCALE, tmp_path, runs)
    first = contents(tmp_path / "pico")
    assert set(first) == {f"{name}.csv" for name in ("runs", "steps", "layers", "curves", "undefined", "nulls")}
    collect(SCALE, tmp_path, runs)
    assert contents(tmp_path / "pico") == first


def test_new_runs_are_put_in_their_place_and_old_rows_stay(runs: Path, tmp_path: Path) -> None:
    collect(SCALE, tmp_path, runs)
    before = {name: text.splitlines() for name, text in contents(tmp_path / "pico").items()}
    shutil.rmtree(runs)
    write_run(runs, "opd", 2)
    assert collect(SCALE, tmp_path, runs) == ["pico-opd-s2"]
    found = StudyResults("pico", tmp_path / "pico")
    order = [("opd", 0), ("opd", 2), ("adam-zero", 0)]
    assert [*found.runs[["arm", "seed"]].drop_duplicates().itertuples(index=False, name=None)] == order
    assert [*found.curves[["arm", "seed"]].drop_duplicates().itertuples(index=False, name=None)] == order
    for name, text in contents(tmp_path / "pico").items():
        assert set(before[name]) <= set(text.splitlines())


def test_a_run_may_fill_what_was_not_measured(runs: Path, tmp_path: Path) -> None:
    summary = runs / "pico-opd-s0" / "results" / "summary.json"
    whole = json.loads(summary.read_text())
    summary.write_text(
        json.dumps({key: value for key, value in whole.items() if key not in ("sparsity", "stable_rank")})
    )
    reseal(summary.parent)
    collect(SCALE, tmp_path, runs)
    before = StudyResults("pico", tmp_path / "pico").summary("opd", 0)
    assert "sparsity" not in before
    summary.write_text(json.dumps(whole))
    reseal(summary.parent)
    collect(SCALE, tmp_path, runs)
    assert json.dumps(StudyResults("pico", tmp_path / "pico").summary("opd", 0)) == json.dumps(whole)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"norm": 0.25}, r"pico: runs: opd 0 stored: rel_norm is 0\.30000000000000004 in the tables and 0\.25 in the"),
        ({"steps": 5}, r"pico: runs: opd 0 stored: steps is 4 in the tables and 5 in the run folder; nothing was"),
        ({"digests": {"bf16": "008"}}, r"pico: runs: opd 0 stored: digest\.bf16 is 007 in the tables and 008"),
    ],
)
def test_what_contradicts_is_refused(runs: Path, tmp_path: Path, change: dict[str, Any], message: str) -> None:
    collect(SCALE, tmp_path, runs)
    before = contents(tmp_path / "pico")
    shutil.rmtree(runs / "pico-opd-s0")
    write_run(runs, "opd", 0, **change)
    write_run(runs, "opd", 2)
    with pytest.raises(RegistryError, match=message) as caught:
        collect(SCALE, tmp_path, runs)
    assert "\n" not in str(caught.value)
    assert contents(tmp_path / "pico") == before, "nothing of any run was written"


def test_a_run_without_digests_is_not_taken_for_one_that_was_made_again(runs: Path, tmp_path: Path) -> None:
    collect(SCALE, tmp_path, runs)
    shutil.rmtree(runs / "pico-opd-s0")
    write_run(runs, "opd", 0, training_seconds=99.5, digests={})
    with pytest.raises(RegistryError, match=r"training_seconds is 1\.5 in the tables and 99\.5"):
        collect(SCALE, tmp_path, runs)


def test_a_run_that_was_made_again_elsewhere_is_the_same_run(runs: Path, tmp_path: Path) -> None:
    """What it weighs and measures is held against the tables; how it was made stays as it was first."""
    collect(SCALE, tmp_path, runs)
    before = contents(tmp_path / "pico")
    folder = runs / "pico-opd-s0"
    shutil.rmtree(folder)
    write_run(runs, "opd", 0, training_seconds=99.5)
    environment = json.loads((folder / "environment.json").read_text())
    write_json(folder / "environment.json", environment | {"cpu": {"model": "another", "instruction_sets": ["avx"]}})
    collect(SCALE, tmp_path, runs)
    assert contents(tmp_path / "pico") == before
    lines = (folder / "metrics.jsonl").read_text().replace('"num_tokens": 10.0', '"num_tokens": 11.0')
    (folder / "metrics.jsonl").write_text(lines)
    with pytest.raises(RegistryError, match=r"num_tokens is 10\.0 in the tables and 11\.0"):
        collect(SCALE, tmp_path, runs)


def test_another_machine_may_have_other_last_digits_versions_and_parents(runs: Path, tmp_path: Path) -> None:
    collect(SCALE, tmp_path, runs)
    before = contents(tmp_path / "pico")
    for norm, same in ((THIRD * (1 + 1e-12), True), (THIRD * (1 + 1e-4), False)):
        shutil.rmtree(runs / "pico-opd-s0")
        folder = write_run(runs, "opd", 0, norm, training_seconds=99.5)
        environment = json.loads((folder / "environment.json").read_text())
        write_json(folder / "environment.json", environment | {"parents": {"teacher": "committed"}})
        for file in folder.rglob("provenance.json"):
            known = json.loads(file.read_text())
            write_json(file, known | {"device": "cuda", "versions": {"python": "3.12", "torch": "2.11"}})
            reseal(file.parent)
        if same:
            collect(SCALE, tmp_path, runs)
        else:
            with pytest.raises(RegistryError, match=r"rel_norm is 0\.30000000000000004 in the tables and 0\.30003"):
                collect(SCALE, tmp_path, runs)
        assert contents(tmp_path / "pico") == before


def test_a_number_that_tells_rows_apart_stays_with_a_run_that_was_made_again(tmp_path: Path) -> None:
    run = {"arm": "opd", "seed": 0, "view": "bf16"}
    binade = {**run, "step": 4, "magnitude": 0.5, "coordinates": 3, "updated": 1, "changed": 1 / 3}
    for seconds in (1.5, 99.5):
        facts = {**run, "steps": 4, "training_seconds": seconds, "digest.fp32": "1e5"}
        add_rows(SCALE, tmp_path / "pico", {"runs": [facts], "binades": [binade]})
        assert contents(tmp_path / "pico")["binades.csv"].splitlines()[1:] == [f"opd,0,bf16,4,0.5,3,1,{1 / 3}"]


def test_rows_of_an_arm_that_is_no_longer_planned_are_last(runs: Path, tmp_path: Path) -> None:
    collect(SCALE, tmp_path, runs)
    less = SCALE.model_copy(
        update={"arms": {"adam-zero": SCALE.arms["adam-zero"].model_copy(update={"partner": None})}}
    )
    write_run(runs, "adam-zero", 1)
    more = less.model_copy(update={"arms": {"adam-zero": less.arms["adam-zero"].model_copy(update={"seeds": (0, 1)})}})
    collect(more, tmp_path, runs)
    arms = [line.partition(",")[0] for line in contents(tmp_path / "pico")["runs.csv"].splitlines()[1:]]
    assert arms == ["adam-zero"] * 4 + ["opd"] * 2


def test_only_the_run_that_taught_is_a_parent(runs: Path, tmp_path: Path) -> None:
    write_trained(runs, "pico-teacher", 0)
    write_trained(runs, "pico-teacher", 7)
    shutil.copytree(runs / "pico-teacher-s0", runs / "pico-teacher-s0.old")
    collect(SCALE, tmp_path, runs)
    header, *rows = contents(tmp_path / "pico")["parents.csv"].splitlines()
    assert header.startswith("recipe,seed,")
    assert [row.split(",")[:2] for row in rows] == [["pico-teacher", "0"]]


def test_so_is_a_teacher_that_was_trained_again(runs: Path, tmp_path: Path) -> None:
    teacher = write_trained(runs, "pico-teacher", 0)
    collect(SCALE, tmp_path, runs)
    before = contents(tmp_path / "pico")
    assert "pico-teacher,0," in before["parents.csv"]
    shutil.rmtree(teacher)
    write_trained(runs, "pico-teacher", 0, training_seconds=99.5)
    collect(SCALE, tmp_path, runs)
    assert contents(tmp_path / "pico") == before
    shutil.rmtree(teacher)
    write_trained(runs, "pico-teacher", 0, digests={"source": "0" * 64, "fp32": "1e6", "bf16": "007"})
    with pytest.raises(RegistryError, match=r"parents: pico-teacher 0: digest\.fp32 is 1e5 in the tables and 1e6"):
        collect(SCALE, tmp_path, runs)


@pytest.mark.parametrize(("before", "after"), [(None, 2.0), (2.0, None)])
def test_a_number_does_not_become_undefined_nor_the_other_way(
    runs: Path, tmp_path: Path, before: float | None, after: float | None
) -> None:
    place = runs / "pico-adam-zero-s0" / "results"
    write_measurement(place, "pico-adam-zero-s0", "bf16", None, stable_rank=before)
    collect(SCALE, tmp_path, runs)
    write_measurement(place, "pico-adam-zero-s0", "bf16", None, stable_rank=after)
    with pytest.raises(RegistryError, match=r"pico: adam-zero 0 bf16 4: stable_rank is undefined, and 2\.0: one in"):
        collect(SCALE, tmp_path, runs)


def test_a_run_that_is_not_measured_yet_waits(runs: Path, tmp_path: Path) -> None:
    (runs / "pico-opd-s0" / "results" / "summary.json").unlink()
    (runs / "pico-adam-zero-s0" / "complete.json").unlink()
    assert collect(SCALE, tmp_path, runs) == []
    assert not (tmp_path / "pico").exists()


def test_the_command_collects(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    runs.rename(tmp_path / "train")
    runs.mkdir()
    (tmp_path / "train").rename(runs / "train")
    assert main(["study", "pico", "--collect"]) == 0
    assert capsys.readouterr().out == "pico: 2 runs in runs/study/pico\n"
    with (tmp_path / "runs" / "study" / "pico" / "runs.csv").open(newline="") as stream:
        assert [row["arm"] for row in csv.DictReader(stream)] == ["opd", "opd", "adam-zero", "adam-zero"]
