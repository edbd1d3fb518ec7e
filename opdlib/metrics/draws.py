"""Sets of coordinates that are chosen once and kept: ties and random parts are drawn from a generator that is given."""

import zlib

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

BINADES = 256
"""Exponents of a bf16 number."""


def generator(seed: int, name: str, *more: int) -> np.random.Generator:
    """What draws for the tensor `name`, whatever was drawn before it; `more` tells its draws from one another."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(zlib.crc32(name.encode()), *more)))


def binades(weights: Tensor) -> NDArray[np.int16]:
    """The exponent of each abs(weight) as bf16 stores it, flat: 0 for zeros and subnormals, else one a power of two.

    A bf16 number is 7 bits of mantissa under its exponent: the bits above them name its binade.
    """
    bits: NDArray[np.int16] = weights.to(torch.bfloat16).abs().flatten().view(torch.int16).numpy()
    return bits >> 7


def largest(values: Tensor, count: int, rng: np.random.Generator) -> Tensor:
    """The `count` largest of `values`: bool of their shape. Those that tie at the cut are drawn."""
    flat = values.flatten().numpy()
    chosen = np.zeros(len(flat), dtype=bool)
    if count:
        cut = np.partition(flat, len(flat) - count)[len(flat) - count]
        chosen[flat > cut] = True
        ties = np.flatnonzero(flat == cut)
        chosen[rng.permutation(ties)[: count - int(chosen.sum())]] = True
    return torch.from_numpy(chosen).reshape(values.shape)


def drawn_alike(owned: Tensor, bins: NDArray[np.integer], rng: np.random.Generator) -> Tensor:
    """As many coordinates of each bin as `owned` (bool) has there, drawn uniformly: bool of its shape.

    `bins` (flat, integers from 0 below BINADES) may be all the same.
    """
    flat = owned.flatten().numpy()
    keys = rng.random(len(flat))
    order = np.argsort(bins, kind="stable")
    ends = np.cumsum(np.bincount(bins, minlength=BINADES))
    drawn = np.zeros(len(flat), dtype=bool)
    for place, count in enumerate(np.bincount(bins[flat], minlength=BINADES)):
        if count:
            members = order[ends[place - 1] if place else 0 : ends[place]]
            drawn[members[np.argpartition(keys[members], count - 1)[:count]]] = True
    return torch.from_numpy(drawn).reshape(owned.shape)
