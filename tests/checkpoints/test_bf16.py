import lzma

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from opdlib.checkpoints import bf16

Bits = NDArray[np.uint16]
ALL = np.arange(1 << 16, dtype=np.uint16)

# -0, subnormals, Inf, NaNs with payloads, the largest and smallest: what a random draw rarely meets.
EDGES = [0x0000, 0x8000, 0x0001, 0x8001, 0x007F, 0x0080, 0x7F7F, 0xFF7F, 0x7F80, 0xFF80, 0x7FC0, 0x7FC1, 0xFFFF, 0x7FFF]
any_bits = st.one_of(st.sampled_from(EDGES), st.integers(0, 0xFFFF))


@st.composite
def matrices(draw: st.DrawFn) -> tuple[Bits, Bits, int]:
    """Source and trained bits, unrelated or a few steps apart, and the number of columns."""
    rows, columns = draw(st.integers(1, 12)), draw(st.integers(1, 12))
    source = draw(arrays(np.uint16, rows * columns, elements=any_bits))
    if draw(st.booleans()):
        return source, draw(arrays(np.uint16, source.size, elements=any_bits)), columns
    steps = draw(arrays(np.int16, source.size, elements=st.integers(-8, 8), fill=st.just(0)))
    return source, bf16.bits(bf16.key(source) + steps), columns


def tensor_bits(tensor: torch.Tensor) -> Bits:
    return tensor.to(torch.bfloat16).flatten().view(torch.uint16).numpy()


def test_key_is_a_bijection_that_keeps_the_order_of_numbers() -> None:
    keys = bf16.key(ALL)
    assert np.array_equal(np.sort(keys), np.arange(-32768, 32768))
    assert np.array_equal(bf16.bits(keys), ALL)
    values = torch.from_numpy(ALL.copy()).view(torch.bfloat16).double().numpy()
    ordered = values[np.argsort(keys)]
    numbers = ordered[~np.isnan(ordered)]
    assert (np.diff(numbers[np.isfinite(numbers)]) >= 0).all()
    assert (numbers[0], numbers[-1]) == (-np.inf, np.inf)
    # The one pair of equal numbers: -0 lies just below +0.
    assert bf16.key(np.array([0x8001, 0x8000, 0x0000, 0x0001], np.uint16)).tolist() == [-2, -1, 0, 1]


@pytest.mark.slow
@given(matrices())
@settings(deadline=None, max_examples=300)
def test_every_bit_pattern_comes_back(pair: tuple[Bits, Bits, int]) -> None:
    source, trained, columns = pair
    before = source.copy(), trained.copy()
    stream = bf16.encode(source, trained, columns)
    assert np.array_equal(bf16.decode(source, stream, columns), trained)
    assert np.array_equal(source, before[0])
    assert np.array_equal(trained, before[1])
    assert bf16.encode(source, trained, columns) == stream


def test_the_longest_steps_come_back() -> None:
    source = bf16.bits(np.arange(-32768, 32768).astype(np.int16))
    trained = source[::-1].copy()
    assert np.ptp(bf16.key(source).astype(int)) == 65535  # from the lowest NaN to the highest
    for columns in (1, 256, 1 << 16):
        assert np.array_equal(bf16.decode(source, bf16.encode(source, trained, columns), columns), trained)


def test_blocks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(40, 25, generator=generator) * 0.05
    source, trained = (tensor_bits(w) for w in (weights, weights + 1e-4 * torch.randn(40, 25, generator=generator)))
    monkeypatch.setattr(bf16, "BLOCK", 64)
    assert np.array_equal(bf16.decode(source, bf16.encode(source, trained, 25), 25), trained)


def test_a_small_update_costs_less_than_generic_compression_of_its_difference() -> None:
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(512, 512, generator=generator) * 0.05
    source, trained = (tensor_bits(w) for w in (weights, weights + 1e-4 * torch.randn(512, 512, generator=generator)))
    stream = bf16.encode(source, trained, 512)
    assert len(stream) < 0.7 * len(lzma.compress((source ^ trained).tobytes()))


def test_damaged_streams_are_refused_or_decode_to_something_of_the_right_size() -> None:
    generator = np.random.default_rng(0)
    source = generator.integers(0, 1 << 16, 600, dtype=np.uint16)
    trained = np.where(generator.random(600) < 0.3, source ^ np.uint16(3), source)
    stream = bf16.encode(source, trained, 20)
    refused = 0
    for position in range(len(stream)):
        damaged = bytearray(stream)
        damaged[position] ^= 1 << (position % 8)
        try:
            assert bf16.decode(source, bytes(damaged), 20).shape == source.shape
        except ValueError:
            refused += 1
    assert refused > 0


@pytest.mark.parametrize("change", [lambda s: s[:-1], lambda s: s[: len(s) // 2], lambda s: s + b"\0", lambda s: b""])
def test_streams_cut_off_or_too_long_are_refused(change: object) -> None:
    source, trained = ALL.copy(), np.roll(ALL, 1)
    assert callable(change)
    with pytest.raises(ValueError, match=r"cut off or too long|cannot be decompressed"):
        bf16.decode(source, change(bf16.encode(source, trained, 256)), 256)


@pytest.mark.parametrize(("size", "reason"), [(1, "fewer than it announces"), (40, "were announced")])
def test_streams_of_another_tensor_are_refused(size: int, reason: str) -> None:
    source = np.zeros(80, np.uint16)
    stream = lzma.compress(bytes(size), lzma.FORMAT_RAW, filters=bf16.FILTERS)
    with pytest.raises(ValueError, match=reason):
        bf16.decode(source, stream, 8)


def test_a_stream_that_swells_is_cut_short() -> None:
    bomb = lzma.compress(bytes(1 << 24), lzma.FORMAT_RAW, filters=bf16.FILTERS)
    with pytest.raises(ValueError, match="too long"):
        bf16.decode(np.zeros(80, np.uint16), bomb, 8)
