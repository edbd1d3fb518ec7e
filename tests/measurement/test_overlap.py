import json
import math
from pathlib import Path

import pytest
import torch

from opdlib.checkpoints import open_checkpoint
from opdlib.checkpoints.checkpoint import Checkpoint
from opdlib.errors import AlignmentError, ParameterError
from opdlib.measurement.overlap import overlap
from tests.conftest import Command, moved, pico_weights, write_checkpoint

Three = tuple[Path, Path, Path]


@pytest.fixture
def three(tmp_path: Path) -> Three:
    source = pico_weights()
    return (
        write_checkpoint(tmp_path / "source", source),
        write_checkpoint(tmp_path / "a", moved(source, seed=1)),
        write_checkpoint(tmp_path / "b", moved(source, seed=2), shards=2),
    )


def opened(paths: Three) -> tuple[Checkpoint, Checkpoint, Checkpoint]:
    source, a, b = (open_checkpoint(str(p)) for p in paths)
    return source, a, b


def test_every_level_agrees_with_masks_made_by_hand(three: Three) -> None:
    source, a, b = opened(three)
    found = overlap(source, a, b, atol=1e-5)
    masks = {
        name: [((c.read(name).double() - source.read(name).double()).abs() > 1e-5) for c in (a, b)]
        for name in source.tensors
    }

    def shares(names: list[str]) -> tuple[float, float, float]:
        in_a = sum(int(masks[n][0].sum()) for n in names)
        in_b = sum(int(masks[n][1].sum()) for n in names)
        both = sum(int((masks[n][0] & masks[n][1]).sum()) for n in names)
        return both / in_a, both / in_b, both / (in_a + in_b - both)

    assert (found["o1"], found["o2"], found["jaccard"]) == shares(list(masks))
    size = sum(m[0].numel() for m in masks.values())
    density_b = sum(int(m[1].sum()) for m in masks.values()) / size
    assert found["density_b"] == density_b
    assert found["expected"]["global"]["o1"] == pytest.approx(density_b)
    within = sum(float(m[0].sum()) * float(m[1].sum()) / m[0].numel() for m in masks.values())
    assert found["expected"]["tensor"]["o1"] == pytest.approx(within / sum(int(m[0].sum()) for m in masks.values()))
    cells = 0.0
    for name, (in_a, in_b) in masks.items():
        exponents = torch.frexp(source.read(name).float().abs()).exponent
        for exponent in exponents.unique():
            here = exponents == exponent
            cells += float(in_a[here].sum()) * float(in_b[here].sum()) / float(here.sum())
    chance = found["expected"]["magnitude"]
    assert chance["o1"] == pytest.approx(cells / sum(int(m[0].sum()) for m in masks.values()))
    assert chance["o2"] == pytest.approx(cells / sum(int(m[1].sum()) for m in masks.values()))
    assert [row["layer"] for row in found["layers"]] == [0, 1]
    names = [n for n in masks if n.startswith("model.layers.1.")]
    assert (found["layers"][1]["o1"], found["layers"][1]["o2"]) == shares(names)[:2]
    assert {row["module"] for row in found["modules"]} >= {"q_proj", "embed_tokens", "down_proj"}
    assert len(found["tensors"]) == len(masks)


def test_a_checkpoint_overlaps_itself_wholly(three: Three) -> None:
    source, a, _ = opened(three)
    found = overlap(source, a, a)
    assert (found["o1"], found["o2"], found["jaccard"]) == (1.0, 1.0, 1.0)
    nothing = overlap(source, source, a)
    assert (nothing["o1"], nothing["o2"], nothing["density_a"]) == (None, 0.0, 0.0)


def test_refusals(three: Three, tmp_path: Path) -> None:
    source, a, b = opened(three)
    for atol in (-1.0, math.nan, math.inf):
        with pytest.raises(ParameterError, match="atol"):
            overlap(source, a, b, atol=atol)
    with pytest.raises(ParameterError, match="view"):
        overlap(source, a, b, view="fp8")
    other = write_checkpoint(tmp_path / "c", pico_weights() | {"extra": torch.zeros(2)})
    with pytest.raises(AlignmentError, match="extra"):
        overlap(source, a, open_checkpoint(str(other)))


def test_the_command(opd: Command, three: Three) -> None:
    options = ("overlap", "--source", three[0], "--a", three[1], "--b", three[2])
    found = json.loads(opd(*options, "--json").stdout)
    assert {"o1", "o2", "jaccard", "density_a", "density_b", "expected", "layers"} <= set(found)
    assert set(found["expected"]) == {"global", "tensor", "magnitude"}
    assert "if independent" in opd(*options).stdout
    assert found["cosine"] is None
    assert found["latent_cosine_error"]["pairs"] >= 3
    assert "latent cosine minus cosine in" in opd(*options).stdout
    assert opd(*options, "--atol", "-1").returncode == 2


def test_the_cosine_is_that_of_masters_and_unknown_without_them(tmp_path: Path) -> None:
    source = pico_weights()
    common, own, others = (moved(source, seed=s, dtype=torch.float32) for s in (1, 2, 3))
    mixed = [{n: w[n] + common[n] - source[n].float() for n in source} for w in (own, others)]
    stored = [write_checkpoint(tmp_path / name, w) for name, w in zip(("s", "a", "b"), (source, *mixed), strict=True)]
    found = overlap(*stored)
    assert found["cosine"] == pytest.approx(0.5, abs=0.05)
    assert found["latent_cosine"] == pytest.approx(found["cosine"], abs=0.1)
    deltas = [torch.cat([(w[n].double() - source[n].double()).flatten() for n in source]) for w in mixed]
    assert found["cosine"] == pytest.approx(float(torch.cosine_similarity(*deltas, dim=0)), rel=1e-9)
    rounded = write_checkpoint(tmp_path / "r", {n: w.bfloat16() for n, w in mixed[1].items()})
    again = overlap(stored[0], stored[1], rounded)
    assert again["cosine"] is None
    assert again["latent_cosine"] == found["latent_cosine"]
