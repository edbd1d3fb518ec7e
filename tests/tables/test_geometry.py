"""Tables on rank and subspaces: they agree with the summary, with the weights, and with the paper's arithmetic."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from opdlib.checkpoints import open_checkpoint
from opdlib.errors import ParameterError, RegistryError
from opdlib.quantities import flat, quantity
from opdlib.results import layout as of_layout
from opdlib.results import open as of_results
from opdlib.results.measure import measure_into
from opdlib.tables import Results, geometry, open_results, rounding, subspace
from tests.conftest import Weights, moved, pico_weights, write_checkpoint
from tests.tables.results_of import results_of


@pytest.mark.parametrize("view", ["bf16", "stored"])
def test_medians_are_those_of_the_summary(view: str) -> None:
    """For every number of the second block, on the committed results."""
    results = open_results("smollm2-opd", view)
    summary = dict(flat(results.summary))
    found = geometry.spread(results).set_index("quantity")
    wanted = {key: summary[key] for key in found.index if key in summary}
    assert len(wanted) > 70
    assert {key: found["value"][key] for key in wanted} == pytest.approx(wanted, rel=1e-10)
    assert found["value"]["sines.left.mean"] == pytest.approx(summary["rotation.0.1"], rel=1e-10)
    assert set(found["matrices"]) == {summary["measured_2d"]}
    chance = {key: summary[quantity(key).chance] for key in found.index if key.startswith("projection.")}
    assert len(chance) == 12
    assert {key: found["expected"][key] for key in chance} == pytest.approx(chance, rel=1e-10)


def test_every_number_has_a_name_of_its_own(results: Results) -> None:
    rows = geometry.matrices(results)
    assert rows["quantity"].notna().all()
    assert not rows.duplicated(["tensor", "expert", "quantity"]).any()
    assert len(rows) == len(results.read("geometry"))


def test_quartiles_over_matrices(results: Results) -> None:
    values = geometry.matrices(results).query("quantity == 'stable_rank'")["value"].to_numpy()
    row = geometry.spread(results, ["stable_rank"]).iloc[0]
    assert len(values) == 15
    assert list(row[["low", "value", "high"]]) == pytest.approx(list(np.quantile(values, [0.25, 0.5, 0.75])), rel=1e-12)


def test_a_ratio_is_taken_in_every_matrix(results: Results) -> None:
    rows = geometry.matrices(results).query("quantity == 'projection.left.0.1'")
    row = geometry.spread(results, ["projection.left.0.1"]).iloc[0]
    assert row["ratio"] == pytest.approx(np.median(rows["value"] / rows["expected"]), rel=1e-12)
    assert row["ratio"] != pytest.approx(row["value"] / row["expected"], rel=1e-3)


def test_by_module_in_the_order_of_every_table(results: Results) -> None:
    table = geometry.spread(results, ["svd_energy.1", "stable_rank"], "module")
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
        geometry.spread(results, ["svd_energy.3"])
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


@pytest.mark.slow
def test_each_matrix_of_fused_experts_has_a_row_of_its_own(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    at = "model.layers.0.mlp.experts"
    source = {f"{at}.gate_up_proj": torch.randn(3, 24, 10, generator=generator).bfloat16() * 0.02, **pico_weights(1)}
    views = [results_of(tmp_path, source, moved(source, dtype=torch.float32), view) for view in ("bf16", "stored")]
    table = geometry.spread(views[0], ["stable_rank"], "tensor").set_index("tensor")
    names = [f"{at}.{expert}.{word}_proj.weight" for expert in range(3) for word in ("gate", "up")]
    assert table.loc[names, "matrices"].tolist() == [1] * 6
    assert table.loc[names, "module"].tolist() == ["gate_proj", "up_proj"] * 3
    assert set(geometry.spectrum(views[0])["rank"]) == {10, 16}
    assert set(views[0].matrices["expert"].dropna()) == {0, 1, 2}
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
    for module in (of_layout, of_results):
        monkeypatch.setattr(module, "data_root", lambda: tmp_path)
    (other,) = geometry.others(Results(tmp_path / "results" / "smollm2-opd-s0"))
    assert (other.title, other.pair and other.pair.regime) == ("MiniCPM OPD", "OPD")
