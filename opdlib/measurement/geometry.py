"""The geometry of every matrix of a pair: one decomposition of a source matrix for all checkpoints over it.

Numbers leave here as rows, because that is how they are kept, written and read: a row says which metric, on which side
or in which mask, at which share, tolerance or rank.
"""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from opdlib.checkpoints.checkpoint import Checkpoint
from opdlib.checkpoints.names import parse
from opdlib.errors import MeasureError
from opdlib.measurement.align import Match, view_of
from opdlib.measurement.nulls import chances, draws, noise
from opdlib.metrics import spectrum as of
from opdlib.metrics.eigen import LinAlgError
from opdlib.metrics.geometry import Chances, Geometry, geometries
from opdlib.metrics.histogram import scan
from opdlib.metrics.masks import Coverage
from opdlib.metrics.subspace import expected_drift, rank_of

CURVE = 24
"""Points of the spectrum that are kept, evenly spread over the logarithm of the rank index."""


@dataclass(frozen=True)
class Number:
    """One measured number of one matrix."""

    metric: str
    side: str
    """left, right, joint, principal, low, ...; empty where there is no such thing."""
    at: float | None
    """Share, tolerance, index or None."""
    value: float
    """NaN if undefined."""
    expected: float | None = None
    """What chance alone would give, where that is known."""
    atol: float | None = None
    """Of the update mask: a coordinate is updated if abs(delta) > atol."""


@dataclass(frozen=True)
class MatrixResult:
    """What was measured of one matrix."""

    tensor: str
    expert: int | None
    """Number of the expert that it belongs to."""
    route: str
    numbers: tuple[Number, ...]
    reasons: Mapping[str, str]
    nulls: Mapping[str, tuple[Number, ...]]
    """Null -> the numbers that it expects; empty where they were not asked for."""


def numbers_of(g: Geometry) -> tuple[Number, ...]:
    """Everything a `Geometry` holds, as rows."""
    s = g.spectrum
    rows = [Number("energy_top", "", k, of.top_share(s, k)) for k in of.TOP]
    rows += [Number("energy_rank", "", share, of.top_share(s, rank_of(share, g.shape))) for share in of.RANK_SHARES]
    rows += [Number("rank_share", "", tolerance, of.rank_share(s, tolerance)) for tolerance in of.RANK_TOLERANCES]
    rows += [
        Number("stable_rank", "", None, of.stable_rank(s)),
        Number("effective_rank", "", None, of.effective_rank(s)),
        Number("hill_exponent", "", None, of.hill_exponent(s)),
        Number("spectral_drift", "source", None, g.drift),
        Number("spectral_drift", "delta", None, g.drift_of_delta, expected_drift(g.shape)),
    ]
    for side in ("joint", "left", "right"):
        found, chance = getattr(g.projection, side), getattr(g.expected, side)
        rows += [Number("projection", side, share, found[share], chance[share]) for share in found]
    for side in ("left", "right"):
        rows.append(Number("sine_mean", side, 0.1, getattr(g.turning, f"{side}_mean")))
        rows.append(Number("sine_max", side, 0.1, getattr(g.turning, f"{side}_max")))
    rows += [Number("rotation", "", share, value) for share, value in g.turning.rotation.items()]
    for atol, c in g.coverage.items():
        rows += _of_coverage(c, atol, g.nonprincipal_or_low)
    squares = s.sigma**2 / (s.sigma**2).sum()
    indices = sorted({round(len(squares) ** (i / (CURVE - 1))) for i in range(CURVE)})
    return tuple(rows + [Number("energy_at", "", i, float(squares[i - 1])) for i in indices])


def _of_coverage(c: Coverage, atol: float, random: Mapping[float, float]) -> list[Number]:
    """The rows of a coverage; `random` is what a random update covers of the coordinates nonprincipal or low."""
    rows = [Number("density", "", None, c.density, atol=atol)]
    chances = {"principal_not_low": {s: 1 - v for s, v in random.items()}, "nonprincipal_or_low": random}
    for mask in ("principal", "low", *chances):
        chance = chances.get(mask, {})
        rows += [Number("coverage", mask, share, v, chance.get(share), atol) for share, v in getattr(c, mask).items()]
    rows += [Number("coverage_ceiling", "", share, v, atol=atol) for share, v in c.ceiling.items()]
    for mask, found in (("principal", c.changed_principal), ("low", c.changed_low)):
        rows += [Number("changed_in", mask, share, v, c.density, atol) for share, v in found.items()]
    return rows


@dataclass(frozen=True)
class Target:
    """One trained checkpoint over the source, and the matrices of it."""

    trained: Checkpoint
    matches: Mapping[str, Match]
    """By name."""
    scales: Mapping[str, float] | None = None
    """Name of a matrix -> root mean square of its delta before rounding, where it is known from elsewhere.
    None where visibility is not asked for, or has nothing to say: in every view but bf16."""


def differ(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether two finite tensors of one shape differ in any value; their dtypes may differ."""
    common = torch.promote_types(a.dtype, b.dtype)
    return not torch.equal(a.to(common), b.to(common))


@contextmanager
def solved(spec: str, name: str, matrix: torch.Tensor) -> Iterator[None]:
    """Around the decomposition of a matrix of the checkpoint `spec`: where every solver fails, it is a MeasureError."""
    try:
        yield
    except LinAlgError as error:
        raise MeasureError(
            f"{spec}: {name}: no solver could decompose this {tuple(matrix.shape)} matrix ({error}); "
            "leave the tensor out under skip (--skip NAME)"
        ) from error


def measure_matrix(
    source: Checkpoint, targets: Sequence[Target], name: str, view: str, device: torch.device, nulls: Collection[str]
) -> dict[int, list[MatrixResult]]:
    """The result of one matrix for every target that has it (by its place), in a list that is empty if nothing changed.

    Matrices outside, targets inside: a source matrix is decomposed once, unless targets share different rows of a
    vocabulary with it. `nulls` asks for the exact ones (`nulls`) and for a draw of each (`draws`). Raises MeasureError
    for a matrix that no solver can decompose.
    """
    results: dict[int, list[MatrixResult]] = {n: [] for n, t in enumerate(targets) if name in t.matches}
    for place in dict.fromkeys(targets[number].matches[name].source for number in results):
        stored = place.read(source)
        own = {
            n: m.trained.read(targets[n].trained) for n in results if (m := targets[n].matches[name]).source == place
        }
        for number, result in _matrix(source.spec, stored, own, targets, name, view, device, nulls).items():
            results[number].append(result)
    return results


def _matrix(
    spec: str,
    stored: torch.Tensor,
    after: Mapping[int, torch.Tensor],
    targets: Sequence[Target],
    name: str,
    view: str,
    device: torch.device,
    nulls: Collection[str],
) -> dict[int, MatrixResult]:
    """The result of one source matrix, as it is stored, for every target whose own, in `after`, differs from it."""
    matrix, expert = view_of(stored, view), parse(name).expert
    changed = {n: t for n, t in after.items() if differ(matrix, view_of(t, view))}
    if not changed:
        return {}
    known: list[Chances] = []
    drawn: list[tuple[int, str, torch.Tensor]] = []
    for number, other in changed.items() if nulls else ():
        histogram = scan(matrix, view_of(other, view)).histogram
        scales = targets[number].scales
        own = None if scales is None else noise(stored, other, histogram, scales.get(name))
        known.append(chances(histogram, own))
        if "draws" in nulls:
            own_draws = draws(name, expert, matrix, other, view, own)
            drawn += [(number, null, d) for null, d in own_draws.items() if differ(matrix, d)]
    trained = [view_of(t, view) for t in changed.values()] + [d for _, _, d in drawn]
    known += [{}] * (len(trained) - len(known))
    with solved(spec, name, matrix):
        found = geometries(matrix.to(device), [t.to(device) for t in trained], known)
    expected: dict[int, dict[str, tuple[Number, ...]]] = {number: {} for number in changed}
    for (number, null, _), g in zip(drawn, found[len(changed) :], strict=True):
        expected[number][null] = tuple(n for n in numbers_of(g) if n.atol in (None, 0.0))
    for number, g in zip(changed, found, strict=False):
        for null, coverage in g.nulls.items():
            exact = _of_coverage(coverage, 0.0, {})
            kept = [r for r in expected[number].get(null, ()) if r.atol is None]
            expected[number][null] = (*kept, *exact)
    return {
        number: MatrixResult(name, expert, g.route, numbers_of(g), g.reasons, expected[number])
        for number, g in zip(changed, found, strict=False)
    }


def has_geometry(shape: tuple[int, ...]) -> str:
    """Why a parameter of this shape has no geometry, in a few words; empty if it has."""
    if math.prod(shape) == 0:
        return "no coordinates"
    return "" if len(shape) == 2 else f"{len(shape)}-D, a spectrum needs a matrix"


def to_json(result: MatrixResult) -> dict[str, Any]:
    """What a ledger keeps of a matrix; `asdict` would copy every number of it, cell by cell."""
    nulls = {null: [vars(number) for number in numbers] for null, numbers in result.nulls.items()}
    return vars(result) | {"numbers": [vars(number) for number in result.numbers], "nulls": nulls}


def from_json(row: dict[str, Any]) -> MatrixResult:
    """The inverse of `to_json`; NaN stays NaN in JSON, which Python's reader takes back."""
    nulls = {null: tuple(Number(**number) for number in numbers) for null, numbers in row["nulls"].items()}
    return MatrixResult(**(row | {"numbers": tuple(Number(**number) for number in row["numbers"]), "nulls": nulls}))
