"""The paper's tables on rank and subspaces agree with each other and with arithmetic."""

import math

import pytest

from opdlib.metrics.subspace import expected_projection, rank_of
from opdlib.quantities import find
from opdlib.registry.pairs import registry
from opdlib.tables import geometry, open_results, paper, paper_geometry


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
    source = "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B"
    assert paper_geometry.median_chance(source) == pytest.approx(by_hand, rel=1e-12)


def test_shapes_are_those_of_models_in_the_registry() -> None:
    sources = {pair.source for pair in registry().values() if pair.paper}
    listed = set(paper.read("shapes")["source"])
    assert listed <= sources
    assert sources - listed == {"openbmb/MiniCPM5-1B-SFT"}


def test_the_papers_tables_agree_with_each_other() -> None:
    """Table 2 repeats columns of Tables 9 and 10."""
    names = ["svd_energy.16", "stable_rank", "coverage.principal.0.1", "coverage.low.0.1"]
    table = paper.wide(names)
    printed = paper.read("table2_global")
    assert list(table["pair"]) == list(printed["pair"])
    columns = ["top16_energy_pct", "stable_rank", "principal_coverage_10_pct", "low_magnitude_coverage_10_pct"]
    for name, column in zip(names, columns, strict=True):
        scale = 1 if column == "stable_rank" else 100
        assert (scale * table[name]).to_list() == pytest.approx(printed[column].to_list(), rel=1e-12)


def test_the_span_of_the_opd_style_pairs() -> None:
    low, high = paper.span("svd_energy.16")
    assert (100 * low, 100 * high) == pytest.approx((19.69, 40.94))
    assert all(map(math.isnan, paper.span("hill_exponent")))


def test_every_printed_number_is_there() -> None:
    """Once: Table 2 repeats columns of the other tables, and only its relative norm is taken."""
    table = paper.numbers()
    files = {name: paper.read(name).drop(columns="pair") for name in paper.PRINTED}
    for name, file in files.items():
        assert name == "table2_global" or set(file) <= set(paper.PRINTED[name]), name
    printed = [file[[column for column in file if column in paper.PRINTED[name]]] for name, file in files.items()]
    assert len(table) == sum(int(file.count().sum()) for file in printed)
    assert not table.duplicated(["pair", "quantity"]).any()
    assert all(find(key) for key in table["quantity"])
    assert table[table["quantity"] != "stable_rank"]["value"].between(0, 1).all()
    geometrical = table[table["quantity"].str.match("svd|stable|rank_share|projection|coverage")]
    assert set(geometrical["quantity"]) <= {*geometry.spread(open_results("smollm2-opd"))["quantity"]}


def test_the_papers_tables_turned_around() -> None:
    changed = paper_geometry.changed().set_index("pair")
    row = changed.loc["DS-Qwen OPD"]
    assert row["density"] == pytest.approx(0.1798)
    assert row["changed_in.low.0.1"] == pytest.approx(0.3804 * 0.1798 / 0.1)
    assert row["changed_above.0.2"] == pytest.approx((1 - 0.6678) * 0.1798 / 0.8)
    assert row["changed_in.principal.0.1"] == pytest.approx(0.0481 * 0.1798 / 0.1)
    ceilings = paper_geometry.coverage().set_index("pair")
    assert ceilings.loc["DS-Qwen OPD", "coverage_ceiling.0.1"] == pytest.approx(0.1 / 0.1798)
    assert (ceilings["coverage.low.0.1"] <= ceilings["coverage_ceiling.0.1"]).all()
