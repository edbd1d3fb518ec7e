"""What the tables of nulls say, against the files that they come from and against plain arithmetic."""

import math

import numpy as np
import pytest

from opdlib import tables
from opdlib.measurement.schedule import EVERYTHING
from opdlib.results.measure import measure
from opdlib.tables import Results, nulls, paper_nulls
from tests.conftest import Weights, write_checkpoint


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory, weights: tuple[Weights, Weights]) -> Results:
    before, after = (write_checkpoint(tmp_path_factory.mktemp(n), w) for n, w in zip("ab", weights, strict=True))
    return measure(before, after, metrics=EVERYTHING)


def test_binades_are_those_of_the_update_with_what_noise_would_change(drawn: Results) -> None:
    table = nulls.binades(drawn)
    assert table.drop(columns="expected").equals(tables.magnitude(drawn).drop(columns="expected"))
    whole = float((table["expected"] * table["coordinates"]).sum() / table["coordinates"].sum())
    assert whole == pytest.approx(1 - drawn.summary["nulls"]["visibility"]["exact_zero"], rel=1e-9)


def test_verdicts_are_those_of_the_summary(drawn: Results) -> None:
    table = nulls.verdicts(drawn).set_index(["null", "quantity"])
    row = table.loc[("visibility", "coverage.low.0.1")]
    summary = drawn.summary
    assert row["observed"] == summary["coverage"]["low"]["0.1"]
    assert row["expected"] == summary["nulls"]["visibility"]["coverage"]["low"]["0.1"]
    assert row["ratio"] == summary["explained"]["visibility"]["coverage.low.0.1"]["ratio"]
    changed = table.loc[("visibility", "changed")]
    assert changed["observed"] == 1 - summary["exact_zero"]
    assert changed["expected"] == 1 - summary["nulls"]["visibility"]["exact_zero"]
    assert ("permutation", "changed") not in table.index, "an identity"
    text = nulls.shown(nulls.verdicts(drawn))
    assert len(text) == len(table)
    assert text["observed"].iloc[0].endswith("%")


def test_without_nulls_there_are_no_verdicts(unchanged: Results) -> None:
    assert nulls.verdicts(unchanged).empty
    assert nulls.shown(nulls.verdicts(unchanged)).empty
    assert nulls.spectra(unchanged).empty


def test_the_three_spectra(drawn: Results, stored: Results) -> None:
    table = nulls.spectra(drawn, stored)
    assert [*dict.fromkeys(table["kind"])] == [*nulls.KINDS]
    for kind, view in zip(nulls.KINDS, (stored, drawn), strict=False):
        own = table[table["kind"] == kind]["value"].to_numpy()
        assert own == pytest.approx(tables.geometry.spectrum(view)["value"].to_numpy(), nan_ok=True)
    assert [*dict.fromkeys(nulls.spectra(drawn)["kind"])] == [*nulls.KINDS[1:]]


def test_shares_of_the_blocks(drawn: Results) -> None:
    table = nulls.shares(drawn).set_index("block")
    assert table["parameter_share"].sum() == pytest.approx(1)
    assert table["inner_energy_share"].sum() == pytest.approx(1)
    assert math.isnan(table.loc["embedding", "inner_energy_share"])


def test_noise_over_gaussian_weights_is_that_of_draws() -> None:
    """A square Gaussian source, rounded; the masks as they are defined."""
    rng = np.random.default_rng(0)
    source = tables.rounding.to_bf16(0.03 * rng.standard_normal((400, 400)))
    u, s, vh = np.linalg.svd(source)
    principal = np.abs((u[:, :40] * s[:40]) @ vh[:40])
    masks = {
        "low": np.abs(source) <= np.quantile(np.abs(source), 0.1),
        "principal": principal >= np.quantile(principal, 0.9),
    }
    curve = paper_nulls.curve()
    for scale in (2e-5, 1e-4, 4e-4):
        changed = tables.rounding.to_bf16(source + scale * rng.standard_normal(source.shape)) != source
        for mask, inside in masks.items():
            expected = np.interp(changed.mean(), curve["density"], curve[f"coverage.{mask}.0.1"])
            assert expected == pytest.approx(changed[inside].sum() / changed.sum(), rel=0.06)


def test_the_papers_rows_lie_at_or_below_noise_on_small_weights() -> None:
    table = paper_nulls.coverage().set_index("pair")
    assert 1.0 < table["ratio_low"].min() < table["ratio_low"].max() < 1.31
    assert table.loc["Qwen2.5-VL OPD", "density"] == pytest.approx(0.3587)


def test_overlaps_by_hand() -> None:
    """The first row, bin by bin: coverage differences times density over the width of the bin."""
    a, b = np.array([78.3, 74.1, 66.6, 54.1, 12.7]), np.array([75.0, 71.5, 63.8, 51.0, 7.6])
    widths = np.array([1, 4, 5, 10, 80])
    table = paper_nulls.overlap()
    assert table["magnitude"][0] == pytest.approx((widths * a * b).sum() / (widths * a).sum() / 100, rel=0.02)
    assert table["random"].tolist() == [0.175, 0.3328, 0.2957]
    assert (table["random"] < table["magnitude"]).all()
    assert (table["magnitude"] < table["o1"]).all()
