from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from opdlib.checkpoints import open_checkpoint
from opdlib.errors import AlignmentError, MeasureError, ParameterError
from opdlib.measurement.align import Alignment, align, read_delta
from tests.conftest import HIDDEN, Weights, moved, pico_weights, write_checkpoint

TIED = {"tie_word_embeddings": True}
HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"

Align = Callable[..., Alignment]


@pytest.fixture
def aligned(tmp_path: Path) -> Align:
    def run(
        source: Weights, trained: Weights, *, configs: tuple[object, object] = (None, None), skip: Sequence[str] = ()
    ) -> Alignment:
        sides = [
            open_checkpoint(str(write_checkpoint(tmp_path / name, weights, config=config)))  # type: ignore[arg-type]
            for name, weights, config in (("source", source, configs[0]), ("trained", trained, configs[1]))
        ]
        return align(sides[0], sides[1], skip)

    return run


def prefixed(weights: Weights, old: str, new: str) -> Weights:
    return {new + name.removeprefix(old) if name.startswith(old) else name: w for name, w in weights.items()}


def test_equal_names_match_themselves(aligned: Align) -> None:
    weights = pico_weights()
    alignment = aligned(weights, moved(weights))
    assert [(m.source, m.trained) for m in alignment.matches] == [(n, n) for n in sorted(weights)]
    assert alignment.parameters == sum(w.numel() for w in weights.values())
    assert alignment.left_out == {}


@pytest.mark.parametrize("prefix", ["model.language_model.", "language_model.model."])
@pytest.mark.parametrize("side", [0, 1])
def test_known_prefixes_match(aligned: Align, prefix: str, side: int) -> None:
    plain, renamed = pico_weights(), prefixed(pico_weights(), "model.", prefix)
    alignment = aligned(*((renamed, plain) if side == 0 else (plain, renamed)))
    assert len(alignment.matches) == len(plain)
    assert all(m.source != m.trained for m in alignment.matches)
    assert {m.param.layer for m in alignment.matches} == {None, 0, 1}


def test_an_exact_name_wins_over_a_prefix(aligned: Align) -> None:
    weights = {"model.a.weight": torch.zeros(2), "model.language_model.a.weight": torch.ones(2)}
    alignment = aligned(weights, weights)
    assert [(m.source, m.trained) for m in alignment.matches] == [(n, n) for n in sorted(weights)]


def test_two_names_for_one_parameter_are_refused(aligned: Align) -> None:
    source = {"a.weight": torch.zeros(2)}
    trained = {"language_model.a.weight": torch.zeros(2), "model.language_model.x.weight": torch.zeros(2)}
    with pytest.raises(AlignmentError, match="both stand for"):
        aligned(source, trained | {"language_model.model.x.weight": torch.zeros(2)})


@pytest.mark.parametrize("side", [0, 1])
def test_a_stranger_stops_unless_skipped(aligned: Align, side: int) -> None:
    weights = pico_weights()
    sides = [weights, dict(weights)]
    sides[side] = sides[side] | {"extra.weight": torch.zeros(3)}
    with pytest.raises(AlignmentError, match=r"extra\.weight.*--skip"):
        aligned(*sides)
    alignment = aligned(*sides, skip=["extra.weight"])
    assert alignment.left_out == {"extra.weight": "skipped: extra.weight"}
    assert len(alignment.matches) == len(weights)
    assert aligned(*sides, skip=["extra.*", "*layernorm*"]).left_out.keys() >= {"extra.weight"}


def test_long_lists_of_strangers_are_cut(aligned: Align) -> None:
    with pytest.raises(AlignmentError, match="and 15 more"):
        aligned(pico_weights(layers=1), pico_weights(layers=3))


def test_unrelated_models(aligned: Align) -> None:
    with pytest.raises(AlignmentError, match="no tensor name in common"):
        aligned(pico_weights(), {"other.a": torch.zeros(2), "other.b": torch.zeros(2)})


def test_shapes_must_be_equal(aligned: Align) -> None:
    weights = pico_weights()
    with pytest.raises(AlignmentError, match=rf"{EMBEDDING}: \[40, {HIDDEN}\].*\[41, {HIDDEN}\].*--skip"):
        aligned(weights, weights | {EMBEDDING: torch.zeros(41, HIDDEN)})


@pytest.mark.parametrize(
    "dtype", [torch.int8, torch.int32, torch.uint8, torch.float64, torch.float8_e4m3fn, torch.bool]
)
@pytest.mark.parametrize("side", [0, 1])
def test_a_dtype_that_cannot_be_subtracted_is_refused_by_name(aligned: Align, dtype: torch.dtype, side: int) -> None:
    sides = [pico_weights(), pico_weights()]
    sides[side]["model.norm.weight"] = torch.zeros(HIDDEN).to(dtype)
    with pytest.raises(MeasureError, match=r"model\.norm\.weight is stored as"):
        aligned(*sides)


def test_a_skip_that_names_nothing_is_refused(aligned: Align) -> None:
    with pytest.raises(ParameterError, match="neither"):
        aligned(pico_weights(), pico_weights(), skip=["model.layer.0*"])


def test_skipping_everything_is_refused(aligned: Align) -> None:
    with pytest.raises(AlignmentError, match="nothing is left"):
        aligned(pico_weights(), pico_weights(), skip=["*"])


@pytest.mark.parametrize("stored", [(False, False), (True, False), (False, True), (True, True)])
def test_a_tied_head_is_counted_once_and_said_so(aligned: Align, stored: tuple[bool, bool]) -> None:
    source = pico_weights()
    sides = [source, moved(source)]
    for side, keep in enumerate(stored):
        if keep:
            sides[side] = sides[side] | {HEAD: sides[side][EMBEDDING].clone()}
    alignment = aligned(*sides, configs=(TIED, TIED))
    assert HEAD not in {m.source for m in alignment.matches}
    assert EMBEDDING in {m.source for m in alignment.matches}
    assert "counted once" in alignment.left_out[HEAD]


def test_one_side_that_declares_the_tie_is_enough(aligned: Align) -> None:
    source = pico_weights()
    trained = moved(source)
    alignment = aligned(source, trained | {HEAD: trained[EMBEDDING].clone()}, configs=(TIED, None))
    assert "counted once" in alignment.left_out[HEAD]


def test_without_a_declaration_nothing_is_tied(aligned: Align) -> None:
    source = pico_weights()
    trained = moved(source)
    both = [source | {HEAD: source[EMBEDDING].clone()}, trained | {HEAD: trained[EMBEDDING].clone()}]
    assert HEAD in {m.source for m in aligned(*both).matches}
    with pytest.raises(AlignmentError, match=HEAD):
        aligned(source, both[1])


def test_a_tied_head_that_differs_is_refused(aligned: Align) -> None:
    source = pico_weights()
    with pytest.raises(AlignmentError, match="the stored tensors differ"):
        aligned(source, moved(source) | {HEAD: torch.zeros_like(source[EMBEDDING])}, configs=(TIED, TIED))


@pytest.mark.parametrize("view", ["bf16", "stored"])
def test_views(tmp_path: Path, view: str) -> None:
    source = {"w": torch.tensor([1.0, 2.0], dtype=torch.bfloat16)}
    trained = {"w": torch.tensor([1.0 + 2.0**-20, 2.0 + 2.0**-6 + 2.0**-8])}
    sides = [open_checkpoint(write_checkpoint(tmp_path / n, w)) for n, w in (("s", source), ("t", trained))]
    (match,) = align(*sides).matches
    delta = read_delta(*sides, match, view)
    difference = (delta.trained.double() - delta.source.double()).tolist()
    # bf16 has steps of 2^-6 at 2: the first update vanishes, the second is rounded to a whole step
    assert difference == ([0.0, 2.0**-6] if view == "bf16" else [2.0**-20, 2.0**-6 + 2.0**-8])
    assert delta.match.trained_dtype == "F32"
