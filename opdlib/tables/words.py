"""Sentences that were computed, for the pages on rank and subspaces: true for any pair."""

from __future__ import annotations

from collections.abc import Sequence

from opdlib.quantities import written
from opdlib.results.open import Results
from opdlib.tables import paper_geometry
from opdlib.tables.geometry import overview, spread

TOP16, JOINT = "svd_energy.16", "projection.joint.0.1"


def measured(views: Sequence[Results]) -> str:
    """How many matrices have numbers in each view, and why the other tensors have none."""
    parts = []
    for results in views:
        without = results.tensors["no_matrix_because"].dropna().value_counts()
        reasons = ", ".join(f"{count} ({reason})" for reason, count in without.items()) or "none"
        matrices = f"{results.summary['measured_2d']} matrices changed and have numbers"
        parts.append(f"In view `{results.view}` {matrices}; tensors without any: {reasons}.")
    return " ".join(parts)


def concentration(views: Sequence[Results]) -> str:
    """What the sixteen largest singular values hold, in each view."""
    held = [f"{written(TOP16, _median(v, TOP16))} in view `{v.view}`" for v in views if v.summary["measured_2d"]]
    if not held:
        return "No matrix changed."
    return f"The 16 largest singular values hold, in the median matrix, {' and '.join(held)}."


def chance(source: str, pair: str) -> str:
    """The median of the isotropic expectation over the matrices of a source model, and one of the paper's rows."""
    expected = paper_geometry.median_chance(source)
    reported = float(paper_geometry.projection().set_index("pair")["value"][pair])
    return (
        f"The median over these matrices is **{written(JOINT, expected)}**. The paper reports "
        f"{written(JOINT, reported)} for {pair}: **{reported / expected:.1f} times** what chance gives."
    )


def projection(views: Sequence[Results]) -> str:
    """The joint projection at 10% of rank beside chance, in each view: as a ratio of medians and matrix by matrix."""
    return " ".join(_projection(results) for results in views)


def _projection(results: Results) -> str:
    found = spread(results, [JOINT])
    if found.empty:
        return f"In view `{results.view}` no matrix changed, so there is no projection."
    middle, expected, ratio, low, high = (
        float(found[column].iloc[0]) for column in ("value", "expected", "ratio", "ratio_low", "ratio_high")
    )
    return (
        f"In view `{results.view}` the joint projection at 10% has the median {written(JOINT, middle)}, and chance "
        f"{written(JOINT, expected)}: {middle / expected:.2f} times. Taken matrix by matrix, the median ratio is "
        f"{ratio:.2f}, and half of the matrices lie between {low:.2f} and {high:.2f}."
    )


def moved(views: Sequence[Results]) -> str:
    """P(abs(delta) > 1e-5) among the smallest tenth, the principal tenth and all weights, in each view."""
    keys = "changed_in_1e-05.low.0.1", "changed_in_1e-05.principal.0.1", "density_1e-05"
    parts = []
    for results in [v for v in views if v.summary["measured_2d"]]:
        low, principal, anywhere = (written(key, _median(results, key)) for key in keys)
        parts.append(
            f"In view `{results.view}`, {low} of the smallest tenth moved by more than 1e-5, {principal} of the "
            f"principal tenth, and {anywhere} of all weights of a matrix."
        )
    return " ".join([*parts, "(Medians over matrices.)"]) if parts else "No matrix changed."


def _median(results: Results, key: str) -> float:
    return float(overview(results, [key])[key].iloc[0])
