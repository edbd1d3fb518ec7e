"""Tables on rank and subspaces: they agree with the summary, with the weights, and with the paper's arithmetic."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from opdlib.checkpoints import open_checkpoint
from opdlib.errors import ParameterError, RegistryError
from opdlib.metrics.subspace import expected_projection, rank_of
from opdlib.pairs import registry
from opdlib.recording import measure_into
from opdlib.tables import (
    Results,
    geometry,
    magnitude,
    open_results,
    paper,
    paper_geometry,
    rounding,
    subspace,
    words,
    written,
)
from opdlib.tables import results as of_results
from opdlib.tables.quantities import name_of
from opdlib.tables.quantities import written as text_of
from tests.conftest import Weights, moved, pico_weights, write_checkpoint
from tests.results_of import deep_pair, results_of

SHARES = (0.01, 0.05, 0.1, 0.2)
UP = "model.layers.0.mlp.up_proj.weight"


@pytest.fixture(scope="module")
def weights() -> tuple[Weights, Weights]:
    return deep_pair(2)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, weights: tuple[Weights, Weights]) -> Results:
    return results_of(tmp_path_factory.mktemp("bf16"), *weights)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory, weights: tuple[Weights, Weights]) -> Results:
    return results_of(tmp_path_factory.mktemp("stored"), *weights, view="stored")


@pytest.fixture(scope="module")
def unchanged(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return results_of(tmp_path_factory.mktemp("same"), pico_weights(), pico_weights())


def one_matrix(folder: Path, source: torch.Tensor, trained: torch.Tensor, view: str = "bf16") -> Results:
    return results_of(folder, {UP: source}, {UP: trained}, view)


def distinct(generator: torch.Generator) -> torch.Tensor:
    """A 32 x 32 matrix of bf16 numbers, no two of which have the same absolute value."""
    values = torch.tensor([2.0**e * (1 + m / 128) for e in range(-8, 0) for m in range(128)])
    signs = torch.randint(0, 2, (1024,), generator=generator) * 2 - 1
    return (values * signs)[torch.randperm(1024, generator=generator)].reshape(32, 32).bfloat16()


# Names.


@pytest.mark.parametrize("view", ["bf16", "stored"])
def test_medians_are_those_of_the_summary(view: str) -> None:
    """For every number of the second block, on the committed results."""
    results = open_results("smollm2-opd", view)
    summary = results.summary
    found = geometry.spread(results).set_index("quantity")
    medians = found["value"]
    wanted = {
        **{name_of("energy_top", at=int(k)): v for k, v in summary["svd_energy"].items()},
        **{name_of("energy_rank", at=float(s)): v for s, v in summary["svd_energy_rank"].items()},
        **{name_of("rank_share", at=float(t)): v for t, v in summary["rank_share"].items()},
        **{name_of(metric): summary[metric] for metric in ("stable_rank", "effective_rank", "hill_exponent")},
        name_of("spectral_drift", "source"): summary["spectral_drift"],
        name_of("spectral_drift", "delta"): summary["spectral_drift_delta"],
        name_of("sine_mean", "left"): summary["rotation"]["0.1"],
        **{name_of(f"sine_{what}", s): v for s, whats in summary["sines"].items() for what, v in whats.items()},
        **{name_of("projection", s, float(q)): v for s, qs in summary["projection"].items() for q, v in qs.items()},
        **{name_of("coverage", m, float(q)): v for m, qs in summary["coverage"].items() for q, v in qs.items()},
        **{
            name_of("coverage", m, float(q), 1e-5): v
            for m, qs in summary["coverage_1e-05"].items()
            for q, v in qs.items()
        },
        **{name_of("coverage_ceiling", at=float(q)): v for q, v in summary["coverage_ceiling"]["low"].items()},
        **{name_of("changed_in", m, float(q)): v for m, qs in summary["changed_in"].items() for q, v in qs.items()},
    }
    assert {name: medians[name] for name in wanted} == pytest.approx(wanted, rel=1e-10)
    assert set(found["matrices"]) == {summary["measured_2d"]}
    chance = {
        name_of("projection", s, float(q)): v for s, qs in summary["projection_expected"].items() for q, v in qs.items()
    }
    assert {name: found["expected"][name] for name in chance} == pytest.approx(chance, rel=1e-10)


def test_every_number_has_a_name_of_its_own(results: Results) -> None:
    rows = geometry.matrices(results)
    assert rows["quantity"].notna().all()
    assert not rows.duplicated(["tensor", "expert", "quantity"]).any()
    assert len(rows) == len(results.read("geometry"))


def test_names() -> None:
    assert name_of("energy_top", at=16.0) == "top 16"
    assert name_of("projection", "joint", 0.1) == "joint projection, 10%"
    assert name_of("rank_share", at=1e-5) == "rank above 1e-5"
    assert name_of("coverage", "nonprincipal_or_low", 0.01, 0.0) == "nonprincipal or low coverage, 1%"
    assert name_of("density", atol=1e-5) == "changed (above 1e-5)"


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("top 16", 0.4038, "40.38%"),
        ("joint projection, 1%", 0.000037, "0.0037%"),
        ("joint projection, 1%", 0.0, "0.00%"),
        ("stable rank, bf16", 8.277, "8.28"),
        ("effective rank", 405.5, "406"),
        ("mean sine, left", 6.52e-4, "6.5e-4"),
        ("to", 0.0, "0"),
        ("top 1", math.nan, "-"),
    ],
)
def test_values_for_the_eye(name: str, value: float, text: str) -> None:
    assert text_of(name, value) == text


# Medians and quartiles.


def test_quartiles_over_matrices(results: Results) -> None:
    values = geometry.matrices(results).query("quantity == 'stable rank'")["value"].to_numpy()
    row = geometry.spread(results, ["stable rank"]).iloc[0]
    assert len(values) == 15
    assert list(row[["low", "value", "high"]]) == pytest.approx(list(np.quantile(values, [0.25, 0.5, 0.75])), rel=1e-12)


def test_a_ratio_is_taken_in_every_matrix(results: Results) -> None:
    rows = geometry.matrices(results).query("quantity == 'left projection, 10%'")
    row = geometry.spread(results, ["left projection, 10%"]).iloc[0]
    assert row["ratio"] == pytest.approx(np.median(rows["value"] / rows["expected"]), rel=1e-12)
    assert row["ratio"] != pytest.approx(row["value"] / row["expected"], rel=1e-3)


def test_by_module_in_the_order_of_every_table(results: Results) -> None:
    table = geometry.spread(results, ["top 1", "stable rank"], "module")
    wanted = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "embed_tokens"]
    assert list(table["module"].drop_duplicates()) == wanted
    assert table["matrices"].sum() == 2 * results.summary["measured_2d"]


def test_the_spectrum_uses_every_row_of_the_results(results: Results, weights: tuple[Weights, Weights]) -> None:
    table = geometry.spectrum(results)
    rows = geometry.matrices(results).query("metric == 'energy_at'")
    assert table["matrices"].sum() == len(rows)
    assert set(table["rank"]) == {16}
    delta = {n: weights[1][n].bfloat16().double() - w.double() for n, w in weights[0].items() if w.ndim == 2}
    largest = []
    for matrix in delta.values():
        sigma = torch.linalg.svdvals(matrix)
        largest.append(float(sigma[0] ** 2 / (sigma**2).sum()))
    first = table[table["index"] == 1].iloc[0]
    assert first["value"] == pytest.approx(np.median(largest), rel=1e-9)


def test_the_commonest_size_comes_first() -> None:
    table = geometry.spectrum(open_results("smollm2-opd"))
    assert list(table["rank"].drop_duplicates()) == [576, 192]
    assert list(table["matrices"].drop_duplicates()) == [151, 60]


def test_what_nobody_measured_is_an_error(results: Results, tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match=r"'top 3' was not measured; there are .*top 16"):
        geometry.spread(results, ["top 3"])
    with pytest.raises(ParameterError, match=r"'joint projection, 30%' was not measured"):
        subspace.projection(results, [0.3])
    before, after = (
        write_checkpoint(tmp_path / n, w) for n, w in (("a", pico_weights()), ("b", moved(pico_weights())))
    )
    sides = (open_checkpoint(str(side)) for side in (before, after))
    measure_into(tmp_path / "r", *sides, name="sparse", metrics=("sparsity",))
    with pytest.raises(RegistryError, match="sparse: only its sparsity was measured; measure it again without --only"):
        geometry.spread(Results(tmp_path / "r"))
    assert not geometry.has_geometry(Results(tmp_path / "r"))


def test_each_fused_expert_is_a_matrix(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    name = "model.layers.0.mlp.experts.gate_up_proj"
    source = {name: torch.randn(3, 12, 10, generator=generator).bfloat16() * 0.02, **pico_weights(1)}
    views = [results_of(tmp_path, source, moved(source, dtype=torch.float32), view) for view in ("bf16", "stored")]
    table = geometry.spread(views[0], ["stable rank"], "tensor").set_index("tensor")
    assert table.loc[name, "matrices"] == 3
    assert set(geometry.spectrum(views[0])["rank"]) == {10, 16}
    assert subspace.changed(views[0]).notna().all(axis=None)
    assert rounding.budget(*views)["stored"].sum() == pytest.approx(1)


def test_other_pairs_are_those_of_the_registry(results: Results) -> None:
    assert geometry.others(results) == []
    known = geometry.others(open_results("smollm2-opd"))
    assert "smollm2-opd-s0" not in [other.summary["pair"] for other in known]
    assert all(geometry.has_geometry(other) for other in known)


def test_a_pair_that_is_measured_later_has_its_row(
    results: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(results.folder, tmp_path / "results" / "minicpm-opd")
    shutil.copytree(open_results("smollm2-opd").folder, tmp_path / "results" / "smollm2-opd-s0")
    for module in (geometry, of_results):
        monkeypatch.setattr(module, "data_root", lambda: tmp_path)
    (other,) = geometry.others(Results(tmp_path / "results" / "smollm2-opd-s0"))
    assert (other.title, other.pair and other.pair.regime) == ("MiniCPM OPD", "OPD")


# Where a change points.


def test_chance_is_that_of_the_metrics() -> None:
    table = paper_geometry.chance(paper.read("shapes"), 0.1)
    for row in table.itertuples():
        shape = (row.rows, row.columns)
        assert row.k == rank_of(0.1, shape)
        assert row.expected == pytest.approx(expected_projection(shape).joint[0.1], rel=1e-12)


def test_a_joint_projection_of_the_paper_is_more_than_chance_for_ds_qwen_shapes() -> None:
    """The arithmetic by hand: seven shapes a layer, k = 153 or 25."""
    by_hand = sorted([153**2 / 1536**2] * 2 + [25**2 / (256 * 1536)] * 2 + [153**2 / (8960 * 1536)] * 3)[3]
    table = paper_geometry.projection().set_index("pair")
    assert table.loc["DS-Qwen OPD", "expected"] == pytest.approx(by_hand, rel=1e-12)
    assert table.loc["DS-Qwen OPD", "ratio"] == pytest.approx(0.0037 / by_hand, rel=1e-12)
    assert (table["ratio"].dropna() > 1).all()
    assert list(table.index[table["expected"].isna()]) == ["MiniCPM OPD"]
    assert "2.2 times" in words.chance("deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B", "DS-Qwen OPD")


def test_shapes_are_those_of_models_in_the_registry() -> None:
    sources = {pair.source for pair in registry().values() if pair.paper}
    listed = set(paper.read("shapes")["source"])
    assert listed <= sources
    assert sources - listed == {"openbmb/MiniCPM5-1B-SFT"}


def test_an_isotropic_change_is_as_near_to_the_source_as_chance(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    source = torch.randn(300, 200, generator=generator).bfloat16()
    trained = source.double() + 0.01 * torch.randn(300, 200, generator=generator).double()
    table = subspace.projection(one_matrix(tmp_path, source, trained.float(), "stored"), SHARES)
    assert len(table) == 12
    assert table[table["share"] >= 0.1]["ratio"].to_list() == pytest.approx([1] * 6, abs=0.1)


# Which weights changed.


def test_changed_by_size_is_what_counting_gives(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(1)
    source = distinct(generator)
    trained = (source.float() + 1e-3 * torch.randn(32, 32, generator=generator)).bfloat16()
    row = subspace.changed(one_matrix(tmp_path, source, trained)).iloc[0]
    order = source.abs().flatten().float().argsort()
    hit = (source != trained).flatten()[order].double()
    for share in SHARES:
        assert row[f"bottom {100 * share:g}%"] == pytest.approx(float(hit[: math.ceil(share * 1024)].mean()), rel=1e-9)
    assert row["upper 80%"] == pytest.approx(float(hit[math.ceil(0.2 * 1024) :].mean()), rel=1e-9)
    assert row["changed"] == pytest.approx(float(hit.mean()), rel=1e-9)


def test_the_arithmetic_on_one_matrix_is_the_measurement_but_for_the_size_of_the_mask(tmp_path: Path) -> None:
    """With one matrix there is nothing to mix: ceil(share * n) places against share * n."""
    generator = torch.Generator().manual_seed(1)
    source = distinct(generator)
    trained = (source.float() + 1e-3 * torch.randn(32, 32, generator=generator)).bfloat16()
    results = one_matrix(tmp_path, source, trained)
    direct, sums = subspace.changed(results).iloc[0], subspace.changed_by_arithmetic(results).iloc[0]
    assert sums["bottom 20%"] == pytest.approx(direct["bottom 20%"] * math.ceil(204.8) / 204.8, rel=1e-9)
    assert sums["principal 10%"] == pytest.approx(direct["principal 10%"] * math.ceil(102.4) / 102.4, rel=1e-9)


def test_coverage_beside_its_bounds(results: Results) -> None:
    table = subspace.coverage(results, SHARES)
    assert len(table) == 16
    numbers = table[["coverage", "ceiling", "inside", "anywhere"]]
    assert ((numbers >= 0) & (numbers <= 1)).all(axis=None)
    assert (table["coverage"] <= table["ceiling"] + 1e-9).all()
    exact = table[(table["atol"] == 0) & (table["mask"] == "low")].set_index("share")
    assert exact["coverage"].to_dict() == pytest.approx(
        {float(s): v for s, v in results.summary["coverage"]["low"].items()}, rel=1e-9
    )


def test_deciles_share_out_the_binades(tmp_path: Path) -> None:
    """128 weights a binade: tenths of 102.4 weights, each a mixture of at most two of them."""
    generator = torch.Generator().manual_seed(2)
    source = distinct(generator)
    noise = 1e-3 * torch.randn(32, 32, generator=generator)
    views = [one_matrix(tmp_path / v, source, source.float() + noise, v) for v in ("bf16", "stored")]
    binades = magnitude(*views)
    table = subspace.deciles(binades)
    assert table["share"].mean() == pytest.approx((binades["share"] * binades["coordinates"]).sum() / 1024, rel=1e-12)
    rates = binades.set_index("magnitude")["share"]
    assert table["share"][0] == pytest.approx(rates[2.0**-8], rel=1e-12)
    second = (25.6 * rates[2.0**-8] + 76.8 * rates[2.0**-7]) / 102.4
    assert table["share"][1] == pytest.approx(second, rel=1e-12)
    assert (table["from"][1], table["to"][1]) == (2.0**-8, 2.0**-7)
    assert table["expected"].notna().all()
    assert (table["expected"] - table["share"]).abs().max() < 0.2
    assert subspace.deciles(magnitude(views[0]))["expected"].isna().all()


# The paper's numbers.


def test_the_papers_tables_agree_with_each_other() -> None:
    """Table 2 repeats columns of Tables 9 and 10."""
    names = ["top 16", "stable rank", "principal coverage, 10%", "low coverage, 10%"]
    table = paper_geometry.overview(names)
    printed = paper.read("table2_global")
    assert list(table["pair"]) == list(printed["pair"])
    columns = ["top16_energy_pct", "stable_rank", "principal_coverage_10_pct", "low_magnitude_coverage_10_pct"]
    for name, column in zip(names, columns, strict=True):
        scale = 1 if column == "stable_rank" else 100
        assert (scale * table[name]).to_list() == pytest.approx(printed[column].to_list(), rel=1e-12)


def test_every_printed_number_is_there() -> None:
    table = paper_geometry.numbers()
    printed = [paper.read(name).drop(columns="pair").size for name in ("table9_spectrum", "table10_coverage")]
    assert len(table) == sum(printed)
    shares = table[table["quantity"] != "stable rank"]["value"]
    assert shares.between(0, 1).all()
    assert set(table.columns) <= {*geometry.spread(open_results("smollm2-opd")).columns}
    assert set(table["quantity"]) <= {*geometry.spread(open_results("smollm2-opd"))["quantity"]}


def test_the_papers_tables_turned_around() -> None:
    changed = paper_geometry.changed().set_index("pair")
    row = changed.loc["DS-Qwen OPD"]
    assert row["changed"] == pytest.approx(0.1798)
    assert row["bottom 10%"] == pytest.approx(0.3804 * 0.1798 / 0.1)
    assert row["upper 80%"] == pytest.approx((1 - 0.6678) * 0.1798 / 0.8)
    assert row["principal 10%"] == pytest.approx(0.0481 * 0.1798 / 0.1)
    ceilings = paper_geometry.coverage().set_index("pair")
    assert ceilings.loc["DS-Qwen OPD", "ceiling, 10%"] == pytest.approx(0.1 / 0.1798)
    assert (ceilings["low coverage, 10%"] <= ceilings["ceiling, 10%"]).all()


# Rounding.


@given(st.lists(st.floats(-1e30, 1e30).filter(lambda x: x == 0 or abs(x) > 1e-30), min_size=1))
def test_rounding_is_that_of_torch(values: list[float]) -> None:
    """Of numbers that float32 holds: torch goes through it."""
    numbers = torch.tensor(values, dtype=torch.float32)
    assert rounding.to_bf16(numbers.double().numpy()).tolist() == numbers.bfloat16().double().tolist()


def test_a_change_of_rank_one_looks_full_once_it_is_rounded() -> None:
    table = rounding.rounded_rank_one(1e-3).set_index("quantity")
    exact, rounded = table["exact"], table["rounded"]
    assert exact["top 1"] == pytest.approx(1)
    assert exact["rank above 1e-6"] == 1 / 256
    assert rounded["rank above 1e-5"] > 0.9
    assert rounded["top 1"] < 0.9
    assert rounded["stable rank"] == pytest.approx(1 / rounded["top 1"])
    nothing = rounding.rounded_rank_one(0.0).set_index("quantity")["rounded"]
    assert nothing["unchanged"] == 1
    assert nothing.drop("unchanged").isna().all()


def test_the_budget_of_a_rounding(results: Results, stored: Results, weights: tuple[Weights, Weights]) -> None:
    def energies(view: str) -> tuple[float, float]:
        inside = whole = 0.0
        for name, before in weights[0].items():
            after = weights[1][name]
            if before.ndim == 2:
                delta = (after.bfloat16() if view == "bf16" else after).double() - before.double()
                squares = torch.linalg.svdvals(delta) ** 2
                inside, whole = inside + float(squares[:2].sum()), whole + float(squares.sum())
        return inside, whole

    table = rounding.budget(results, stored, top=2).set_index("part")
    (rounded, after), (exact, before) = energies("bf16"), energies("stored")
    assert table.loc["top 2", "kept"] == pytest.approx(rounded / exact, rel=1e-9)
    assert table.loc["top 2", "stored"] == pytest.approx(exact / before, rel=1e-9)
    assert table.loc["all others", "bf16"] == pytest.approx((after - rounded) / before, rel=1e-9)


# Nothing changed; text.


def test_nothing_changed_is_a_dash_and_not_zero(unchanged: Results) -> None:
    names = geometry.spectrum_names([1], [1e-5])
    assert geometry.spread(unchanged).empty
    assert geometry.spectrum(unchanged).empty
    assert geometry.overview(unchanged, names)[names].isna().all(axis=None)
    assert subspace.joint(unchanged)[["value", "ratio"]].isna().all(axis=None)
    assert subspace.coverage(unchanged, SHARES)["coverage"].isna().all()
    assert subspace.changed(unchanged)["bottom 1%"].isna().all()
    shown = written.by_quantity([unchanged], paper_geometry.numbers(), names)
    assert set(shown["here, bf16"]) == set(shown["quartiles, bf16"]) == {"-"}
    assert len(written.by_module([unchanged], ["top 1"])) == 0
    assert rounding.budget(unchanged, unchanged)["stored"].isna().all()
    assert "0 matrices changed" in words.measured([unchanged])
    assert "15 (nothing changed)" in words.measured([unchanged])
    assert words.concentration([unchanged]) == words.moved([unchanged]) == "No matrix changed."
    assert "no projection" in words.projection([unchanged])


def test_tables_for_the_eye(results: Results, stored: Results) -> None:
    views = [results, stored]
    shown = written.by_quantity(views, paper_geometry.numbers(), ["top 1", "stable rank", "effective rank"])
    assert list(shown.columns) == [
        *(f"{what}, {view}" for view in ("bf16", "stored") for what in ("here", "quartiles")),
        *("paper low", "paper high"),
    ]
    assert shown.loc["top 1", "paper low"] == "4.92%"
    assert shown.loc["effective rank", "paper high"] == "-"
    modules = written.by_module(views, ["joint projection, 10%"], "ratio")
    assert list(modules.columns) == ["matrices", "joint projection, 10%, bf16", "joint projection, 10%, stored"]
    assert modules.loc["embed_tokens", "matrices"] == 1
    table = pd.DataFrame({"pair": ["a", ""], "k": [1536, 2], "ratio": [2.184, math.nan], "top 1": [0.5, 1e-5]})
    assert written.cells(table, "pair", "k", "ratio", "top 1").loc["a"].tolist() == ["1,536", "2.18", "50.00%"]
    renamed = written.renamed(written.cells(table, "pair", "k"), {"pair": "mask", "k": "size"})
    assert (renamed.columns.name, list(renamed.columns)) == ("mask", ["size"])


def test_a_vision_module_says_so(tmp_path: Path) -> None:
    source = pico_weights() | {"visual.blocks.0.attn.qkv.weight": torch.ones(8, 8).bfloat16()}
    shown = written.by_module([results_of(tmp_path, source, moved(source, 1e-2))], ["stable rank"])
    assert shown.index[-1] == "vision: qkv"


def test_sentences(results: Results, stored: Results) -> None:
    assert "In view `bf16` 15 matrices changed and have numbers; tensors without any: " in words.measured([results])
    assert "in view `bf16` and" in words.concentration([results, stored])
    assert words.projection([results, stored]).count("Taken matrix by matrix") == 2
    assert words.moved([results]).startswith("In view `bf16`, ")
