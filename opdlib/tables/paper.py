"""The paper's tables (arXiv 2606.13657, v1 and v2) in the shape of ours: fractions, and the bf16 view throughout."""

from collections.abc import Mapping, Sequence
from functools import cache

import pandas as pd

from opdlib.checkpoints.names import BLOCKS
from opdlib.files import data_root
from opdlib.quantities import SHARES
from opdlib.registry.pairs import registry

OPD_STYLE = ("OPD", "OPSD")
"""The regimes that the paper calls OPD-style: six of its ten rows."""
LABELS = ["pair", "regime", "origin", "view"]
"""The first columns of every table."""

_RULES = {"exact_zero": ("exact", 0.0), "sparsity_rms.1e-03": ("relative", 1e-3)} | {
    f"sparsity.{eps:.0e}": ("absolute", eps) for eps in (1e-6, 1e-5, 1e-4)
}
_TOPS = {f"top_energy.{top:g}": top for top in (0.001, 0.01, 0.05)}
_CALLED = {"mlp": "ffn", "vision": "vision_tower"}

PRINTED: Mapping[str, Mapping[str, str]] = {
    "table2_global": {"rel_norm_pct": "rel_norm"},
    "table8_sparsity": {
        "exact_zero_pct": "exact_zero",
        **{f"sparsity_1e-{n}_pct": f"sparsity.1e-0{n}" for n in (6, 5, 4)},
        "sparsity_1e-3_rms_pct": "sparsity_rms.1e-03",
        **{f"top_{100 * top:g}_energy_pct": key for key, top in _TOPS.items()},
    },
    "table3_v2_block_rel_norm": {f"{_CALLED.get(block, block)}_pct": f"blocks.{block}.rel_norm" for block in BLOCKS},
    "table3_v1_energy_share": {f"{_CALLED.get(block, block)}_pct": f"blocks.{block}.energy_share" for block in BLOCKS},
    "table9_spectrum": {
        **{f"top{k}_energy_pct": f"svd_energy.{k}" for k in (1, 8, 16)},
        "stable_rank": "stable_rank",
        "rank_1e-5_pct": "rank_share.1e-05",
        "joint_projection_10_pct": "projection.joint.0.1",
    },
    "table10_coverage": {
        f"{mask}_{100 * share:g}_pct": f"coverage.{mask}.{share:g}"
        for mask in ("principal", "low", "nonprincipal_or_low")
        for share in SHARES
    },
}
"""File of data/paper/ -> its columns -> the keys of their numbers. What the file does not have is not printed."""


def numbers() -> pd.DataFrame:
    """Every number of these tables: columns pair, regime, origin ('paper'), view, quantity (its key), value."""
    return _numbers().copy()


@cache
def _numbers() -> pd.DataFrame:
    regimes = {pair.paper: pair.regime for pair in registry().values() if pair.paper}
    parts = []
    for name, keys in PRINTED.items():
        printed = read(name)
        long = printed.melt("pair", [column for column in keys if column in printed], "column")
        scaled = long["value"] / long["column"].str.endswith("_pct").map({True: 100, False: 1})
        parts.append(long[["pair"]].assign(quantity=long["column"].map(keys), value=scaled))
    table = pd.concat(parts, ignore_index=True).dropna(subset=["value"])
    return table.assign(regime=table["pair"].map(regimes), origin="paper", view="bf16")[[*LABELS, "quantity", "value"]]


def wide(keys: Sequence[str]) -> pd.DataFrame:
    """One row a pair, with each of these quantities as a column of that key; NaN where the paper has none."""
    table = numbers()
    values = table.pivot_table(index="pair", columns="quantity", values="value").reindex(columns=[*keys])
    return table[LABELS].drop_duplicates().merge(values.rename_axis(columns=None), on="pair")


@cache
def span(key: str) -> tuple[float, float]:
    """The smallest and the largest value of this quantity among the paper's six OPD-style pairs; NaN if it has none."""
    values = numbers().query("quantity == @key and regime in @OPD_STYLE")["value"]
    return float(values.min()), float(values.max())


def sparsity() -> pd.DataFrame:
    """Table 8: columns pair, regime, origin, view, rule, threshold, share in [0, 1]."""
    table = numbers().query("quantity in @_RULES").rename(columns={"value": "share"})
    rules = pd.DataFrame([_RULES[key] for key in table["quantity"]], table.index, ["rule", "threshold"])
    return table[LABELS].join(rules).join(table["share"]).reset_index(drop=True)


def energy() -> pd.DataFrame:
    """Table 8: columns pair, regime, origin, view, ranking ('per tensor'), top, share of the energy in [0, 1]."""
    table = numbers().query("quantity in @_TOPS")
    found = table[LABELS].assign(ranking="per tensor", top=table["quantity"].map(_TOPS), share=table["value"])
    return found.reset_index(drop=True)


def overview(atol: float = 1e-5) -> pd.DataFrame:
    """Tables 2 and 8: one row a pair, with rel_norm (unit 1), exact_zero, sparsity (share at atol) and atol.

    Shares are NaN at thresholds that Table 8 does not have.
    """
    key = f"sparsity.{atol:.0e}"
    return wide(["rel_norm", "exact_zero", key]).rename(columns={key: "sparsity"}).assign(atol=atol)


def blocks() -> pd.DataFrame:
    """Table 3: columns pair, regime, origin, view, block, rel_norm (v2, unit 1), energy_share (v1, in [0, 1]).

    NaN where a version has no such number; a block that a pair does not have is absent.
    """
    names = ["rel_norm", "energy_share"]
    table = wide([f"blocks.{block}.{name}" for block in BLOCKS for name in names])
    parts = [
        table[LABELS].assign(block=block, **{name: table[f"blocks.{block}.{name}"] for name in names})
        for block in BLOCKS
    ]
    return pd.concat(parts).dropna(subset=names, how="all").sort_index(kind="stable").reset_index(drop=True)


def read(name: str) -> pd.DataFrame:
    """The file `name` of data/paper/, as it is."""
    return pd.read_csv(data_root() / "paper" / f"{name}.csv")
