"""What null models expect of a pair, beside what is observed; what they are is said in `opdlib.metrics.nulls`."""

import math
from functools import partial

import pandas as pd

from opdlib.quantities import as_text, label, written
from opdlib.results.open import Results
from opdlib.tables import geometry
from opdlib.tables.measured import magnitude
from opdlib.tables.written import headed, interval

NULLS = ("visibility", "permutation", "permutation_row", "permutation_column", "spectrum")
NUMBERS = (
    *("changed", "coverage.low.0.1", "coverage.principal.0.1", "coverage.nonprincipal_or_low.0.1"),
    *("projection.joint.0.1", "svd_energy.16", "stable_rank", "rotation.0.1", "spectral_drift_delta"),
)
"""The numbers that the paper's findings are about, in the order of the tables."""
KINDS = ("fp32", "bf16", "noise in bf16")
"""Whose spectrum it is, in `spectra`."""


def binades(results: Results) -> pd.DataFrame:
    """`magnitude` with `expected` under visibility: P(changed) of noise that has the scale of each tensor.

    NaN where the results have no such null.
    """
    rows = results.read("magnitude")
    return magnitude(results).assign(expected=rows.get("visible", math.nan) / rows["coordinates"])


def spectra(results: Results, stored: Results | None = None) -> pd.DataFrame:
    """`geometry.spectrum` of the update before rounding (where view `stored` is here), after it, and of drawn noise.

    Column kind is one of `KINDS`; what is not known is left out.
    """
    views = zip(KINDS, (stored, results), strict=False)
    named = [geometry.spectrum(view).assign(kind=kind) for kind, view in views if view is not None]
    if "draws" in results.provenance["identity"]["metrics"]:
        drawn = geometry.placed(results, results.read("nulls").query("null == 'visibility'").fillna({"side": ""}))
        named.append(results.labelled(geometry.by_index(drawn)).assign(kind=KINDS[2]))
    return pd.concat(named, ignore_index=True)


def verdicts(results: Results) -> pd.DataFrame:
    """A row for each null and each of `NUMBERS` that it speaks about.

    Columns: null, quantity (its key, or `changed`), observed, expected (both as `opd summary` has them: shares weighted
    over coordinates, the rest medians over matrices), ratio (expected over observed, median over the matrices), low,
    high (its 95% interval), verdict. None without nulls.
    """
    rows = []
    for null in NULLS:
        ratios = results.summary.get("explained", {}).get(null, {})
        for key in (key for key in NUMBERS if key in ratios):
            known = "exact_zero" if key == "changed" else key
            pair = [results.numbers.get(known), results.numbers.get(f"nulls.{null}.{known}")]
            numbers = [math.nan if n is None else 1 - n if key == "changed" else n for n in pair]
            told = (math.nan if n is None else n for n in (ratios[key]["ratio"], *ratios[key]["interval"]))
            ends = {**dict(zip(("ratio", "low", "high"), told, strict=True)), "verdict": ratios[key]["verdict"]}
            rows.append({"null": null, "quantity": key, "observed": numbers[0], "expected": numbers[1], **ends})
    columns = ["null", "quantity", "observed", "expected", "ratio", "low", "high", "verdict"]
    return results.labelled(pd.DataFrame(rows, columns=columns))


def shown(table: pd.DataFrame) -> pd.DataFrame:
    """`verdicts` for the eye, a row for each null and number."""
    ratio, ends = partial(as_text, "ratio"), zip(table["low"], table["high"], strict=True)
    text = {
        "null": [*table["null"].str.replace("_", " ")],
        "observed": [*map(written, table["quantity"], table["observed"])],
        "expected": [*map(written, table["quantity"], table["expected"])],
        "expected / observed": [*map(ratio, table["ratio"])],
        "interval": [interval(low, high, ratio) for low, high in ends],
        "verdict": [*table["verdict"]],
    }
    return headed(pd.DataFrame(text, index=pd.Index(table["quantity"].map(label), name="number")))


def shares(results: Results) -> pd.DataFrame:
    """A row for each block: its share of the energy and of the parameters, also with embedding and head left out."""
    columns = ("energy_share", "parameter_share", "inner_energy_share", "inner_parameter_share")
    blocks = results.summary["blocks"]
    rows = [{"block": block, **{c: blocks[block].get(c) for c in columns}} for block in blocks]
    return results.labelled(pd.DataFrame(rows, columns=["block", *columns]).astype(dict.fromkeys(columns, float)))
