"""The registry of numbers: every number that is measured has a record, and a record has all that it needs."""

import itertools
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest

from opdlib import quantities
from opdlib.metrics import masks, subspace
from opdlib.quantities import families, find, flat, key_of, label, quantity, written
from opdlib.results.open import open_results

RESULTS = [open_results("smollm2-opd", view) for view in ("bf16", "stored")]


def committed() -> set[str]:
    """The keys of every number in the committed summaries and in their geometry.csv."""
    keys = {key for results in RESULTS for key, _ in flat(results.summary)}
    for results in RESULTS:
        rows = results.read("geometry").fillna({"side": ""})[["metric", "side", "at", "atol"]].drop_duplicates()
        keys |= {key_of(*row) for row in rows.itertuples(index=False)}
    return keys


def test_every_number_has_a_record_of_its_own_label() -> None:
    keys = committed()
    assert len(keys) > 400
    assert [key for key in keys if find(key) is None] == []
    assert len({label(key) for key in keys}) == len(keys)


def test_a_row_of_geometry_is_the_number_of_the_summary() -> None:
    """By value: the median over the rows of a key is what the summary has under it."""
    rows = RESULTS[0].read("geometry").fillna({"side": ""})
    columns = rows[["metric", "side", "at", "atol"]].itertuples(index=False)
    medians = rows.assign(key=[key_of(*row) for row in columns]).groupby("key")["value"].median()
    summary = dict(flat(RESULTS[0].summary))
    shared = medians.index.intersection(list(summary))
    assert len(shared) > 70
    assert medians[shared].to_dict() == pytest.approx({key: summary[key] for key in shared}, rel=1e-10)


NEWER = (
    *("delta_abs.mean", "delta_abs.max", "rotation.0.01", "coverage_pooled.low.0.1"),
    *("coverage_pooled.nonprincipal_or_low.0.1", "coverage_expected.principal_not_low.0.1"),
    *("enrichment.principal_not_low.0.1", "enrichment.nonprincipal_or_low.0.1"),
)
"""Numbers that no committed results have."""


def test_a_key_belongs_to_one_family() -> None:
    records = [record for subject in families().values() for record in subject]
    assert len({record.label for record in records}) == len(records)
    for key in (*committed(), *NEWER):
        observed = re.sub(r"^nulls\.[a-z_]+\.", "", key)
        assert sum(pattern.fullmatch(observed) is not None for pattern, _ in quantities._patterns()) == 1, key


def test_chance_and_ceiling_are_numbers_that_exist() -> None:
    for key, what in itertools.product(committed(), ("chance", "ceiling")):
        beside = getattr(quantity(key), what)
        assert not beside or find(beside) or 0 < float(beside) <= 1, key
    assert quantity("projection.left.0.05").chance == "projection_expected.left.0.05"
    assert quantity("coverage.low.0.1").chance == "0.1"
    assert quantity("coverage.nonprincipal_or_low.0.1").chance == "coverage_expected.nonprincipal_or_low.0.1"
    assert quantity("coverage.nonprincipal_or_low.0.1").ceiling == ""
    assert quantity("enrichment.principal_not_low.0.1").chance == "1"
    assert quantity("coverage_1e-05.low.0.1").ceiling == "coverage_ceiling_1e-05.low.0.1"
    assert quantity("changed_in_1e-05.low.0.1").chance == "density_1e-05"


def test_the_page_of_definitions_shows_every_subject() -> None:
    page = (Path(__file__).parents[1] / "book" / "methods.md").read_text(encoding="utf8")
    included = re.findall(r"\{include\} _quantities_(\w+)\.md", page)
    assert included == list(families())


@pytest.mark.parametrize("lacking", ["label", "definition", "source", "kind"])
def test_a_record_without_what_it_needs_cannot_exist(lacking: str) -> None:
    with pytest.raises(ValueError, match=r"quantities.yaml: rel_norm: wanted a label, a definition"):
        replace(quantity("rel_norm"), **{lacking: ""})


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("rel_norm", "relative norm"),
        ("sparsity.1e-05", "within 1e-5"),
        ("top_energy.0.01", "energy of top 1%"),
        ("svd_energy.16", "top 16"),
        ("svd_energy_rank.0.1", "top 10% of rank"),
        ("rank_share.1e-05", "rank above 1e-5"),
        ("projection.joint.0.1", "joint projection, 10%"),
        ("projection_expected.left.0.05", "left projection, 5%: chance"),
        ("coverage_1e-05.principal_not_low.0.2", "principal not low coverage, 20% (above 1e-5)"),
        ("coverage_ceiling.low.0.1", "low coverage, 10%: ceiling"),
        ("density_1e-05", "changed (above 1e-5)"),
        ("blocks.lm_head.energy_share", "lm head: share of the energy"),
        ("sines.right.max", "largest sine, right"),
        ("accuracy", "accuracy"),
        ("nulls.permutation_row.coverage.low.0.1", "low coverage, 10%: permutation row"),
        ("explained.visibility.projection.joint.0.1.ratio", "joint projection, 10%: visibility over observed"),
        ("explained.spectrum.changed.interval.low", "weights that changed: spectrum over observed, from"),
    ],
)
def test_labels(key: str, expected: str) -> None:
    assert label(key) == expected


def test_axes() -> None:
    assert quantity("svd_energy.16").axis == "energy in the first 16 (%)"
    assert quantity("svd_energy_rank.0.1").axis == "top 10% of rank (%)"
    assert (quantity("stable_rank").unit, quantity("stable_rank").scale) == ("", 1)


@pytest.mark.parametrize("key", ["projection.joint", "stable_rank.1", "nowhere.0.1", "projection.up.0.1"])
def test_what_nobody_defined_is_no_quantity(key: str) -> None:
    assert find(key) is None
    with pytest.raises(LookupError, match=f"no quantity '{key}'"):
        quantity(key)


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("svd_energy.16", 0.4038, "40.38%"),
        ("projection.joint.0.01", 0.000037, "0.0037%"),
        ("projection.joint.0.01", 0.0, "0.00%"),
        ("stable_rank", 8.277, "8.28"),
        ("effective_rank", 405.5, "406"),
        ("sines.left.mean", 6.52e-4, "6.5e-4"),
        ("spectral_drift", 0.0, "0"),
        ("parameters", 134515008, "134,515,008"),
        ("svd_energy.1", math.nan, "-"),
    ],
)
def test_values_for_the_eye(key: str, value: float, text: str) -> None:
    assert written(key, value) == text


def test_what_is_measured_is_what_the_tables_ask_for() -> None:
    """The metrics know no tables, so that these stand in both."""
    assert quantities.UPDATE_ATOL == masks.UPDATE_ATOL
    assert quantities.SHARES == subspace.SHARES


@pytest.mark.parametrize(
    ("kind", "values", "text"),
    [
        ("share", [0.5, 0.0004, math.nan, 0.0], ["50.0000%", "0.0400%", "-", "0.0000%"]),
        ("norm", [1.5, 0.002, 0.0], ["150.00%", "0.20%", "0.00%"]),
        ("ratio", [151.2, 74.39], ["151.20", "74.39"]),
        ("ratio", [151.2, 200.6], ["151", "201"]),
        ("small", [1e-5, 0.05], ["1e-5", "0.05"]),
        ("count", [1234.0, 5.0], ["1,234", "5"]),
        ("share", [], []),
    ],
)
def test_a_column_has_one_precision(kind: str, values: list[float], text: list[str]) -> None:
    assert quantities.as_column(kind, values) == text
