"""One model in every layout gives the same numbers, to the bit; and left is where the outputs are."""

import csv
import io
import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from opdlib.checkpoints import open_checkpoint
from opdlib.checkpoints.matrices import matrices
from opdlib.measurement.edit import edit
from opdlib.measurement.schedule import measure_pair
from opdlib.results.measure import files_of
from tests.conftest import Weights, moved, write_checkpoint
from tests.layouts import EXPERTS, HEADS, HIDDEN, INNER, KEY_HEADS, SIZE, alternating, grouped, numbers, stacked

LAYERS = 2
Layout = Callable[[str, Weights], Weights]
"""The prefix of a layer and the model, to what is stored instead of some of its tensors; those are taken out."""


def model() -> Weights:
    """A small model with experts, each matrix stored on its own."""
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (30, HIDDEN), "model.norm.weight": (HIDDEN,)}
    for layer in range(LAYERS):
        at = f"model.layers.{layer}"
        for word, count in (("q", HEADS), ("k", KEY_HEADS), ("v", KEY_HEADS)):
            shapes |= {f"{at}.attention.{word}_proj.weight": (count * SIZE, HIDDEN)}
        shapes |= {f"{at}.attention.wo.weight": (HIDDEN, HEADS * SIZE), f"{at}.mlp.gate.weight": (EXPERTS, HIDDEN)}
        for expert in range(EXPERTS):
            own = f"{at}.mlp.experts.{expert}"
            shapes |= {f"{own}.{word}_proj.weight": (INNER, HIDDEN) for word in ("gate", "up")}
            shapes |= {f"{own}.{word}_proj.bias": (INNER,) for word in ("gate", "up")}
            shapes |= {f"{own}.down_proj.weight": (HIDDEN, INNER), f"{own}.down_proj.bias": (HIDDEN,)}
    return {name: numbers(*shape, seed=seed) for seed, (name, shape) in enumerate(shapes.items())}


def taken(at: str, word: str, weights: Weights, kind: str = "weight") -> torch.Tensor:
    """The experts' tensors of one word, stacked, and no longer in `weights`."""
    return torch.stack([weights.pop(f"{at}.mlp.experts.{n}.{word}_proj.{kind}") for n in range(EXPERTS)])


def experts(turned: bool, alternate: bool = False) -> Layout:
    def layout(at: str, weights: Weights) -> Weights:
        join = alternating if alternate else stacked
        gate_up = join(taken(at, "gate", weights), taken(at, "up", weights))
        down = taken(at, "down", weights)
        biases = [taken(at, word, weights, "bias") for word in ("gate", "up", "down")]
        return {
            f"{at}.mlp.experts.gate_up_proj": gate_up.mT if turned else gate_up,
            f"{at}.mlp.experts.down_proj": down.mT if turned else down,
            f"{at}.mlp.experts.gate_up_proj_bias": join(*(b.unsqueeze(-1) for b in biases[:2])).squeeze(-1),
            f"{at}.mlp.experts.down_proj_bias": biases[2],
        }

    return layout


def qkv(at: str, weights: Weights) -> Weights:
    q, k, v = (weights.pop(f"{at}.attention.{word}_proj.weight") for word in "qkv")
    return {f"{at}.attention.wqkv.weight": grouped(q, k, v, KEY_HEADS)}


def stored(weights: Weights, *layouts: Layout) -> Weights:
    rest, fused = dict(weights), dict[str, torch.Tensor]()
    for layer in range(LAYERS):
        for layout in layouts:
            fused |= layout(f"model.layers.{layer}", rest)
    return {name: w.contiguous() for name, w in (fused | rest).items()}


LAYOUTS: dict[str, tuple[str, tuple[Layout, ...]]] = {
    "each on its own": ("qwen3_moe", ()),
    "experts fused": ("qwen3_moe", (experts(turned=False),)),
    "experts fused, input by output": ("qwen3_vl_moe", (experts(turned=True),)),
    "gate and up in turn, input by output": ("gpt_oss", (experts(turned=True, alternate=True),)),
    "experts and attention fused": ("qwen3_moe", (experts(turned=False), qkv)),
}


def measured(folder: Path, source: Weights, trained: Weights, models: tuple[str, str]) -> dict[str, str]:
    sides = [
        open_checkpoint(
            write_checkpoint(folder / side, w, config={"model_type": model_type, "num_attention_heads": HEADS})
        )
        for side, w, model_type in (("source", source, models[0]), ("trained", trained, models[1]))
    ]
    return files_of(measure_pair(*sides, name="any"))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The results of the layout that stores each matrix on its own."""
    source = model()
    return measured(tmp_path_factory.mktemp("plain"), source, moved(source), ("qwen3_moe", "qwen3_moe"))


LAID_OUT = [(name, name) for name in LAYOUTS][1:]
MIXED = ("each on its own", "experts and attention fused"), ("gate and up in turn, input by output", "each on its own")


@pytest.mark.slow
@pytest.mark.parametrize("layouts", [*LAID_OUT, *MIXED], ids=" | ".join)
def test_no_number_depends_on_the_layout(tmp_path: Path, plain: dict[str, str], layouts: tuple[str, str]) -> None:
    source = model()
    chosen = [LAYOUTS[name] for name in layouts]
    sides = (stored(source, *chosen[0][1]), stored(moved(source), *chosen[1][1]))
    found = measured(tmp_path, *sides, (chosen[0][0], chosen[1][0]))
    assert {name: text for name, text in found.items() if name in BYTES} == {name: plain[name] for name in BYTES}
    rows, stored_as = list(csv.DictReader(io.StringIO(found["tensors.csv"]))), []
    for row in rows:
        stored_as.append(row.pop("stored_as"))
    assert rows == list(csv.DictReader(io.StringIO(plain["tensors.csv"])))
    assert sum(map(bool, stored_as)) >= LAYERS * EXPERTS * 3, "the row says so"
    summary, wanted = json.loads(found["summary.json"]), json.loads(plain["summary.json"])
    fewer = summary.pop("measured_2d_stored", wanted["measured_2d"])
    assert summary == wanted
    assert wanted["measured_2d"] - fewer == expected_fewer(layouts[0])


BYTES = ("sparsity.csv", "energy.csv", "curve.csv", "magnitude.csv", "geometry.csv", "undefined.csv", "nulls.csv")


def expected_fewer(layout: str) -> int:
    """By how many matrices a file has fewer than a model: one for each expert's gate and up, two for each attention."""
    return LAYERS * (EXPERTS * ("each" not in layout) + 2 * ("attention" in layout))


def test_blocks_of_a_model_with_experts(plain: dict[str, str]) -> None:
    blocks = json.loads(plain["summary.json"])["blocks"]
    assert blocks["router"]["parameters"] == LAYERS * EXPERTS * HIDDEN
    assert blocks["mlp"]["parameters"] == LAYERS * EXPERTS * (3 * INNER * HIDDEN + 2 * INNER + HIDDEN)


@pytest.mark.slow
@pytest.mark.parametrize("restore", [False, True])
def test_an_edit_takes_the_matrices_of_a_fused_tensor_one_by_one(tmp_path: Path, restore: bool) -> None:
    source = model()
    kept: list[Weights] = []
    for number, layout in enumerate(("each on its own", "gate and up in turn, input by output")):
        model_type, chosen = LAYOUTS[layout]
        sides = [
            write_checkpoint(tmp_path / f"{side}{number}", stored(w, *chosen), config={"model_type": model_type})
            for side, w in (("source", source), ("trained", moved(source)))
        ]
        out = tmp_path / f"out{number}"
        edit(*map(open_checkpoint, sides), out, ["singular:2"], restore_spectrum=restore)
        edited = open_checkpoint(out)
        kept.append({name: place.read(edited) for name, place in matrices(edited).places.items()})
    assert sorted(kept[0]) == sorted(kept[1]) == sorted(source)
    assert {name for name in source if not torch.equal(kept[0][name], kept[1][name])} == set()
    assert not torch.equal(
        kept[1]["model.layers.0.mlp.experts.1.up_proj.weight"],
        moved(source)["model.layers.0.mlp.experts.1.up_proj.weight"],
    ), "a part is kept, not all"


ANGLE = 0.1


def turned_on_the_left(rows: int, columns: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Two matrices whose leading left directions are apart by ANGLE, in rank one, and whose right ones are equal."""
    source = torch.diag(torch.linspace(1.0, 0.5, min(rows, columns), dtype=torch.float64))
    source = torch.nn.functional.pad(source, (0, columns - min(rows, columns), 0, rows - min(rows, columns)))
    source[1:, 1:] *= 0.5
    source[-1] = 0
    delta = torch.zeros_like(source)
    delta[-1, 0] = math.tan(ANGLE)
    return source.float(), (source + delta).float()


@pytest.mark.parametrize("layout", ["gpt-2", "gpt-oss"])
def test_left_is_where_the_outputs_are(tmp_path: Path, layout: str) -> None:
    """A delta of rank one turns the outputs of every matrix and no input; in the file each lies input by output."""
    tall, wide = turned_on_the_left(18, 15), turned_on_the_left(15, 18)
    if layout == "gpt-2":
        sides = [
            {
                "h.0.attn.c_attn.weight": torch.cat([turned_on_the_left(15, 15)[side]] * 3).T,
                "h.0.attn.c_proj.weight": turned_on_the_left(15, 15)[side].T,
                "h.0.mlp.c_fc.weight": tall[side].T,
                "h.0.mlp.c_proj.weight": wide[side].T,
            }
            for side in (0, 1)
        ]
        names = [f"h.0.{name}" for name in ("attn.q_proj", "attn.k_proj", "attn.v_proj", "attn.c_proj", "mlp.c_fc")]
        names += ["h.0.mlp.c_proj"]
    else:
        sides = [
            {
                "mlp.experts.gate_up_proj": alternating(tall[side][None], tall[side][None]).mT,
                "mlp.experts.gate_up_proj_bias": torch.zeros(1, 36) + side,
                "mlp.experts.down_proj": wide[side][None].mT,
                "mlp.experts.down_proj_bias": torch.zeros(1, 15) + side,
            }
            for side in (0, 1)
        ]
        names = [f"mlp.experts.0.{word}_proj" for word in ("gate", "up", "down")]
    checkpoints = [
        open_checkpoint(
            write_checkpoint(
                tmp_path / str(number),
                {name: w.contiguous() for name, w in side.items()},
                config={"model_type": layout.replace("gpt-2", "gpt2").replace("-", "_")},
            )
        )
        for number, side in enumerate(sides)
    ]
    found = measure_pair(*checkpoints, name="turned", view="stored", metrics=("sparsity", "geometry")).matrices
    assert found is not None
    assert [m.tensor for m in found] == sorted(f"{name}.weight" for name in names), "a bias is no matrix"
    for matrix in found:
        sines = {n.side: n.value for n in matrix.numbers if n.metric == "sine_mean"}
        assert sines["left"] == pytest.approx(math.sin(ANGLE), rel=1e-5), matrix.tensor
        assert sines["right"] == pytest.approx(0, abs=1e-6), matrix.tensor
