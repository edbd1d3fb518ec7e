"""Coordinate masks of a source matrix, and how the changed coordinates fall into them.

Two masks at each share rho: *principal*, the ceil(rho * m * n) largest coordinates of abs(U_k S_k V_k^T) with k from
the same rho, and *low*, as many of the smallest coordinates of abs(W). Every coordinate gets one code that says where
it stands in all of them; one pass over a pair then counts codes, and every coverage follows from that table exactly.
Coordinates that tie at a cut share the remaining places evenly: what is counted is the expected value over all ways to
break the tie.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from opdlib.metrics import code_kernels
from opdlib.metrics.gram import is_wide
from opdlib.metrics.kernels import raw_bits, shift_of
from opdlib.metrics.sparsity import count_of
from opdlib.metrics.subspace import SHARES, Basis, rank_of

UPDATE_ATOL = (0.0, 1e-5)
"""A coordinate is updated if abs(delta) > atol: exact nonzero for coverage (paper, Tables 2 and 10), 1e-5 for
overlap."""

_LEVELS = len(SHARES) + 1
_LOW_CODES = _LEVELS * _LEVELS
_PRINCIPAL_CODES = 3 ** len(SHARES)
CODES = _LOW_CODES * _PRINCIPAL_CODES
_OUT, _IN, _TIE = 0, 1, 2


@dataclass(frozen=True)
class Masks:
    """All masks of one source matrix."""

    codes: NDArray[np.uint16]
    """(m * n,) one code for each coordinate, row-major."""
    table: NDArray[np.int64]
    """(CODES,) coordinates of each code."""
    size: Mapping[float, int]
    """rho -> coordinates in each mask, ceil(rho * m * n)."""

    @cached_property
    def members(self) -> Mapping[float, tuple[NDArray[np.float64], NDArray[np.float64]]]:
        """rho -> expected membership of each code in the principal and in the low mask: 0, 1, or a part at a tie."""
        code, found = np.arange(CODES), {}
        below, up_to = np.divmod(code // _PRINCIPAL_CODES, _LEVELS)  # cuts below the value, up to and including it
        for place, share in enumerate(SHARES):
            state = code % _PRINCIPAL_CODES // 3**place % 3
            low_state = np.where(up_to <= place, _IN, np.where(below <= place, _TIE, _OUT))
            found[share] = self._shared(state, self.size[share]), self._shared(low_state, self.size[share])
        return found

    def _shared(self, state: NDArray[np.int64], size: int) -> NDArray[np.float64]:
        inside, tied = int(self.table[state == _IN].sum()), int(self.table[state == _TIE].sum())
        share = (size - inside) / tied if tied else 0.0
        return np.where(state == _IN, 1.0, np.where(state == _TIE, share, 0.0))


def masks(source: torch.Tensor, basis: Basis) -> Masks:
    """The masks of an (m, n) source with finite values and its `Basis`. Products in float32.

    A coordinate within 10^-6 (relative) of a cut may fall on either side of it.
    """
    count = source.numel()
    sizes = {share: count_of(share, count) for share in SHARES}
    bits = raw_bits(_narrow(source))
    codes = np.zeros(count, np.uint16)
    cuts = np.sort(_cuts(bits, list(sizes.values())))
    code_kernels.add_low_codes(bits, shift_of(bits), cuts, codes, _PRINCIPAL_CODES)
    rebuilt = torch.zeros(source.shape, dtype=torch.float32, device=source.device)
    tall = rebuilt.mT if is_wide(source) else rebuilt
    done = 0
    for place, share in enumerate(SHARES):
        k = rank_of(share, basis.shape)
        if k > done:
            scaled = (basis.long[:, done:k] * basis.sigma[done:k]).to(torch.float32)
            tall.addmm_(scaled, basis.short[:, done:k].to(torch.float32).mT)
            done = k
        bits = raw_bits(rebuilt)
        # The largest r are those that the smallest n - r leave.
        code_kernels.add_principal_codes(bits, _cuts(bits, [count - sizes[share] + 1])[0], codes, 3**place)
    table = np.zeros(CODES, np.int64)
    code_kernels.tabulate(codes, table)
    return Masks(codes, table, sizes)


def _cuts(bits: NDArray[np.integer], ranks: list[int]) -> NDArray[np.uint32]:
    """Bits of the magnitudes at these ranks (1 = smallest): a histogram, then a sort of the bins that count.

    Without the sign, bits of float32 are in the order of the magnitudes. A bin of bf16 numbers holds a single one.
    """
    shift = shift_of(bits)
    counts = code_kernels.count_magnitudes(bits, shift)
    below = np.cumsum(counts) - counts
    found = []
    for rank in ranks:
        bin_ = int(np.searchsorted(below, rank, side="left")) - 1
        if shift:
            found.append(bin_ << 16)
            continue
        members = code_kernels.collect_magnitudes(bits, shift, bin_, int(counts[bin_]))
        place = rank - 1 - int(below[bin_])
        found.append(np.partition(members, place)[place])
    return np.array(found, np.uint32)


@dataclass(frozen=True)
class Coverage:
    """How updates fall into the masks, by share rho. Shares in [0, 1]; NaN where nothing was updated."""

    density: float
    """Updated coordinates over all."""
    principal: Mapping[float, float]
    """Share of the updated coordinates that lie in the principal mask (paper, Tables 2 and 10)."""
    low: Mapping[float, float]
    """Share of them in the low-magnitude mask."""
    principal_not_low: Mapping[float, float]
    nonprincipal_or_low: Mapping[float, float]
    """One minus the one before (paper, Table 10)."""
    ceiling: Mapping[float, float]
    """min(1, mask size / number of updates): no mask of this size can cover more."""
    changed_principal: Mapping[float, float]
    """P(updated | in the principal mask)."""
    changed_low: Mapping[float, float]
    """P(updated | in the low-magnitude mask)."""


def coverages(masks_: Masks, source: torch.Tensor, trained: torch.Tensor) -> dict[float, Coverage]:
    """Coverage for each update mask of `UPDATE_ATOL`, from one pass over the pair; differences in float64."""
    before, after = raw_bits(_narrow(source)), raw_bits(_narrow(trained))
    tables = np.zeros((len(UPDATE_ATOL), CODES), np.int64)
    code_kernels.count_codes(
        before, after, shift_of(before), shift_of(after), masks_.codes, np.array(UPDATE_ATOL), tables
    )
    return {atol: _coverage(masks_, table) for atol, table in zip(UPDATE_ATOL, tables, strict=True)}


def expected_coverages(
    masks_: Masks, source: torch.Tensor, chances: Mapping[str, NDArray[np.float64]]
) -> dict[str, Coverage]:
    """Coverage by updates that fall independently: each of `chances` is (MAGNITUDES,), P(updated) by abs(source).

    Every share is the expected number of updates inside the mask over the expected number of all.
    """
    bits = raw_bits(_narrow(source))
    sums = np.zeros((CODES, len(chances)))
    code_kernels.sum_chances(bits, shift_of(bits), masks_.codes, np.stack(list(chances.values()), axis=1), sums)
    return {name: _coverage(masks_, table) for name, table in zip(chances, sums.T, strict=True)}


def chance_nonprincipal_or_low(masks_: Masks) -> dict[float, float]:
    """rho -> what a random update covers of that set: its share of the coordinates."""
    size = int(masks_.table.sum())
    return {s: 1 - float(masks_.table @ (p * (1 - q))) / size for s, (p, q) in masks_.members.items()}


def _narrow(matrix: torch.Tensor) -> torch.Tensor:
    """float64 in float32; every stored dtype as it is."""
    return matrix.to(torch.float32) if matrix.dtype == torch.float64 else matrix


def _coverage(masks_: Masks, updated: NDArray[np.integer] | NDArray[np.float64]) -> Coverage:
    total = float(updated.sum())
    principal = {s: float(updated @ p) for s, (p, _) in masks_.members.items()}
    low = {s: float(updated @ q) for s, (_, q) in masks_.members.items()}

    def of_updates(counts: Mapping[float, float]) -> dict[float, float]:
        return {s: c / total if total else math.nan for s, c in counts.items()}

    outside = of_updates({s: float(updated @ (p * (1 - q))) for s, (p, q) in masks_.members.items()})
    return Coverage(
        density=total / int(masks_.table.sum()),
        principal=of_updates(principal),
        low=of_updates(low),
        principal_not_low=outside,
        nonprincipal_or_low={s: 1 - c for s, c in outside.items()},
        ceiling={s: min(1.0, n / total) if total else math.nan for s, n in masks_.size.items()},
        changed_principal={s: c / masks_.size[s] for s, c in principal.items()},
        changed_low={s: c / masks_.size[s] for s, c in low.items()},
    )
