"""The plain implementation of the geometry: the same definitions as opdlib, written as a textbook would.

Four float32 singular value decompositions a matrix (the delta's values, the source's, the trained's, and the source's
again for the masks), full masks by `topk`. It is the measure of both speed and correctness in `benchmarks/geometry.py`.
"""

import math

import torch

SHARES = (0.01, 0.05, 0.1, 0.2)


def mask_of(values: torch.Tensor, share: float, largest: bool) -> torch.Tensor:
    """Boolean mask of ceil(share * numel) extreme values; ties fall as `topk` likes."""
    flat = values.flatten()
    count = min(max(math.ceil(round(share * flat.numel(), 9)), 1), flat.numel())
    chosen = torch.zeros_like(flat, dtype=torch.bool)
    chosen[torch.topk(flat, count, largest=largest).indices] = True
    return chosen.reshape(values.shape)


def textbook(source: torch.Tensor, trained: torch.Tensor) -> dict[str, float]:
    """Every number of one matrix, by name."""
    w, w_new = source.float(), trained.float()
    delta = w_new - w
    energy = float((delta.double() ** 2).sum())
    sigma = torch.linalg.svdvals(delta)
    squares = (sigma.double() ** 2) / (sigma.double() ** 2).sum()
    p = sigma.double() / sigma.double().sum()
    numbers = {f"energy {k}": float(squares[:k].sum()) for k in (1, 2, 4, 8, 16, 32, 64)}
    numbers |= {"stable_rank": float(1 / squares[0]), "effective_rank": float(torch.special.entr(p).sum().exp())}
    numbers |= {f"rank {t:g}": float((sigma > t * sigma[0]).double().mean()) for t in (1e-6, 1e-5, 1e-4)}

    u, s, vh = torch.linalg.svd(w, full_matrices=False)
    u_new, s_new, vh_new = torch.linalg.svd(w_new, full_matrices=False)
    numbers["drift"] = float((s_new.double() - s.double()).norm() / s.double().norm())
    for share in SHARES:
        k = max(1, math.floor(round(share * min(w.shape), 9)))
        numbers[f"joint {share:g}"] = float(((u[:, :k].mT @ delta @ vh[:k].mT).double() ** 2).sum()) / energy
        numbers[f"left {share:g}"] = float(((u[:, :k].mT @ delta).double() ** 2).sum()) / energy
        numbers[f"right {share:g}"] = float(((delta @ vh[:k].mT).double() ** 2).sum()) / energy
        if share == 0.1:
            cosines = torch.linalg.svdvals(u[:, :k].mT @ u_new[:, :k]).clamp(max=1)
            numbers["rotation (cosine form)"] = float((1 - cosines**2).sqrt().mean())
            cosines = torch.linalg.svdvals(vh[:k] @ vh_new[:k].mT).clamp(max=1)
            numbers["rotation right (cosine form)"] = float((1 - cosines**2).sqrt().mean())

    u, s, vh = torch.linalg.svd(w, full_matrices=False)
    for share in SHARES:
        k = max(1, math.floor(round(share * min(w.shape), 9)))
        principal = mask_of(((u[:, :k] * s[:k]) @ vh[:k]).abs(), share, largest=True)
        low = mask_of(w.abs(), share, largest=False)
        for atol in (0.0, 1e-5):
            updated = delta.double().abs() > atol
            total = int(updated.sum())
            for name, mask in (("principal", principal), ("low", low), ("nonprincipal_or_low", ~principal | low)):
                numbers[f"{name} {share:g} at {atol:g}"] = int((updated & mask).sum()) / total
    return numbers
