"""Tables of one results folder. Shares are weighted by coordinates, energies are sums of squares.

The first columns of each are pair, regime (empty if unknown), origin (`here`; the paper's tables say `paper`) and view.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from opdlib.errors import ParameterError
from opdlib.results.open import Results
from opdlib.tables.paper import OPD_STYLE

GROUPS: Mapping[str, Sequence[str]] = {
    "model": (),
    "block": ("block",),
    "layer": ("part", "layer"),
    "module": ("part", "block", "module"),
    "layer and module": ("part", "layer", "block", "module"),
    "tensor": ("tensor", "part", "layer", "block", "module"),
}
"""What a table can be grouped by -> the columns that say so. Outside the stack layer is <NA>, a group like any."""

WELL_POPULATED = 1 / 256
"""A binade is well populated if it holds at least this share of the coordinates. bf16 has at most 255 binades, so one
always is."""


def sparsity(results: Results, by: str = "model", thresholds: Sequence[float] | None = None) -> pd.DataFrame:
    """Share of coordinates that did not change, by rule and threshold; of absolute ones only `thresholds`, if given.

    Columns: those of `by` (see `GROUPS`), rule, threshold, parameters, unchanged (a count), share (in
    [0, 1]). Rules: `exact` (delta = 0, threshold 0), `absolute` (abs(delta) <= threshold), `relative` (<= threshold *
    RMS of the source tensor), `ulp` (<= threshold * max(abs(w), abs(w')), the rule of arXiv 2511.08567). Paper:
    Tables 2 and 8.
    """
    columns = _columns(by)
    tensors = results.tensors
    parts = [results.read("sparsity")]
    for rule, threshold, column in (("exact", 0.0, "exact_zero"), ("ulp", 1e-3, "within_ulp")):
        counts = tensors[["tensor", column]].rename(columns={column: "unchanged"})
        parts.append(counts.assign(rule=rule, threshold=threshold))
    rows = pd.concat(parts, ignore_index=True).merge(tensors.drop(columns="exact_zero"), on="tensor")
    order = ["exact", "absolute", "relative", "ulp"]
    rows["rule"] = pd.Categorical(rows["rule"], categories=order, ordered=True)
    if thresholds is not None:
        rows = pd.concat([rows[rows["rule"] != "absolute"], at(rows, "absolute", thresholds)])
    table = _pooled(rows, [*columns, "rule", "threshold"], ["size", "unchanged"])
    table["share"] = table["unchanged"] / table["size"].where(table["size"] > 0)
    return results.labelled(table.rename(columns={"size": "parameters"}))


def movement(results: Results, by: str = "block") -> pd.DataFrame:
    """How far the weights moved, and who holds the energy of the movement.

    Columns: those of `by`, parameters, parameter_share, rel_norm (Fro(delta) / Fro(source) of the group,
    unit 1), energy_share (of the squared delta of everything measured, in [0, 1]), exact_zero (share unchanged, in
    [0, 1]). NaN where the source is zero or nothing changed at all; a block that does not occur is absent. Paper: Table
    3, in v2 the relative norm, in v1 the energy share.
    """
    sums = ["size", "exact_zero", "energy", "source_energy"]
    table = _pooled(results.tensors, _columns(by), sums)
    size, changed, energy, source = (table.pop(name) for name in sums)
    return results.labelled(
        table.assign(
            parameters=size,
            parameter_share=size / size.sum(),
            rel_norm=np.sqrt(energy / source.where(source > 0)),
            energy_share=energy / (energy.sum() or np.nan),
            exact_zero=changed / size.where(size > 0),
        )
    )


def layers(results: Results, atol: float = 1e-5) -> pd.DataFrame:
    """`movement` by layer, with the share of coordinates with abs(delta) <= atol as column `sparsity`.

    Rows without a layer are the tensors outside the stack: embedding, final norm, head.
    """
    shares = at(sparsity(results, "layer"), "absolute", [atol])
    return movement(results, "layer").assign(sparsity=shares["share"].to_numpy(), atol=atol)


def energy(results: Results, tops: Sequence[float] | None = None) -> pd.DataFrame:
    """Share of the squared delta in the largest coordinates; of those measured only `tops`, if given.

    Columns: ranking, top (share of coordinates, in (0, 1]), share (of the energy, in [0, 1]). Ranking `per
    tensor` takes the top of every tensor and weights the result by energy, as the paper does (Table 8); `whole model`
    ranks all coordinates together. NaN if nothing changed.
    """
    rows = results.read("energy")
    model = rows[rows["tensor"].isna()]
    whole = results.tensors["energy"].sum() or np.nan
    tensors = rows[rows["tensor"].notna()].groupby("share")["energy"].sum().reindex(model["share"])
    rankings = {"per tensor": tensors.to_numpy(), "whole model": model["energy"].to_numpy()}
    tables = [
        pd.DataFrame({"ranking": ranking, "top": model["share"].to_numpy(), "share": energies / whole})
        for ranking, energies in rankings.items()
    ]
    table = pd.concat(tables, ignore_index=True)
    return results.labelled(table if tops is None else among(table, "top", tops))


def curve(results: Results) -> pd.DataFrame:
    """The whole sparsity curve: columns threshold and share, of coordinates with abs(delta) below it.

    The first row is the exact zero, at threshold 0; the others are eight thresholds an octave.
    """
    rows, size = results.read("curve"), results.summary["parameters"]
    zero = pd.DataFrame({"threshold": [0.0], "share": [results.summary["exact_zero"]]})
    rest = pd.DataFrame({"threshold": rows["threshold"], "share": rows["below"] / size})
    return results.labelled(pd.concat([zero, rest], ignore_index=True))


def magnitude(results: Results, stored: Results | None = None) -> pd.DataFrame:
    """Share of coordinates that changed, by binade of abs(source): [magnitude, 2 * magnitude).

    Columns: magnitude (0 for zeros and subnormals), coordinates, coordinate_share, share (changed, in [0, 1]), half_ulp
    (the smallest change that bf16 can show for such a weight: magnitude / 256; NaN for 0), expected (the share whose
    change would exceed half_ulp if the size of a change had nothing to do with the size of the weight).
    `expected` comes from all changes in the stored view together. It is NaN without such results, beyond their curve,
    and where it would mean nothing: when the source is not stored in bf16, or the trained weights are.
    """
    rows = results.read("magnitude")
    table = pd.DataFrame(
        {
            "magnitude": rows["magnitude"],
            "coordinates": rows["coordinates"],
            "coordinate_share": rows["coordinates"] / rows["coordinates"].sum(),
            "share": rows["updated"] / rows["coordinates"],
            "half_ulp": rows["magnitude"].where(rows["magnitude"] > 0) / 256,
            "expected": np.nan,
        }
    )
    if stored is not None and _finer(stored):
        points = curve(stored).iloc[1:]
        below = points["share"].set_axis(_eighths(points["threshold"]))
        table["expected"] = 1 - below.reindex(_eighths(table["half_ulp"])).to_numpy()
    return results.labelled(table)


def well_populated(table: pd.DataFrame) -> pd.DataFrame:
    """The binades of `magnitude` with at least `WELL_POPULATED` of the coordinates, zero left out, smallest first."""
    return table[(table["magnitude"] > 0) & (table["coordinate_share"] >= WELL_POPULATED)].sort_values("magnitude")


def overview(results: Results, atol: float = 1e-5) -> pd.DataFrame:
    """One row: parameters, rel_norm, exact_zero and sparsity, the share with abs(delta) <= atol."""
    model = movement(results, "model")
    share = at(sparsity(results), "absolute", [atol])["share"].to_numpy()
    return model.drop(columns=["parameter_share", "energy_share"]).assign(sparsity=share, atol=atol)


def at(table: pd.DataFrame, rule: str, thresholds: Sequence[float]) -> pd.DataFrame:
    """The rows of a sparsity table for one rule at these thresholds. Raises ParameterError, with those there are."""
    return among(table[table["rule"] == rule], "threshold", thresholds)


def among(table: pd.DataFrame, column: str, values: Sequence[float]) -> pd.DataFrame:
    """The rows whose `column` is one of `values`. Raises ParameterError for a value that nobody measured."""
    there = table[column].to_numpy(dtype=float)
    equal = np.isclose(there[:, None], np.asarray(values, dtype=float)[None, :], rtol=1e-9, atol=0)
    for value, found in zip(values, equal.any(axis=0), strict=True):
        if not found:
            known = ", ".join(f"{v:g}" for v in sorted(set(there)))
            raise ParameterError(f"{column} {value:g} was not measured; there are {known}")
    chosen: pd.DataFrame = table[equal.any(axis=1)]
    return chosen.reset_index(drop=True)


def stacked(*tables: pd.DataFrame) -> pd.DataFrame:
    """Tables one below the other: the paper's and ours, or two views. A column that one lacks is NaN there."""
    return pd.concat(tables, ignore_index=True)


def headers(ours: Sequence[tuple[str, str]]) -> list[str]:
    """What columns of (pair, view) are called: `here, VIEW` for the views of one pair, else `PAIR, VIEW`.

    Raises ParameterError if two have one name.
    """
    several = len({pair for pair, _ in ours}) > 1
    found = [f"{pair if several else 'here'}, {view}" for pair, view in ours]
    if len(set(found)) < len(found):
        raise ParameterError(f"two columns are called {found[0]!r}; give each pair a name of its own")
    return found


def beside(
    ours: Sequence[pd.DataFrame], published: pd.DataFrame, keys: Sequence[str], value: str = "share"
) -> pd.DataFrame:
    """Values side by side: a row for each combination of `keys`, a column for each of ours, and the span of the paper.

    Ours are views of one pair, or pairs (`headers`). `ours` and `published` have columns pair, view, `value` and
    `keys`. The paper's columns, `paper_low` and `paper_high`, are the smallest and the largest value among its six
    OPD-style rows; NaN where it has no such number.
    """
    named = headers([(table["pair"].iloc[0], table["view"].iloc[0]) for table in ours])
    views = [table.set_index(list(keys))[value].rename(name) for table, name in zip(ours, named, strict=True)]
    rows = published[published["regime"].isin(OPD_STYLE)].groupby(list(keys), observed=True)[value]
    span = [rows.min().rename("paper_low"), rows.max().rename("paper_high")]
    wide: pd.DataFrame = pd.concat([*views, *(s.reindex(views[0].index) for s in span)], axis=1)
    return wide.reset_index()


def _columns(by: str) -> list[str]:
    if by not in GROUPS:
        raise ParameterError(f"tables cannot be grouped by {by!r}; wanted one of {', '.join(GROUPS)}")
    return list(GROUPS[by])


def _pooled(frame: pd.DataFrame, columns: list[str], sums: list[str]) -> pd.DataFrame:
    """Sums over the rows of each group; without columns, over all rows."""
    if not columns:
        return pd.DataFrame({name: [frame[name].sum()] for name in sums})
    return frame.groupby(columns, observed=True, dropna=False)[sums].sum().reset_index()


def _eighths(values: pd.Series) -> NDArray[np.float64]:
    """Eighths of an octave, the grid of the curve's thresholds: whole numbers can be matched where floats cannot."""
    eighths: NDArray[np.float64] = np.round(8 * np.log2(values.to_numpy(dtype=np.float64)))
    return eighths


def _finer(results: Results) -> bool:
    """Is the source on the bf16 grid and the trained checkpoint not?"""
    tensors = results.tensors
    return bool((tensors["dtype_source"] == "BF16").all() and (tensors["dtype_trained"] != "BF16").any())
