"""Where sources disagree about one pair: what counts as unchanged when a float32 checkpoint stands beside a bf16 one.

For DeepSeek-R1-Distill-Qwen-1.5B and DeepScaleR-1.5B-Preview arXiv 2606.13657 has 77.36% of the weights unchanged (its
Table 8) and arXiv 2511.08567 has 53.8% (its Table 1). The trained checkpoint is stored in float32. The first rounds
both to bf16 and looks for equal numbers; the second calls a weight unchanged if it differs by at most a thousandth of
itself, which is the same on bf16 numbers and is a stricter rule, two to four times as strict, on a weight that was not
rounded.
"""

import numpy as np
import pandas as pd

from opdlib.quantities import written
from opdlib.tables import Results, paper

ETA = 1e-3
"""The threshold of arXiv 2511.08567, relative to the weight."""
ROUNDED, AS_STORED = 0.7736, 0.538
"""Unchanged weights of DeepScaleR in the two papers: both sides rounded to bf16 and, so we take it, as stored."""
POINTS = 20_001


def rounded(results: Results, stored: Results) -> pd.DataFrame:
    """Shares of unchanged weights of one pair by rule and storage: columns rule, trained side, unchanged, rel_norm."""
    one, other = results.summary, stored.summary
    rows = [
        ("equal", "rounded to bf16", one["exact_zero"], one["rel_norm"]),
        ("within a thousandth of the weight", "rounded to bf16", one["sparsity_ulp"]["1e-03"], one["rel_norm"]),
        ("within a thousandth of the weight", "stored in float32", other["sparsity_ulp"]["1e-03"], other["rel_norm"]),
        ("equal", "stored in float32", other["exact_zero"], other["rel_norm"]),
    ]
    return pd.DataFrame(rows, columns=["rule", "trained side", "unchanged", "rel_norm"])


def expected(unchanged: float) -> dict[str, float]:
    """What float32 would show of an update of which bf16 leaves the share `unchanged` in (0, 1) of the weights equal.

    Weights and update are normal and independent, each of one scale, and the source lies on the bf16 grid. within: the
    share that differs by at most `ETA` of the weight; stored, rounded: the relative norm of the update, and of what is
    left of it in bf16.
    """
    from scipy.optimize import brentq
    from scipy.stats import norm

    weights = norm.ppf((1 + (np.arange(POINTS) + 0.5) / POINTS) / 2)
    step = 2.0 ** (np.floor(np.log2(weights)) - 7)

    def inside(limit: np.ndarray, scale: float) -> float:
        return float((2 * norm.cdf(limit / scale) - 1).mean())

    scale = float(brentq(lambda s: inside(step / 2, s) - unchanged, 1e-7, 1e2))
    steps = np.arange(1, 1 + int(16 * scale / np.median(step) + 16))[:, None]
    beyond = 2 * norm.sf((steps - 0.5) * step / scale)  # moved at least so many steps
    seen = np.where(step < scale / 4, scale**2 + step**2 / 12, ((2 * steps - 1) * step**2 * beyond).sum(axis=0))
    return {"within": inside(ETA * weights, scale), "stored": scale, "rounded": float(np.sqrt(seen.mean()))}


def of_the_paper() -> pd.DataFrame:
    """What arXiv 2606.13657 says in two places and does not agree on: columns what, here, there, settled."""
    tables = paper.wide(["coverage.low.0.1", "sparsity.1e-05"]).set_index("pair")
    style = tables[tables["regime"].isin(paper.OPD_STYLE)]["coverage.low.0.1"]
    overlaps = paper.read("table4_overlap")
    random = overlaps.set_index("first_mask")["o1_random_pct"]["DeepScaleR RLVR"] / 100
    opd, grpo = (1 - tables["sparsity.1e-05"][pair] for pair in ("DS-Qwen OPD", "Qwen2.5-VL GRPO"))
    masks = paper.read("figure3a_masked_training").set_index("run")["mask_density_pct"] / 100
    least = f"{overlaps['ratio'].min():.2f} to {overlaps['ratio'].max():.2f} times"
    share = {"random": random, "opd": opd, "grpo": grpo, "mask": masks["GRPO mask"], "low": style.min()}
    text = {name: written("exact_zero", float(value)) for name, value in share.items()}
    rows = [
        (
            "smallest coverage of small weights, OPD-style pairs",
            "24.99% (prose)",
            f"{text['low']} (Table 2)",
            "the table",
        ),
        ("density of the GRPO mask", f"{text['mask']} (masked training)", f"{text['grpo']} (Table 4)", "open"),
        ("random overlap with DS-Qwen OPD", f"{text['random']} (Table 4)", f"{text['opd']} (Table 2)", "first version"),
        ("overlap beside random", "about three times (abstract)", f"{least} (Table 4)", "the table"),
        ("projections at 1, 5 and 20%", "announced (5.2)", "coverages printed (Table 10)", "not printed"),
    ]
    return pd.DataFrame(rows, columns=["what", "here", "there", "settled"])
