"""Tables: they add up to the model, they agree with the summary and with the weights themselves."""

import dataclasses
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from opdlib import tables
from opdlib.errors import ParameterError, RegistryError
from opdlib.tables import Results, measured, paper
from opdlib.tables.overall import overall
from tests.conftest import Weights, moved, pico_weights, reseal
from tests.tables.results_of import deep_pair, results_of

FIRST_COLUMNS = ["pair", "regime", "origin", "view"]


@pytest.fixture(scope="module")
def weights() -> tuple[Weights, Weights]:
    return deep_pair()


def flat(weights: Weights) -> np.ndarray:
    return torch.cat([weights[n].to(torch.bfloat16).double().flatten() for n in sorted(weights)]).numpy()


TABLES: list[Callable[[Results], pd.DataFrame]] = [
    tables.sparsity,
    tables.movement,
    tables.movement,
    tables.layers,
    tables.energy,
    tables.curve,
    tables.magnitude,
    tables.overview,
]


@pytest.mark.parametrize("table", TABLES, ids=lambda f: f.__name__)
@pytest.mark.parametrize("view", ["bf16", "stored"])
def test_every_table_says_its_view(
    table: Callable[[Results], pd.DataFrame], view: str, results: Results, stored: Results
) -> None:
    made = table(results if view == "bf16" else stored)
    assert list(made.columns[:4]) == FIRST_COLUMNS
    assert set(made["view"]) == {view}
    assert set(made["origin"]) == {"here"}


@pytest.mark.parametrize("by", measured.GROUPS)
def test_groups_add_up_to_the_model(by: str, results: Results) -> None:
    model = tables.sparsity(results).set_index(["rule", "threshold"])[["parameters", "unchanged"]]
    grouped = tables.sparsity(results, by).groupby(["rule", "threshold"], observed=True)[["parameters", "unchanged"]]
    pd.testing.assert_frame_equal(grouped.sum(), model)
    shares = tables.movement(results, by)
    assert shares["energy_share"].sum() == pytest.approx(1)
    assert shares["parameter_share"].sum() == pytest.approx(1)


def test_each_number_stands_beside_its_own_chance_and_what_was_not_measured_is_left_out(results: Results) -> None:
    summary = results.summary
    table = overall(summary).set_index("quantity")
    for mask in ("principal_not_low", "nonprincipal_or_low"):
        assert table["chance"][f"coverage.{mask}.0.1"] == summary["coverage_expected"][mask]["0.1"]
    newer = {"delta_abs", "coverage_pooled", "enrichment", "rotation", "coverage_expected"}
    before = {key: value for key, value in summary.items() if key not in newer}
    old = overall(before | {"rotation": {"0.1": summary["rotation"]["0.1"]}}).set_index("quantity")
    assert {key.split(".")[0] for key in table.index.difference(old.index)} == newer - {"coverage_expected"}
    assert old["value"].to_dict() == table["value"].reindex(old.index).to_dict()
    assert math.isnan(old["chance"]["coverage.nonprincipal_or_low.0.1"])


def test_tables_agree_with_the_summary(results: Results) -> None:
    summary = results.summary
    shares = tables.sparsity(results).set_index(["rule", "threshold"])["share"]
    assert shares["exact", 0.0] == summary["exact_zero"]
    assert shares["ulp", 1e-3] == summary["sparsity_ulp"]["1e-03"]
    for rule, key in (("absolute", "sparsity"), ("relative", "sparsity_rms")):
        assert {t: shares[rule, float(t)] for t in summary[key]} == summary[key]
    blocks = tables.movement(results).set_index("block")
    assert list(blocks.index) == [b for b in ("attention", "mlp", "embedding", "norm") if b in summary["blocks"]]
    inside = blocks.drop(index=["embedding", "lm_head"], errors="ignore")
    for of in ("energy", "parameter"):
        blocks[f"inner_{of}_share"] = blocks[f"{of}_share"] / inside[f"{of}_share"].sum()
    for block, numbers in summary["blocks"].items():
        assert {k: blocks.loc[block, k] for k in numbers} == pytest.approx(numbers, rel=1e-12)
    layers = tables.layers(results).dropna(subset=["layer"])
    assert list(layers["layer"]) == [row["layer"] for row in summary["layers"]]
    assert list(layers["rel_norm"]) == pytest.approx([row["rel_norm"] for row in summary["layers"]], rel=1e-12)
    assert list(layers["sparsity"]) == [row["sparsity"]["1e-05"] for row in summary["layers"]]
    energy = tables.energy(results).set_index(["ranking", "top"])["share"]
    for ranking, key in (("per tensor", "top_energy"), ("whole model", "top_energy_global")):
        assert {s: energy[ranking, float(s)] for s in summary[key]} == pytest.approx(summary[key], rel=1e-12)


def test_tensors_outside_the_stack_are_a_row_of_their_own(results: Results) -> None:
    layers = tables.layers(results)
    outside = layers[layers["layer"].isna()]
    assert len(outside) == 1
    assert len(layers) == 10
    table = tables.sparsity(results, "layer and module")
    assert set(table[table["layer"].isna()]["module"]) == {"embed_tokens", "norm"}


def test_the_curve_is_the_share_below_each_threshold(results: Results, weights: tuple[Weights, Weights]) -> None:
    curve = tables.curve(results)
    change = np.abs(flat(weights[1]) - flat(weights[0]))
    assert curve["threshold"].iloc[0] == 0
    assert curve["share"].iloc[0] == np.mean(change == 0)
    assert curve["share"].is_monotonic_increasing
    for row in curve.iloc[1::40].itertuples():
        assert row.share == np.mean(change < row.threshold)


def test_change_by_binade_and_what_rounding_alone_would_give(
    results: Results, stored: Results, weights: tuple[Weights, Weights]
) -> None:
    table = tables.magnitude(results, stored)
    source = flat(weights[0])
    changed = flat(weights[1]) != source
    exact = np.concatenate(
        [(weights[1][n].double() - weights[0][n].double()).flatten().numpy() for n in sorted(weights[0])]
    )
    assert table["coordinates"].sum() == len(source)
    for row in table[table["magnitude"] > 0].itertuples():
        here = (np.abs(source) >= row.magnitude) & (np.abs(source) < 2 * row.magnitude)
        assert row.coordinates == here.sum()
        assert row.share == changed[here].mean()
        assert row.half_ulp == row.magnitude * 2.0**-8
        assert row.expected == pytest.approx(np.mean(np.abs(exact) >= row.half_ulp), abs=1e-12)


@pytest.mark.slow
def test_the_expected_change_comes_out_where_change_is_independent_of_size(tmp_path: Path) -> None:
    """The null model holds exactly for noise that does not look at the weight."""
    generator = torch.Generator().manual_seed(0)
    source = {"w": (torch.randn(400, 500, generator=generator) * 0.02).to(torch.bfloat16)}
    trained = {"w": source["w"].float() + 1e-4 * torch.randn(400, 500, generator=generator)}
    views = [results_of(tmp_path, source, trained, view) for view in ("bf16", "stored")]
    table = tables.well_populated(tables.magnitude(*views))
    assert len(table) > 4
    error = np.sqrt(0.25 / table["coordinates"])
    assert ((table["share"] - table["expected"]).abs() < 5 * error + 0.005).all()


def test_without_finer_weights_nothing_is_expected(results: Results, tmp_path: Path) -> None:
    source = pico_weights()
    coarse = results_of(tmp_path, source, moved(source), view="stored")
    assert tables.magnitude(results)["expected"].isna().all()
    assert tables.magnitude(results, coarse)["expected"].isna().all()


def test_there_is_always_a_well_populated_binade(results: Results) -> None:
    spread = pd.DataFrame({"magnitude": 2.0 ** np.arange(-126, 128), "coordinate_share": 1 / 254})
    assert len(tables.well_populated(spread)) == 254
    assert len(tables.well_populated(tables.magnitude(results)))


def test_a_value_that_nobody_measured_is_an_error(results: Results) -> None:
    with pytest.raises(ParameterError, match=r"threshold 3e-06 was not measured; there are 1e-08, 1e-07"):
        tables.layers(results, atol=3e-6)
    with pytest.raises(ParameterError, match=r"top 0.2 was not measured"):
        tables.energy(results, [0.2])
    with pytest.raises(ParameterError, match=r"cannot be grouped by 'head'"):
        tables.movement(results, "head")
    assert set(tables.sparsity(results, thresholds=[1e-5]).query("rule == 'absolute'")["threshold"]) == {1e-5}


def test_nothing_changed_is_undefined_and_not_zero(unchanged: Results) -> None:
    assert tables.movement(unchanged)["energy_share"].isna().all()
    assert tables.energy(unchanged)["share"].isna().all()
    assert (tables.movement(unchanged)["rel_norm"] == 0).all()
    shown = tables.readable(tables.movement(unchanged), "block", "energy_share", "exact_zero")
    assert set(shown["energy share"]) == {"-"}
    assert set(shown["exact zero"]) == {"100.00%"}


def test_vision_layers_are_a_stack_of_their_own(tmp_path: Path) -> None:
    source = pico_weights() | {"visual.blocks.0.attn.qkv.weight": torch.ones(8, 8, dtype=torch.bfloat16)}
    table = tables.layers(results_of(tmp_path, source, moved(source)))
    assert len(table[(table["layer"] == 0)]) == 2
    assert list(table["part"].astype(str)) == ["language"] * 3 + ["vision"]


def test_a_name_proves_nothing(results: Results, tmp_path: Path) -> None:
    """Anyone may call a folder `deepscaler-rlvr`; the specs of both sides decide."""
    assert results.pair is None
    folder = tmp_path / "copy"
    shutil.copytree(results.folder, folder)
    known = json.loads((folder / "provenance.json").read_text())
    specs = {"source": "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B", "trained": "agentica-org/DeepScaleR-1.5B-Preview"}
    renamed = {side: known[side] | {"spec": spec} for side, spec in specs.items()}
    for file, change in (("summary.json", {"pair": "deepscaler-rlvr"}), ("provenance.json", renamed)):
        path = folder / file
        path.write_text(json.dumps(json.loads(path.read_text()) | change))
        reseal(folder)
        assert (Results(folder).pair is not None) == (file == "provenance.json")
    assert Results(folder).title == "DeepScaleR RLVR"
    assert dataclasses.replace(Results(folder), name="mine").title == "mine"


def test_a_folder_without_its_files_says_so(results: Results, tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(results.folder, folder)
    (folder / "curve.csv").unlink()
    with pytest.raises(RegistryError, match=r"curve.csv: missing"):
        tables.curve(tables.open_results(folder))


def test_the_paper_has_the_shape_of_ours(results: Results) -> None:
    pairs = set(paper.overview()["pair"])
    assert len(pairs) == 10
    for published, ours in (
        (paper.sparsity(), tables.sparsity(results)),
        (paper.energy(), tables.energy(results)),
        (paper.overview(), tables.overview(results)),
        (paper.blocks(), tables.movement(results)),
    ):
        assert set(published.columns) <= set(ours.columns)
        assert set(published["view"]) == {"bf16"}
        assert published["regime"].isin({"OPD", "OPSD", "RLVR", "offline distillation"}).all()
        assert set(published["pair"]) <= pairs
        numbers = published.select_dtypes("number").drop(columns=["threshold", "atol", "top"], errors="ignore")
        assert ((numbers >= 0) & (numbers <= 1) | numbers.isna()).all(axis=None)


def test_the_papers_values() -> None:
    shares = paper.sparsity().set_index(["pair", "rule", "threshold"])["share"]
    assert shares["DS-Qwen OPD", "absolute", 1e-5] == pytest.approx(0.8258)
    assert shares["DeepScaleR RLVR", "exact", 0.0] == pytest.approx(0.7736)
    overview = paper.overview().set_index("pair")
    assert overview.loc["DS-Qwen OPD (JustRL)", "rel_norm"] == pytest.approx(0.00108)
    assert overview.loc["DS-Qwen OPD (JustRL)", "sparsity"] == pytest.approx(0.7043)
    assert paper.overview(1e-4).set_index("pair").loc["DS-Qwen OPD", "sparsity"] == pytest.approx(0.9835)
    assert paper.overview(1e-8)["sparsity"].isna().all()
    blocks = paper.blocks().set_index(["pair", "block"])
    assert blocks.loc[("DS-Qwen OPD", "mlp"), "energy_share"] == pytest.approx(0.8588)
    assert blocks.loc[("Qwen2.5-VL OPD", "vision"), "rel_norm"] == pytest.approx(0.00158)
    assert math.isnan(blocks.loc[("JustRL RLVR", "mlp"), "energy_share"])


def test_beside_the_paper(results: Results, stored: Results) -> None:
    ours = [tables.sparsity(view, thresholds=[1e-5]) for view in (results, stored)]
    table = tables.beside(ours, paper.sparsity(), ["rule", "threshold"]).set_index(["rule", "threshold"])
    row = table.loc[("absolute", 1e-5)]
    assert row["here, bf16"] == results.summary["sparsity"]["1e-05"]
    assert row["here, stored"] == stored.summary["sparsity"]["1e-05"]
    assert (row["paper_low"], row["paper_high"]) == pytest.approx((0.6672, 0.8950))
    assert math.isnan(table.loc[("ulp", 1e-3), "paper_low"])


def test_pairs_beside_each_other_have_columns_of_their_names(results: Results) -> None:
    other = dataclasses.replace(results, name="the other")
    ours = [tables.sparsity(pair, thresholds=[1e-5]) for pair in (results, other)]
    table = tables.beside(ours, paper.sparsity(), ["rule", "threshold"])
    columns = [f"{results.title}, bf16", "the other, bf16"]
    assert list(table.columns)[2:4] == columns
    assert "%" in tables.readable(table, "rule", *columns).iloc[0, 0]
    with pytest.raises(ParameterError, match="a name of its own"):
        tables.beside([ours[0], ours[0]], paper.sparsity(), ["rule", "threshold"])
    modules = tables.written.by_module([results, other], ["stable_rank"])
    assert [c.partition(", ")[2] for c in modules.columns[1:]] == columns


def test_readable_numbers() -> None:
    table = pd.DataFrame(
        {"pair": ["a", "b"], "threshold": [0.0, 1e-4], "rel_norm": [0.00108, math.nan], "parameters": [1234567, 1]}
    )
    shown = tables.readable(table, "pair", "threshold", "rel_norm", "parameters")
    assert shown.loc["a"].tolist() == ["0", "0.1080%", "1,234,567"]
    assert shown.loc["b"].tolist() == ["1e-4", "-", "1"]
