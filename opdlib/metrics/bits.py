"""Tensors as the kernels see them: raw bits, and the shift that makes float32 bits of them."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray


def raw_bits(tensor: torch.Tensor) -> NDArray[np.integer]:
    """The raw bits, flat and row-major: uint16 for bf16, uint32 of the (exact) float32 form for float32 and fp16.

    No copy is made of a contiguous bf16 or float32 tensor on the CPU. Raises ValueError for any other dtype.
    """
    flat = tensor.detach().cpu().contiguous().flatten()
    if flat.dtype == torch.bfloat16:
        return flat.view(torch.uint16).numpy()
    if flat.dtype in (torch.float32, torch.float16):
        return flat.float().view(torch.uint32).numpy()
    raise ValueError(f"dtype {tensor.dtype}: wanted bfloat16, float16 or float32")


def shift_of(bits: NDArray[np.integer]) -> np.uint32:
    """Left shift by which these bits become those of a float32: 16 for bf16, 0 otherwise."""
    return np.uint32(16 if bits.dtype == np.uint16 else 0)
