"""Edits: what each rule keeps, by construction; parts and rests that add up; bad rules in one line."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from opdlib.checkpoints import open_checkpoint
from opdlib.errors import MeasureError, ParameterError
from opdlib.measurement.edit import Kept, edit, parse_rule
from opdlib.metrics.draws import binades
from tests.conftest import Weights, moved, pico_weights, write_checkpoint

DOWN, UP = "model.layers.0.mlp.down_proj.weight", "model.layers.1.mlp.up_proj.weight"
RULES = [
    *("singular:2", "visible", "largest:0.05", "random:0.05", "mask:principal:0.1", "mask:low:0.1", "block:mlp"),
    *("layers:0-0", "scale:0.5", "scale:2", "none", "random:1", "singular:99"),
]


def write_pair(folder: Path, trained: Weights) -> tuple[Path, Path]:
    return write_checkpoint(folder / "source", pico_weights()), write_checkpoint(folder / "trained", trained)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A bf16 source and float32 masters that moved a little."""
    return write_pair(tmp_path_factory.mktemp("pair"), moved(pico_weights(), dtype=torch.float32))


def edited(pair: tuple[Path, Path], out: Path, *keep: str, **options: object) -> tuple[Weights, Kept]:
    source, trained = (open_checkpoint(str(side)) for side in pair)
    kept = edit(source, trained, out, keep, **options)  # type: ignore[arg-type]
    return load_file(out / "model.safetensors"), kept


def both(pair: tuple[Path, Path]) -> tuple[Weights, Weights]:
    return tuple(load_file(side / "model.safetensors") for side in pair)  # type: ignore[return-value]


@pytest.mark.parametrize("rule", RULES)
def test_part_and_rest_add_up_to_the_update(pair: tuple[Path, Path], tmp_path: Path, rule: str) -> None:
    part, kept = edited(pair, tmp_path / "part", rule)
    rest, _ = edited(pair, tmp_path / "rest", rule, complement=True)
    source, trained = both(pair)
    for name, w in source.items():
        assert part[name].dtype == rest[name].dtype == torch.float32
        moves = [x[name].double() - w.double() for x in (part, rest, trained)]
        left = (moves[0] + moves[1] - moves[2]).abs()
        if rule.partition(":")[0] in ("singular", "visible", "scale"):
            assert bool((left <= rest[name].double().abs() * 2.0**-24).all()), name
        else:
            assert not left.any(), name

    def energy(weights: Weights) -> float:
        return sum(float((weights[name].double() - w.double()).square().sum()) for name, w in source.items())

    assert kept.energy == pytest.approx(energy(part) / energy(trained), rel=1e-12)


def test_nothing_and_everything(pair: tuple[Path, Path], tmp_path: Path) -> None:
    source, trained = both(pair)
    nothing, kept = edited(pair, tmp_path / "none", "none")
    assert all(torch.equal(nothing[n], w.float()) for n, w in source.items())
    assert (kept.rel_norm, kept.energy, kept.changed) == (0, 0, 0)
    everything, kept = edited(pair, tmp_path / "all", "none", complement=True)
    assert all(torch.equal(everything[n], w) for n, w in trained.items())
    assert kept.energy == 1


def test_leading_directions_give_a_planted_delta_of_that_rank_back(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(3)
    source = pico_weights()
    planted = {
        n: w.float()
        + 1e-3 * torch.randn(len(w), 3, generator=generator) @ torch.randn(3, w.shape[1], generator=generator)
        if w.ndim == 2
        else w.float()
        for n, w in source.items()
    }
    pair = write_pair(tmp_path, planted)
    whole, kept = edited(pair, tmp_path / "three", "singular:3")
    for name, w in source.items():
        delta = planted[name].double() - w.double()
        assert float((whole[name].double() - planted[name].double()).norm()) <= 1e-6 * float(delta.norm())
    less, fewer = edited(pair, tmp_path / "two", "singular:2")
    assert fewer.energy < kept.energy == pytest.approx(1, rel=1e-6)
    move = less[UP].double() - source[UP].double()
    assert int((torch.linalg.svdvals(move) > 1e-4 * torch.linalg.svdvals(move)[0]).sum()) == 2


def test_visible_is_the_rounded_pair(pair: tuple[Path, Path], tmp_path: Path) -> None:
    shown, _ = edited(pair, tmp_path / "visible", "visible")
    source, trained = both(pair)
    assert all(torch.equal(shown[n], w.bfloat16().float()) for n, w in trained.items())
    assert any(torch.equal(shown[n], source[n].float()) is False for n in shown)


def test_sizes_of_masks_and_where_they_lie(pair: tuple[Path, Path], tmp_path: Path) -> None:
    source, trained = both(pair)
    for number, rule in enumerate(("largest:0.1", "mask:low:0.1", "mask:principal:0.1", "random:0.1")):
        part, _ = edited(pair, tmp_path / str(number), rule)
        moved_at = part[DOWN] != source[DOWN].float()
        assert int(moved_at.sum()) == -(-moved_at.numel() // 10)
        if rule.startswith("largest"):
            steps = (trained[DOWN] - source[DOWN].float()).abs()
            assert float(steps[moved_at].min()) >= float(steps[~moved_at].max())
        if rule.startswith("mask:low"):
            assert float(source[DOWN][moved_at].abs().max()) <= float(source[DOWN][~moved_at].abs().min())


def test_a_random_part_has_the_sizes_of_the_largest_in_every_binade(pair: tuple[Path, Path], tmp_path: Path) -> None:
    source, _ = both(pair)
    far, _ = edited(pair, tmp_path / "far", "largest:0.2")
    one, _ = edited(pair, tmp_path / "one", "random:0.2", seed=1)
    again, _ = edited(pair, tmp_path / "again", "random:0.2", seed=1)
    other, _ = edited(pair, tmp_path / "other", "random:0.2", seed=2)
    for name, w in source.items():
        bins = torch.from_numpy(binades(w).astype("int64"))
        counts = [torch.bincount(bins[(x[name] != w.float()).flatten()], minlength=256) for x in (far, one)]
        assert torch.equal(*counts), name
        assert torch.equal(one[name], again[name])
    assert not torch.equal(one[DOWN], other[DOWN])


def test_rules_are_intersected(pair: tuple[Path, Path], tmp_path: Path) -> None:
    source, trained = both(pair)
    part, _ = edited(pair, tmp_path / "both", "block:mlp", "layers:1-1", "mask:low:0.5")
    for name, w in source.items():
        inside = part[name] != w.float()
        assert bool(inside.any()) == (".layers.1.mlp." in name), name
        assert torch.equal(part[name][inside], trained[name][inside])


def test_a_restored_spectrum_is_that_of_the_source(pair: tuple[Path, Path], tmp_path: Path) -> None:
    source, trained = both(pair)
    turned, kept = edited(pair, tmp_path / "iso", "scale:1", restore_spectrum=True)
    for name, w in source.items():
        if w.ndim == 2:
            values = [torch.linalg.svdvals(x[name].double()) for x in (source, turned, trained)]
            assert float((values[0] - values[1]).norm()) < 1e-6 * float(values[0].norm())
            assert float((values[0] - values[2]).norm()) > 1e-5 * float(values[0].norm())
        else:
            assert torch.equal(turned[name], trained[name])
    assert 0 < kept.energy < 1


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("singular:0", "whole number"),
        ("singular:2.5", "whole number"),
        ("singular:inf", "whole number"),
        ("singular", "whole number"),
        ("largest:0", "a share"),
        ("largest:1.5", "a share"),
        ("random:nan", "a share"),
        ("mask:low:x", "a share"),
        ("mask:high:0.1", "is unknown"),
        ("mask", "is unknown"),
        ("visible:1", "is unknown"),
        ("none:", "is unknown"),
        ("block:ffn", "no block 'ffn'"),
        ("layers:3", "layers:A-B"),
        ("layers:2-1", "layers:A-B"),
        ("scale:inf", "finite"),
        ("", "is unknown"),
    ],
)
def test_bad_rules_are_refused_in_one_line(rule: str, said: str) -> None:
    with pytest.raises(ParameterError, match=said) as error:
        parse_rule(rule)
    assert "\n" not in str(error.value)


def test_layers_that_do_not_exist_are_refused_before_anything_is_written(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    with pytest.raises(ParameterError, match="0 to 1"):
        edited(pair, tmp_path / "out", "layers:1-2")
    assert not (tmp_path / "out").exists()


def test_nan_is_refused_and_nothing_is_written(pair: tuple[Path, Path], tmp_path: Path) -> None:
    weights = load_file(pair[1] / "model.safetensors")
    weights[UP][0, 0] = float("nan")
    broken = write_checkpoint(tmp_path / "broken", weights)
    with pytest.raises(MeasureError, match=r"up_proj\.weight holds 1 NaN or Inf"):
        edited((pair[0], broken), tmp_path / "out", "singular:2")
    assert not (tmp_path / "out").exists()


def test_tensors_that_did_not_move_stay(pair: tuple[Path, Path], tmp_path: Path) -> None:
    weights = load_file(pair[1] / "model.safetensors") | {UP: pico_weights()[UP].float()}
    still = write_checkpoint(tmp_path / "still", weights)
    for number, rule in enumerate(("singular:2", "largest:0.1", "random:0.1")):
        part, _ = edited((pair[0], still), tmp_path / str(number), rule)
        assert torch.equal(part[UP], weights[UP])
