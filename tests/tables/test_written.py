"""Tables for the eye: digits, signs and dashes, and nothing of nothing."""

import math
from pathlib import Path

import pandas as pd
import torch

from opdlib.quantities import MISSING, short
from opdlib.tables import Results, geometry, paper, rounding, subspace, written
from opdlib.tables.written import interval, number, percent, points, probability, with_interval
from tests.conftest import moved, pico_weights
from tests.tables.results_of import results_of


def test_nothing_changed_is_a_dash_and_not_zero(unchanged: Results) -> None:
    names = geometry.spectrum_keys([1], [1e-5])
    assert geometry.spread(unchanged).empty
    assert geometry.spectrum(unchanged).empty
    assert geometry.overview(unchanged, names)[names].isna().all(axis=None)
    assert subspace.joint(unchanged)[["value", "ratio"]].isna().all(axis=None)
    assert subspace.coverage(unchanged, [0.1])["coverage"].isna().all()
    assert subspace.changed(unchanged)["changed_in.low.0.01"].isna().all()
    shown = written.by_quantity([unchanged], paper.numbers(), names)
    assert set(shown["here, bf16"]) == set(shown["quartiles, bf16"]) == {"-"}
    assert len(written.by_module([unchanged], ["svd_energy.1"])) == 0
    assert rounding.budget(unchanged, unchanged)["stored"].isna().all()


def test_tables_for_the_eye(results: Results, stored: Results) -> None:
    views = [results, stored]
    shown = written.by_quantity(views, paper.numbers(), ["svd_energy.1", "stable_rank", "effective_rank"])
    assert list(shown.columns) == [
        *(f"{what}, {view}" for view in ("bf16", "stored") for what in ("here", "quartiles")),
        *("paper low", "paper high"),
    ]
    assert shown.loc["top 1", "paper low"] == "4.92%"
    assert shown.loc["effective rank", "paper high"] == "-"
    modules = written.by_module(views, ["projection.joint.0.1"], "ratio")
    assert list(modules.columns) == ["matrices", "joint projection, 10%, bf16", "joint projection, 10%, stored"]
    assert modules.loc["embed_tokens", "matrices"] == 1
    table = pd.DataFrame({"pair": ["a", ""], "k": [1536, 2], "ratio": [2.184, math.nan], "svd_energy.1": [0.5, 1e-5]})
    assert written.cells(table, "pair", "k", "ratio", "svd_energy.1").loc["a"].to_dict() == {
        "k": "1,536",
        "ratio": "2.18",
        "top 1": "50.0000%",
    }
    renamed = written.cells(table, "pair", "k", names={"pair": "mask", "k": "size"})
    assert (renamed.columns.name, list(renamed.columns)) == ("mask", ["size"])


def test_a_vision_module_says_so(tmp_path: Path) -> None:
    source = pico_weights() | {"visual.blocks.0.attn.qkv.weight": torch.ones(8, 8).bfloat16()}
    shown = written.by_module([results_of(tmp_path, source, moved(source, 1e-2))], ["stable_rank"])
    assert shown.index[-1] == "vision: qkv"


def test_text_of_numbers() -> None:
    assert (points(-0.0001, plain=True), points(-0.0251, plain=True)) == ("+0.0", "-2.5")
    assert (percent(-0.021), percent(0.021, 0)) == ("\N{MINUS SIGN}2.1%", "2%")
    assert (number(1.234), number(1.234, ".3g"), number(math.nan)) == ("1.23", "1.23", MISSING)
    assert (probability(0.0421), probability(1e-5)) == ("0.042", "<1e-4")
    assert with_interval(0.1, 0.05, 0.2) == "10.0% (5.0% to 20.0%)"
    assert with_interval(0.1, math.nan, math.nan) == "10.0%"
    assert with_interval(math.nan, math.nan, math.nan) == MISSING
    assert short(1e-4) == "1e-4"
    assert points(-0.0251) == "\N{MINUS SIGN}2.5"
    assert points(-0.0001) == "0.0"
    assert points(math.nan) == MISSING
    assert percent(0.2512) == "25.1%"
    assert interval(0.1, math.nan) == MISSING
