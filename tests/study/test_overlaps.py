"""What runs changed in common, from weights that were made so that the answer is known."""

import csv
import shutil
from pathlib import Path

import pytest
import torch

from opdlib.checkpoints import open_checkpoint
from opdlib.cli.main import main
from opdlib.errors import CheckpointError
from opdlib.measurement.overlap import overlap
from opdlib.registry import weights
from opdlib.registry.recipes import load_recipe, recipe_digest
from opdlib.registry.study import find_scale
from opdlib.registry.weights import Weights as Travelling
from opdlib.results.study import MASKS, OVERLAPS, open_study
from opdlib.study.overlaps import comparisons, thresholds, write_overlaps
from opdlib.tables.subnetwork.overlap import cosines, latent_error
from tests.conftest import Weights, moved, pico_weights, write_checkpoint

pytestmark = pytest.mark.slow

PICO = find_scale("pico")
LARGE = 7e-4
"""The threshold of pico's own mask."""


def kept(source: Weights, trained: Weights, other: Weights) -> Weights:
    """`other` where `trained` left the source by more than the threshold, and the source elsewhere."""
    return {
        name: torch.where((trained[name].double() - w.double()).abs() > LARGE, other[name], w)
        for name, w in source.items()
    }


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A source, three runs of full OPD, one of RLVR, and one inside the mask of the first, all float32, in `runs`; what
    was written of them in `out`."""
    root = tmp_path_factory.mktemp("written")
    folder = root / "runs"
    source = pico_weights(dtype=torch.float32)
    source = {name: w.bfloat16().float() for name, w in source.items()}
    full = [moved(source, scale=1e-3, seed=seed) for seed in (1, 2, 3)]
    weights = {
        "pico-source-s0": source,
        **{f"pico-opd-s{seed}": w for seed, w in enumerate(full)},
        "pico-rlvr-s1": moved(source, scale=1e-3, seed=4),
        "pico-mask-own-s0": kept(source, {n: w.bfloat16() for n, w in full[0].items()}, moved(source, 1e-2, seed=5)),
    }
    for key, own in weights.items():
        write_checkpoint(folder / key / "bf16", {name: w.bfloat16() for name, w in own.items()})
    write_overlaps(PICO, root / "out", folder)
    return root


@pytest.fixture
def runs(written: Path, tmp_path: Path) -> Path:
    """The runs, to be changed."""
    return shutil.copytree(written / "runs", tmp_path / "runs")


def table(folder: Path, name: str) -> list[dict[str, str]]:
    with (folder / "pico" / f"{name}.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_what_is_compared() -> None:
    pairs = comparisons(PICO)
    assert len(set(pairs)) == len(pairs) == 10 + 7 * 2 * 5
    assert pairs[0] == (("opd", 0), ("opd", 1))
    assert (("opd", 0), ("rlvr", 0)) in pairs, "the same seed: the same problems in the same order"
    assert (("opd", 0), ("rlvr", 4)) in pairs, "another seed, in a circle"
    assert thresholds(PICO) == [0.0, 1e-5, LARGE]
    small = comparisons(find_scale("smollm2-bf16"))
    assert (("opd", 1), ("offline", 1)) in small
    assert (("opd", 2), ("offline", 1)) in small
    assert thresholds(find_scale("smollm2-bf16")) == [0.0, 1e-5]


def test_rows_are_those_of_runs_whose_weights_are_here(written: Path) -> None:
    runs, rows = written / "runs", table(written / "out", "overlaps")
    assert tuple(rows[0]) == tuple(open_study("pico", written / "out").overlaps) == OVERLAPS
    found = [(r["arm_a"], r["seed_a"], r["arm_b"], r["seed_b"]) for r in rows[::3]]
    seeds = [("opd", a, "opd", b) for a, b in ("01", "02", "12")]
    assert found == [*seeds, ("opd", "1", "rlvr", "1"), ("opd", "2", "rlvr", "1")]
    assert [float(r["atol"]) for r in rows[:3]] == thresholds(PICO)
    source, a, b = (
        open_checkpoint(str(runs / key / "bf16")) for key in ("pico-source-s0", "pico-opd-s1", "pico-rlvr-s1")
    )
    row, one = rows[11], overlap(source, a, b, atol=LARGE)
    assert float(row["o1"]) == one["o1"]
    assert float(row["jaccard"]) == one["jaccard"]
    assert float(row["density_b"]) == one["density_b"]
    assert float(row["magnitude_o2"]) == one["expected"]["magnitude"]["o2"]
    assert int(row["parameters"]) == sum(info.numel for info in source.tensors.values())
    assert (row["cosine"], float(row["latent_cosine"])) == ("", one["latent_cosine"])


def test_masters_tell_the_cosine_and_move_nothing_else(runs: Path, tmp_path: Path) -> None:
    write_overlaps(PICO, tmp_path / "without", runs)
    for seed in (0, 1):
        weights = open_checkpoint(str(runs / f"pico-opd-s{seed}" / "bf16"))
        masters = {name: weights.read(name).float() * (1 + 1e-6) for name in weights.tensors}
        write_checkpoint(runs / f"pico-opd-s{seed}" / "fp32", masters)
    write_overlaps(PICO, tmp_path / "with", runs)
    before, after = table(tmp_path / "without", "overlaps"), table(tmp_path / "with", "overlaps")
    assert [row | {"cosine": ""} for row in after] == before
    assert [bool(row["cosine"]) for row in after] == [True] * 3 + [False] * (len(after) - 3)
    off = float(after[1]["latent_cosine"]) - float(after[1]["cosine"])
    assert latent_error(tmp_path / "with") == {"pairs": 1, "low": off, "high": off}
    (way,) = cosines(tmp_path / "with").to_dict("records")
    assert (way["scale"], way["name"], way["seed"], way["pairs"]) == ("pico", "OPD", "other seed", 1)
    assert way["cosine"] == way["low"] == way["high"] == float(after[0]["cosine"])
    assert cosines(tmp_path / "without").empty


def test_a_mask_and_the_run_inside_it(written: Path) -> None:
    runs, (row,) = written / "runs", table(written / "out", "masks")
    assert tuple(row) == tuple(open_study("pico", written / "out").masks) == MASKS
    assert (row["arm"], row["seed"], row["kind"], row["owner"]) == ("mask-own", "0", "delta", "pico-opd-s0")
    source, full, run = (
        open_checkpoint(str(runs / key / "bf16")) for key in ("pico-source-s0", "pico-opd-s0", "pico-mask-own-s0")
    )
    deltas = torch.cat([(full.read(n).double() - source.read(n).double()).flatten() for n in source.tensors])
    inside = deltas.abs() > LARGE
    assert (
        int(row["inside"]) == int(row["owner_inside"]) == int(row["own_inside"]) == int(row["in_own"]) == inside.sum()
    )
    assert float(row["own_energy"]) == pytest.approx(float(deltas[inside].square().sum() / deltas.square().sum()))
    changed = torch.cat([(run.read(n) != source.read(n)).flatten() for n in source.tensors])
    assert int(row["moved_inside"]) == int(changed.sum()) > 0
    assert row["moved_outside"] == "0"


def test_weights_that_travel_stand_for_a_run_that_is_not_here(
    written: Path, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The owner of the mask, which is full OPD, too: the rows are those that the run itself would give."""
    recipe = load_recipe(PICO.arms["opd"].recipe)
    place = shutil.move(runs / "pico-opd-s0", tmp_path / "elsewhere") / "bf16"
    known = Travelling(run="pico-opd-s0", recipe=recipe_digest(recipe), checkpoint=str(place), digest="")
    monkeypatch.setattr(weights, "weights", lambda: {known.run: known})
    write_overlaps(PICO, tmp_path / "out", runs)
    for name in ("masks", "overlaps"):
        assert table(tmp_path / "out", name) == table(written / "out", name)


def test_a_run_that_left_its_mask_shows(runs: Path, tmp_path: Path) -> None:
    source = pico_weights()
    write_checkpoint(runs / "pico-mask-own-s0" / "bf16", {name: w + 1 for name, w in source.items()})
    write_overlaps(PICO, tmp_path, runs)
    (row,) = table(tmp_path, "masks")
    assert int(row["moved_outside"]) == int(row["parameters"]) - int(row["inside"])


def test_a_second_time_gives_the_same_bytes_and_drops_nothing(written: Path, runs: Path, tmp_path: Path) -> None:
    out = shutil.copytree(written / "out" / "pico", tmp_path / "pico")
    first = {file: file.read_bytes() for file in out.iterdir()}
    (runs / "pico-rlvr-s1").rename(runs / "elsewhere")
    (runs / "pico-mask-own-s0").rename(runs / "elsewhere-too")
    write_overlaps(PICO, tmp_path, runs)
    assert {file: file.read_bytes() for file in out.iterdir()} == first, "what cannot be made here stays"
    assert {file.name for file in first} == {"masks.csv", "overlaps.csv"}


def test_committed_tables_are_in_the_order_of_the_plan(tmp_path: Path) -> None:
    for scale in (find_scale("pico-bf16"), find_scale("smollm2-bf16")):
        rows = open_study(scale.name).overlaps[["arm_a", "seed_a", "arm_b", "seed_b", "atol"]]
        planned = [(*a, *b, atol) for a, b in comparisons(scale) for atol in thresholds(scale)]
        assert [*rows.itertuples(index=False, name=None)] == planned


def test_the_command(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match="scale pico: no weights of its runs in runs/train"):
        write_overlaps(PICO, tmp_path)
    assert main(["study", "pico", "--overlaps"]) == 2
    assert capsys.readouterr().err == ("opd: scale pico: no weights of its runs in runs/train; run: opd study pico\n")
    (tmp_path / "runs" / "train").mkdir()
    for folder in list(runs.iterdir()):
        if folder.name != "train":
            folder.rename(runs / "train" / folder.name)
    assert main(["study", "pico", "--overlaps", "--out", "here"]) == 0
    assert capsys.readouterr().out == "pico: overlaps and masks in here/pico\n"
