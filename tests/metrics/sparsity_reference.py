"""The definitions of sparsity, written down slowly in float64 numpy: every coordinate, full sorts, no histogram."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray


def wide(tensor: torch.Tensor) -> NDArray[np.float64]:
    return tensor.to(torch.float64).flatten().numpy()


def at_most(source: torch.Tensor, trained: torch.Tensor, eps: float) -> int:
    return sum(1 for d in (wide(trained) - wide(source)).tolist() if abs(d) <= eps)


def within_ulp(source: torch.Tensor, trained: torch.Tensor, eta: float) -> int:
    pairs = zip(wide(source).tolist(), wide(trained).tolist(), strict=True)
    return sum(1 for w, v in pairs if abs(v - w) <= eta * max(abs(w), abs(v)))


def rms(source: torch.Tensor) -> float:
    return math.sqrt(math.fsum(w * w for w in wide(source).tolist()) / source.numel())


def energy_of_top(tensors: Sequence[tuple[torch.Tensor, torch.Tensor]], count: int) -> float:
    squares = [d * d for s, t in tensors for d in (wide(t) - wide(s)).tolist()]
    return math.fsum(sorted(squares, reverse=True)[:count])
