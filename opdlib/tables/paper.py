"""The paper's tables (arXiv 2606.13657, v1 and v2) in the shape of ours: fractions, and the bf16 view throughout."""

from __future__ import annotations

import numpy as np
import pandas as pd

from opdlib.checkpoints.names import BLOCKS
from opdlib.files import data_root
from opdlib.registry.pairs import registry

OPD_STYLE = ("OPD", "OPSD")
"""The regimes that the paper calls OPD-style: six of its ten rows."""

_RULES = {
    "exact_zero_pct": ("exact", 0.0),
    "sparsity_1e-6_pct": ("absolute", 1e-6),
    "sparsity_1e-5_pct": ("absolute", 1e-5),
    "sparsity_1e-4_pct": ("absolute", 1e-4),
    "sparsity_1e-3_rms_pct": ("relative", 1e-3),
}
_TOPS = {"top_0.1_energy_pct": 0.001, "top_1_energy_pct": 0.01, "top_5_energy_pct": 0.05}
_BLOCKS = {"ffn": "mlp", "vision_tower": "vision"}


def sparsity() -> pd.DataFrame:
    """Table 8: columns pair, regime, origin ('paper'), view, rule, threshold, share in [0, 1]."""
    table = _melted("table8_sparsity", list(_RULES))
    table["rule"] = table["column"].map(lambda c: _RULES[c][0])
    table["threshold"] = table["column"].map(lambda c: _RULES[c][1])
    return table.drop(columns="column")[["pair", "regime", "origin", "view", "rule", "threshold", "share"]]


def energy() -> pd.DataFrame:
    """Table 8: columns pair, regime, origin, view, ranking ('per tensor'), top, share of the energy in [0, 1]."""
    table = _melted("table8_sparsity", list(_TOPS)).assign(ranking="per tensor")
    table["top"] = table["column"].map(_TOPS)
    return table[["pair", "regime", "origin", "view", "ranking", "top", "share"]]


def overview(atol: float = 1e-5) -> pd.DataFrame:
    """Tables 2 and 8: one row a pair, with rel_norm (unit 1), exact_zero, sparsity (share at atol) and atol.

    Shares are NaN at thresholds that Table 8 does not have.
    """
    table, shares = labelled(read("table2_global")), sparsity()
    columns = {"exact_zero": ("exact", 0.0), "sparsity": ("absolute", atol)}
    for column, (rule, threshold) in columns.items():
        own = shares[(shares["rule"] == rule) & np.isclose(shares["threshold"], threshold, rtol=1e-9, atol=0)]
        table[column] = table["pair"].map(own.set_index("pair")["share"])
    table = table.assign(rel_norm=table["rel_norm_pct"] / 100, atol=atol)
    return table[["pair", "regime", "origin", "view", "rel_norm", "exact_zero", "sparsity", "atol"]]


def blocks() -> pd.DataFrame:
    """Table 3: columns pair, regime, origin, view, block, rel_norm (v2, unit 1), energy_share (v1, in [0, 1]).

    NaN where a version has no such number; a block that a pair does not have is absent.
    """
    norms, shares = (
        labelled(read(name)).melt(["pair", "regime", "origin", "view"], var_name="block", value_name=value)
        for name, value in (("table3_v2_block_rel_norm", "rel_norm"), ("table3_v1_energy_share", "energy_share"))
    )
    table = norms.merge(shares, how="outer", on=["pair", "regime", "origin", "view", "block"])
    names = table["block"].str.removesuffix("_pct")
    table["block"] = names.map(lambda name: _BLOCKS.get(name, name))
    table[["rel_norm", "energy_share"]] /= 100
    table = table.dropna(subset=["rel_norm", "energy_share"], how="all")
    rows, order = list(read("table2_global")["pair"]), [*BLOCKS]
    rank = table["pair"].map(rows.index) * len(order) + table["block"].map(order.index)
    return table.iloc[rank.argsort()].reset_index(drop=True)


def _melted(name: str, columns: list[str]) -> pd.DataFrame:
    wide = labelled(read(name))
    table = wide.melt(["pair", "regime", "origin", "view"], columns, var_name="column", value_name="share")
    table["share"] /= 100
    return table


def labelled(table: pd.DataFrame) -> pd.DataFrame:
    """One of the paper's tables with regime, origin ('paper') and view after its first column, pair."""
    regimes = {pair.paper: pair.regime for pair in registry().values() if pair.paper}
    table.insert(1, "regime", table["pair"].map(regimes))
    table.insert(2, "origin", "paper")
    table.insert(3, "view", "bf16")
    return table


def read(name: str) -> pd.DataFrame:
    """The file `name` of data/paper/, as it is."""
    return pd.read_csv(data_root() / "paper" / f"{name}.csv")
