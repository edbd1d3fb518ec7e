"""The definitions of the geometry, written down in float64 numpy with full decompositions and explicit masks."""

import math

import numpy as np
import torch
from numpy.typing import NDArray

from opdlib.metrics.sparsity import count_of
from opdlib.metrics.subspace import rank_of

Matrix = NDArray[np.float64]


def wide(tensor: torch.Tensor) -> Matrix:
    return tensor.to(torch.float64).numpy()


def singular_values(matrix: Matrix) -> Matrix:
    return np.linalg.svd(matrix, compute_uv=False)


def projections(source: Matrix, delta: Matrix, share: float) -> tuple[float, float, float]:
    u, _, vh = np.linalg.svd(source)
    k = rank_of(share, source.shape)
    energy = (delta**2).sum()
    joint = (u[:, :k].T @ delta @ vh[:k].T) ** 2
    return joint.sum() / energy, ((u[:, :k].T @ delta) ** 2).sum() / energy, ((delta @ vh[:k].T) ** 2).sum() / energy


def sines(a: Matrix, b: Matrix) -> Matrix:
    """Of the principal angles between two column spaces, from the projector of the complement."""
    return np.linalg.svd(b - a @ (a.T @ b), compute_uv=False)


def turning(source: Matrix, trained: Matrix, share: float) -> tuple[Matrix, Matrix]:
    k = rank_of(share, source.shape)
    u, _, vh = np.linalg.svd(source, full_matrices=False)
    u2, _, vh2 = np.linalg.svd(trained, full_matrices=False)
    return sines(u[:, :k], u2[:, :k]), sines(vh[:k].T, vh2[:k].T)


def rebuilt(source: Matrix, share: float) -> Matrix:
    u, s, vh = np.linalg.svd(source, full_matrices=False)
    k = rank_of(share, source.shape)
    return np.abs((u[:, :k] * s[:k]) @ vh[:k])


def membership(values: Matrix, share: float, largest: bool) -> Matrix:
    """Expected membership of each coordinate in the mask of its extreme values, over all ways to break ties."""
    flat = values.flatten() if largest else -values.flatten()
    size = count_of(share, flat.size)
    cut = np.sort(flat)[::-1][size - 1]
    inside, tied = flat > cut, flat == cut
    return (inside + tied * (size - inside.sum()) / tied.sum()).reshape(values.shape)


def coverage(source: Matrix, delta: Matrix, share: float, atol: float) -> dict[str, float]:
    updated = np.abs(delta) > atol
    principal = membership(rebuilt(source, share), share, largest=True)
    low = membership(np.abs(source), share, largest=False)
    total = updated.sum()
    return {
        "principal": (updated * principal).sum() / total,
        "low": (updated * low).sum() / total,
        "principal_not_low": (updated * principal * (1 - low)).sum() / total,
        "of_principal_not_low": (principal * (1 - low)).mean(),
        "updates": total,
        "ceiling": min(1.0, count_of(share, source.size) / total),
        "changed_principal": (updated * principal).sum() / count_of(share, source.size),
        "changed_low": (updated * low).sum() / count_of(share, source.size),
    }


def hill(sigma: Matrix) -> float:
    k = max(2, math.floor(0.1 * len(sigma)))
    return 1 / float(np.mean([math.log(s / sigma[k - 1]) for s in sigma[: k - 1]]))
