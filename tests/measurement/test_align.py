from collections.abc import Callable, Mapping, Sequence
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
        source: Weights,
        trained: Weights,
        *,
        configs: tuple[object, object] = (None, None),
        skip: Sequence[str] = (),
        rename: Mapping[str, str] | None = None,
    ) -> Alignment:
        sides = [
            open_checkpoint(str(write_checkpoint(tmp_path / name, weights, config=config)))  # type: ignore[arg-type]
            for name, weights, config in (("source", source, configs[0]), ("trained", trained, configs[1]))
        ]
        return align(sides[0], sides[1], skip, rename)

    return run


def prefixed(weights: Weights, old: str, new: str) -> Weights:
    return {new + name.removeprefix(old) if name.startswith(old) else name: w for name, w in weights.items()}


def test_equal_names_match_themselves(aligned: Align) -> None:
    weights = pico_weights()
    alignment = aligned(weights, moved(weights))
    assert [(m.source.stored, m.trained.stored) for m in alignment.matches] == [(n, n) for n in sorted(weights)]
    assert alignment.parameters == sum(w.numel() for w in weights.values())
    assert alignment.left_out == {}


@pytest.mark.parametrize("prefix", ["model.language_model.", "language_model.model."])
@pytest.mark.parametrize("side", [0, 1])
def test_known_prefixes_match(aligned: Align, prefix: str, side: int) -> None:
    plain, renamed = pico_weights(), prefixed(pico_weights(), "model.", prefix)
    alignment = aligned(*((renamed, plain) if side == 0 else (plain, renamed)))
    assert len(alignment.matches) == len(plain)
    assert all(m.source.stored != m.trained.stored for m in alignment.matches)
    assert {m.param.layer for m in alignment.matches} == {None, 0, 1}


def test_an_exact_name_wins_over_a_prefix(aligned: Align) -> None:
    weights = {"model.a.weight": torch.zeros(2), "model.language_model.a.weight": torch.ones(2)}
    alignment = aligned(weights, weights)
    assert [(m.source.stored, m.trained.stored) for m in alignment.matches] == [(n, n) for n in sorted(weights)]


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


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda name: f"module.{name}",
        lambda name: f"_orig_mod.{name}",
        lambda name: f"_fsdp_wrapped_module.{name.replace('.mlp.', '._fsdp_wrapped_module.mlp.')}",
        lambda name: f"pretrained_model.{name}",
        lambda name: name.removeprefix("model."),
    ],
)
def test_what_wraps_a_model_is_no_part_of_its_names(aligned: Align, wrapped: Callable[[str], str]) -> None:
    weights = pico_weights()
    for sides in ((weights, in_names(weights, wrapped)), (in_names(weights, wrapped), weights)):
        alignment = aligned(*sides)
        assert {(m.param.layer, m.param.module, m.param.block) for m in alignment.matches} == {
            (m.param.layer, m.param.module, m.param.block) for m in aligned(weights, weights).matches
        }
        assert alignment.parameters == sum(w.numel() for w in weights.values())


def in_names(weights: Weights, wrapped: Callable[[str], str]) -> Weights:
    return {wrapped(name): w for name, w in weights.items()}


def test_other_beginnings_are_renamed(aligned: Align) -> None:
    weights = pico_weights()
    other = prefixed(weights, "model.", "actor.net.")
    with pytest.raises(AlignmentError, match=r"--rename actor\.net\.=model\.$"):
        aligned(weights, other)
    assert len(aligned(weights, other, rename={"actor.net.": "model."}).matches) == len(weights)
    with pytest.raises(ParameterError, match="neither"):
        aligned(weights, other, rename={"acto": "model."})


def test_buffers_are_left_out_on_either_side(aligned: Align) -> None:
    weights = pico_weights()
    buffers = {"model.rotary_emb.inv_freq": torch.ones(4), "model.position_ids": torch.arange(8)[None]}
    alignment = aligned(weights, weights | buffers)
    assert alignment.left_out == dict.fromkeys(buffers, "a buffer, not trained")
    assert len(alignment.matches) == len(weights)


@pytest.mark.parametrize(
    ("strange", "advice"),
    [
        ({"base.q_proj.lora_A.weight": torch.zeros(2, HIDDEN)}, "merge_and_unload"),
        ({"model.layers.0.mlp.up_proj.weight_scale_inv": torch.zeros(2, 2)}, "[Dd]equantize"),
        ({HEAD: torch.zeros(40, HIDDEN)}, "tie_word_embeddings"),
    ],
)
def test_a_refusal_says_what_helps(aligned: Align, strange: Weights, advice: str) -> None:
    weights = pico_weights()
    with pytest.raises(AlignmentError, match=advice):
        aligned(weights, weights | strange)


def test_a_skip_takes_what_is_stored_or_a_matrix_of_it(aligned: Align) -> None:
    fused = {"model.layers.0.mlp.gate_up_proj.weight": torch.zeros(8, HIDDEN), "model.norm.weight": torch.zeros(HIDDEN)}
    alone = aligned(fused, fused, skip=["model.layers.0.mlp.gate_up_proj.weight"])
    assert [m.name for m in alone.matches] == ["model.norm.weight"]
    half = aligned(fused, fused, skip=["*.gate_proj.weight"])
    assert [m.name for m in half.matches] == ["model.layers.0.mlp.up_proj.weight", "model.norm.weight"]


def test_unrelated_models(aligned: Align) -> None:
    with pytest.raises(AlignmentError, match="no tensor name in common"):
        aligned(pico_weights(), {"other.a": torch.zeros(2), "other.b": torch.zeros(2)})


def test_shapes_must_be_equal(aligned: Align) -> None:
    weights, norm = pico_weights(), "model.norm.weight"
    with pytest.raises(AlignmentError, match=rf"{norm}: \[{HIDDEN}\].*\[{HIDDEN + 1}\].*--skip"):
        aligned(weights, weights | {norm: torch.zeros(HIDDEN + 1)})
    with pytest.raises(AlignmentError, match=rf"{EMBEDDING}: \[40, {HIDDEN}\].*\[40, {HIDDEN + 1}\]"):
        aligned(weights, weights | {EMBEDDING: torch.zeros(40, HIDDEN + 1)})


@pytest.mark.parametrize("rows", [37, 44])
def test_of_vocabularies_of_two_sizes_the_shared_rows_are_compared(aligned: Align, rows: int) -> None:
    weights = pico_weights()
    alignment = aligned(weights, weights | {EMBEDDING: torch.zeros(rows, HIDDEN, dtype=torch.bfloat16)})
    (match,) = (m for m in alignment.matches if m.name == EMBEDDING)
    assert match.source.info == match.trained.info
    assert match.info.shape == (min(rows, 40), HIDDEN)
    assert "40 rows in" in alignment.notes[EMBEDDING]
    assert f"the first {min(rows, 40)} are compared" in alignment.notes[EMBEDDING]


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
    assert HEAD not in {m.name for m in alignment.matches}
    assert EMBEDDING in {m.name for m in alignment.matches}
    assert "counted once" in alignment.left_out[HEAD]


def test_one_side_that_declares_the_tie_is_enough(aligned: Align) -> None:
    source = pico_weights()
    trained = moved(source)
    alignment = aligned(source, trained | {HEAD: trained[EMBEDDING].clone()}, configs=(TIED, None))
    assert "counted once" in alignment.left_out[HEAD]


def with_head(weights: Weights, head: torch.Tensor | None = None) -> Weights:
    return weights | {HEAD: (weights[EMBEDDING] if head is None else head).clone()}


def test_without_a_declaration_equal_heads_are_counted_once_and_it_is_said(aligned: Align) -> None:
    source = pico_weights()
    trained = moved(source)
    for before in (source, with_head(source)):
        alignment = aligned(before, with_head(trained))
        assert HEAD not in {m.name for m in alignment.matches}
        assert alignment.notes[HEAD] == alignment.left_out[HEAD]
        assert "no config.json ties it" in alignment.notes[HEAD]
    untied = {"tie_word_embeddings": False}
    assert HEAD in {m.name for m in aligned(with_head(source), with_head(trained), configs=(untied, untied)).matches}


def test_under_other_names_a_tied_head_is_counted_once(aligned: Align) -> None:
    names = {EMBEDDING: "gpt_neox.embed_in.weight", HEAD: "embed_out.weight"}
    source = pico_weights()
    sides = [{names.get(n, n): w for n, w in with_head(side).items()} for side in (source, moved(source))]
    for configs in ((TIED, TIED), (None, None)):
        alignment = aligned(*sides, configs=configs)
        assert "counted once" in alignment.left_out["embed_out.weight"]
        assert "gpt_neox.embed_in.weight" in {m.name for m in alignment.matches}


@pytest.mark.parametrize("stored", [(True, True), (False, True), (True, False)])
def test_an_embedding_that_is_stored_again_is_counted_once(aligned: Align, stored: tuple[bool, bool]) -> None:
    again = ("decoder.embed_tokens.weight", "encoder.embed_tokens.weight")
    weights = pico_weights()
    source = {"shared.weight": weights.pop(EMBEDDING)} | weights
    sides = [source, moved(source)]
    for side, is_stored in zip(sides, stored, strict=True):
        side |= {name: side["shared.weight"].clone() for name in again} if is_stored else {}
    alignment = aligned(*sides)
    assert {"shared.weight", *again} & {m.name for m in alignment.matches} == {"shared.weight"}
    assert set(again) <= set(alignment.notes)
    if all(stored):
        sides[1][again[0]] = sides[1][again[0]] + 1
        assert again[0] in {m.name for m in aligned(*sides).matches}, "one that was trained apart is its own"


def test_the_bias_of_a_head_that_is_stored_twice_is_counted_once(aligned: Align) -> None:
    """As transformers writes BERT, whose head is tied as well."""
    own, again = "cls.predictions.bias", "cls.predictions.decoder.bias"
    source = with_head(pico_weights()) | {own: torch.arange(64.0)}
    sides = [side | {again: side[own].clone()} for side in (source, moved(source))]
    alignment = aligned(*sides)
    assert {own, again} & {m.name for m in alignment.matches} == {own}
    assert alignment.notes[again] == alignment.left_out[again]
    sides[1][again] = sides[1][again] + 1
    assert again in {m.name for m in aligned(*sides).matches}, "one that was trained apart is its own"


def test_heads_that_part_in_training_are_compared(aligned: Align) -> None:
    source = with_head(pico_weights())
    trained = with_head(moved(source), source[HEAD] + 1)
    assert HEAD in {m.name for m in aligned(source, trained).matches}
    with pytest.raises(AlignmentError, match=rf"only in .*{HEAD}.*tie_word_embeddings: true"):
        aligned(pico_weights(), trained)


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("config", [None, {"tie_word_embeddings": False}])
def test_a_tied_source_and_an_untied_head_are_compared(aligned: Align, stored: bool, config: object) -> None:
    source = pico_weights()
    trained = with_head(moved(source), source[EMBEDDING] + 1)
    alignment = aligned(with_head(source) if stored else source, trained, configs=(TIED, config))
    (match,) = (m for m in alignment.matches if m.name == HEAD)
    assert (match.source.stored, match.trained.stored) == (HEAD if stored else EMBEDDING, HEAD)
    assert EMBEDDING in {m.name for m in alignment.matches}
    assert stored or f"compared with {EMBEDDING}" in alignment.notes[HEAD]


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
    assert delta.match.trained.info.dtype == "F32"
