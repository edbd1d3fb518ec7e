import json
import math
import multiprocessing
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import opdlib.measurement.geometry
import opdlib.measurement.parts
import opdlib.measurement.sparsity
import opdlib.metrics.geometry
from opdlib.checkpoints import open_checkpoint
from opdlib.checkpoints.checkpoint import Checkpoint
from opdlib.checkpoints.names import parse
from opdlib.errors import MeasureError, ParameterError
from opdlib.measurement.schedule import Measurement, measure_pair
from opdlib.metrics.sparsity import ABSOLUTE, RELATIVE, TOP_SHARES, count_of
from opdlib.metrics.subspace import rank_of
from opdlib.quantities import find, flat
from opdlib.results.flat import undefined
from opdlib.results.layout import read_provenance, read_summary
from opdlib.results.measure import Order, measure_into, measure_together
from opdlib.results.summarize import summarize
from tests.conftest import Weights, moved, pico_weights, write_checkpoint
from tests.metrics import geometry_reference as slow
from tests.metrics import sparsity_reference as reference

TIED = {"tie_word_embeddings": True}


def checkpoints(folder: Path, source: Weights, trained: Weights, **options: object) -> tuple[Checkpoint, Checkpoint]:
    return (
        open_checkpoint(str(write_checkpoint(folder / "source", source, config=TIED, **options))),  # type: ignore[arg-type]
        open_checkpoint(str(write_checkpoint(folder / "trained", trained, config=TIED))),
    )


def rounded(weights: Weights) -> Weights:
    return {name: w.to(torch.bfloat16) for name, w in weights.items()}


@pytest.fixture(scope="module")
def sides() -> tuple[Weights, Weights]:
    """A bf16 source and a float32 trained checkpoint; one layer is left as it was."""
    source = pico_weights()
    trained = moved(source, dtype=torch.float32)
    frozen = {n: w.float() for n, w in source.items() if n.startswith("model.layers.1.self_attn.k_proj")}
    return source, trained | frozen


@pytest.mark.slow
@pytest.mark.parametrize("view", ["bf16", "stored"])
def test_the_summary_agrees_with_slow_definitions(tmp_path: Path, sides: tuple[Weights, Weights], view: str) -> None:
    source, trained = sides
    summary = summarize(measure_pair(*checkpoints(tmp_path, source, trained, shards=3), name="pico", view=view))
    a, b = (rounded(source), rounded(trained)) if view == "bf16" else (source, trained)
    size = sum(w.numel() for w in a.values())

    def energy(names: list[str]) -> float:
        return reference.energy_of_top([(a[n], b[n]) for n in names], size)

    def norm(names: list[str]) -> float:
        return math.sqrt(energy(names) / math.fsum(w * w for n in names for w in reference.wide(a[n]).tolist()))

    def unchanged(names: list[str], eps: float = 0.0) -> float:
        return sum(reference.at_most(a[n], b[n], eps) for n in names) / sum(a[n].numel() for n in names)

    everything = list(a)
    assert (summary["pair"], summary["view"]) == ("pico", view)
    assert (summary["tensors"], summary["parameters"]) == (len(a), size)
    assert summary["measured_2d"] == sum(w.ndim == 2 for w in a.values()) - 1
    assert summary["rel_norm"] == pytest.approx(norm(everything), rel=1e-12)
    assert summary["exact_zero"] == unchanged(everything)
    assert list(summary["sparsity"]) == ["1e-08", "1e-07", "1e-06", "1e-05", "1e-04"]
    for eps, share in zip(ABSOLUTE, summary["sparsity"].values(), strict=True):
        assert share == unchanged(everything, eps), eps
    assert list(summary["sparsity_rms"]) == ["1e-04", "1e-03", "1e-02"]
    for tau, share in zip(RELATIVE, summary["sparsity_rms"].values(), strict=True):
        slow = sum(reference.at_most(a[n], b[n], tau * reference.rms(a[n])) for n in a)
        assert share == slow / size, tau
    ulp = sum(reference.within_ulp(a[n], b[n], 1e-3) for n in a) / size
    assert summary["sparsity_ulp"] == {"1e-03": ulp}
    assert (summary["sparsity_ulp"]["1e-03"] == summary["exact_zero"]) == (view == "bf16")
    for share in TOP_SHARES:
        per_tensor = math.fsum(reference.energy_of_top([(a[n], b[n])], count_of(share, a[n].numel())) for n in a)
        at_once = reference.energy_of_top([(a[n], b[n]) for n in a], count_of(share, size))
        assert summary["top_energy"][f"{share:g}"] == pytest.approx(per_tensor / energy(everything), rel=1e-12)
        assert summary["top_energy_global"][f"{share:g}"] == pytest.approx(at_once / energy(everything), rel=1e-12)
    assert list(summary["blocks"]) == ["attention", "mlp", "embedding", "norm"]
    for block, numbers in summary["blocks"].items():
        names = [n for n in a if parse(n).block == block]
        assert numbers["rel_norm"] == pytest.approx(norm(names), rel=1e-12)
        assert numbers["energy_share"] == pytest.approx(energy(names) / energy(everything), rel=1e-12)
        assert numbers["exact_zero"] == unchanged(names)
        assert numbers["parameters"] == sum(a[n].numel() for n in names)
    assert [row["layer"] for row in summary["layers"]] == [0, 1]
    for row in summary["layers"]:
        names = [n for n in a if parse(n).layer == row["layer"]]
        assert row["exact_zero"] == unchanged(names)
        assert row["sparsity"]["1e-05"] == unchanged(names, 1e-5)
        assert row["rel_norm"] == pytest.approx(norm(names), rel=1e-12)
        assert row["energy_share"] == pytest.approx(energy(names) / energy(everything), rel=1e-12)
    changes = torch.cat([(b[n].double() - a[n].double()).abs().flatten() for n in a])
    assert summary["delta_abs"] == {
        "mean": pytest.approx(float(changes.mean()), rel=1e-12),
        "max": float(changes.max()),
    }
    assert undefined(dict(flat(summary))) == {}
    assert [key for key, _ in flat(summary) if find(key) is None] == []
    json.dumps(summary, allow_nan=False)


@pytest.mark.slow
@pytest.mark.parametrize("view", ["bf16", "stored"])
def test_the_second_block_is_the_median_of_slow_definitions(
    tmp_path: Path, sides: tuple[Weights, Weights], view: str
) -> None:
    source, trained = sides
    summary = summarize(measure_pair(*checkpoints(tmp_path, source, trained), name="pico", view=view))
    a, b = (rounded(source), rounded(trained)) if view == "bf16" else (source, trained)
    pairs = [
        (slow.wide(a[n]), slow.wide(b[n])) for n in a if a[n].ndim == 2 and not torch.equal(a[n].float(), b[n].float())
    ]
    assert len(pairs) == summary["measured_2d"]

    def median(number: Callable[[Any, Any], float]) -> float:
        return float(np.median([number(w, v) for w, v in pairs]))

    def squares(w: Any, v: Any) -> Any:
        sigma = slow.singular_values(v - w)
        return sigma**2 / (sigma**2).sum()

    for k in (1, 8, 16):
        assert summary["svd_energy"][str(k)] == pytest.approx(
            median(lambda w, v, k=k: squares(w, v)[:k].sum()), rel=1e-6
        )
    assert summary["stable_rank"] == pytest.approx(median(lambda w, v: 1 / squares(w, v)[0]), rel=1e-6)
    assert summary["rank_share"]["1e-05"] == 1.0
    for share in ("0.01", "0.05", "0.1", "0.2"):
        for place, side in enumerate(("joint", "left", "right")):
            exact = median(lambda w, v, s=share, p=place: slow.projections(w, v - w, float(s))[p])
            assert summary["projection"][side][share] == pytest.approx(exact, rel=1e-6)
        covered = [slow.coverage(w, v - w, float(share), 0.0) for w, v in pairs]
        updates = sum(c["updates"] for c in covered)
        for mask in ("principal", "low", "principal_not_low"):
            # float32 products order coordinates near a cut; one of a few hundred may change sides
            exact = float(np.median([c[mask] for c in covered]))
            assert summary["coverage"][mask][share] == pytest.approx(exact, abs=2e-3)
            exact = sum(c[mask] * c["updates"] for c in covered) / updates
            assert summary["coverage_pooled"][mask][share] == pytest.approx(exact, abs=2e-3)
        rest = summary["coverage_pooled"]["nonprincipal_or_low"][share]
        assert rest == pytest.approx(1 - summary["coverage_pooled"]["principal_not_low"][share], rel=1e-12)
        inside = [c["principal_not_low"] / c["of_principal_not_low"] for c in covered]
        outside = [(1 - c["principal_not_low"]) / (1 - c["of_principal_not_low"]) for c in covered]
        for mask, ratios in (("principal_not_low", inside), ("nonprincipal_or_low", outside)):
            assert summary["enrichment"][mask][share] == pytest.approx(float(np.median(ratios)), rel=2e-2)
        exact = float(np.median([c["ceiling"] for c in covered]))
        assert summary["coverage_ceiling"]["low"][share] == pytest.approx(exact)
        exact = median(lambda w, v, s=share: slow.turning(w, v, float(s))[0].mean())
        assert summary["rotation"][share] == pytest.approx(exact, rel=1e-3)
    assert set(summary["coverage"]) >= {"principal", "low", "nonprincipal_or_low"}
    assert summary["projection_expected"]["joint"]["0.1"] == pytest.approx(
        float(np.median([rank_of(0.1, w.shape) ** 2 / w.size for w, _ in pairs]))
    )

    def drift(w: Any, v: Any) -> float:
        before, after = slow.singular_values(w), slow.singular_values(v)
        return float(np.linalg.norm(after - before) / np.linalg.norm(before))

    assert summary["spectral_drift"] == pytest.approx(median(drift), rel=1e-6)


def test_only_sparsity_leaves_the_second_block_out(tmp_path: Path, pico_pair: tuple[Path, Path]) -> None:
    source, trained = (open_checkpoint(str(p)) for p in pico_pair)
    measure_into(tmp_path / "out", source, trained, name="x", metrics=("sparsity",))
    assert "stable_rank" not in read_summary(tmp_path / "out")
    assert not (tmp_path / "out" / "geometry.csv").exists()


@pytest.mark.slow
def test_pairs_over_one_source_are_measured_together_and_as_if_alone(
    tmp_path: Path, pico_pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, first = (open_checkpoint(str(p)) for p in pico_pair)
    skip = ("model.layers.0.mlp.up_proj.weight",)
    second = open_checkpoint(str(write_checkpoint(tmp_path / "second", moved(pico_weights(), seed=9))))
    decomposed = []
    real = opdlib.metrics.geometry.source_basis
    monkeypatch.setattr(opdlib.metrics.geometry, "source_basis", lambda m: decomposed.append(1) or real(m))
    orders = [Order("a", first, folder=tmp_path / "a"), Order("b", second, skip, folder=tmp_path / "b")]
    measure_together(source, orders)
    matrices = sum(len(info.shape) == 2 for info in source.tensors.values())
    assert len(decomposed) == matrices, "each source matrix once"
    measure_into(tmp_path / "alone-a", source, first, name="a")
    measure_into(tmp_path / "alone-b", source, second, name="b", skip=skip)
    for name in ("a", "b"):
        assert tables(tmp_path / name) == tables(tmp_path / f"alone-{name}")


def test_what_is_undefined_is_null_with_a_reason(tmp_path: Path) -> None:
    zero = {n: torch.zeros_like(w) for n, w in pico_weights().items()}
    folder = tmp_path / "out"
    measure_into(folder, *checkpoints(tmp_path, zero, zero), name="zero")
    summary, provenance = read_summary(folder), read_provenance(folder)
    assert summary["exact_zero"] == 1.0
    assert (summary["rel_norm"], summary["top_energy"]["0.01"], summary["measured_2d"]) == (None, None, 0)
    assert provenance["undefined"]["rel_norm"] == "source norm is zero"
    assert "nothing changed" in provenance["undefined"]["blocks.mlp.energy_share"]


def test_a_vision_part_is_one_block_and_no_language_layer(tmp_path: Path) -> None:
    source = pico_weights(layers=1) | {
        "visual.blocks.0.attn.qkv.weight": torch.randn(4, 4).to(torch.bfloat16),
        "visual.patch_embed.proj.weight": torch.randn(2, 3, 1, 2, 2).to(torch.bfloat16),
    }
    summary = summarize(measure_pair(*checkpoints(tmp_path, source, moved(source)), name="vl"))
    assert summary["blocks"]["vision"]["parameters"] == 16 + 24
    assert [row["layer"] for row in summary["layers"]] == [0]


def test_each_changed_expert_of_a_fused_tensor_is_a_matrix(tmp_path: Path) -> None:
    source = {"model.layers.0.mlp.experts.down_proj": torch.ones(5, 3, 4), "model.conv1d.weight": torch.ones(4, 1, 3)}
    trained = {n: w.clone() for n, w in source.items()}
    trained["model.layers.0.mlp.experts.down_proj"][[1, 4], 0, 0] += 1
    trained["model.conv1d.weight"] += 1
    measurement = measure_pair(*checkpoints(tmp_path, source, trained), name="moe")
    assert summarize(measurement)["measured_2d"] == 2
    assert measurement.matrices is not None
    assert [m.expert for m in measurement.matrices] == [1, 4]
    # one entry changed in each: rank one, all energy in the first singular value
    assert {n.value for m in measurement.matrices for n in m.numbers if n.metric == "stable_rank"} == {1.0}


def tables(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}


@pytest.mark.slow
def test_workers_and_sharding_change_no_byte(
    tmp_path: Path, sides: tuple[Weights, Weights], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opdlib.measurement.sparsity, "GROUP", 500)  # so that the sparsity pass has parts to share out
    written = []
    for number, (workers, shards) in enumerate([(1, 1), (2, 1), (3, 4)]):
        pair = checkpoints(tmp_path / str(number), *sides, shards=shards)
        measure_into(tmp_path / f"out{number}", *pair, name="pico", workers=workers)
        written.append(tables(tmp_path / f"out{number}"))
    for other in written[1:]:
        for name in set(written[0]) - {"provenance.json"}:
            assert other[name] == written[0][name], name
    assert {json.loads(w["provenance.json"])["source"]["digest"] for w in written} == {
        checkpoints(tmp_path / "again", *sides)[0].digest()
    }


@pytest.mark.slow
def test_the_ledger_is_used_and_gives_the_same_numbers(
    tmp_path: Path, sides: tuple[Weights, Weights], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opdlib.measurement.sparsity, "GROUP", 500)
    pair = checkpoints(tmp_path, *sides)
    whole = measure_pair(*pair, name="pico", ledger=tmp_path / "ledger")
    groups = sorted((tmp_path / "ledger").glob("sparsity-*.npz"))
    assert len(groups) > 3
    groups[1].unlink()
    calls = []
    real = opdlib.measurement.parts.measure_group
    monkeypatch.setattr(opdlib.measurement.parts, "measure_group", lambda *a: calls.append(1) or real(*a))
    resumed = measure_pair(*pair, name="pico", ledger=tmp_path / "ledger")
    assert len(calls) == 1, "only the missing group is measured again"
    assert same(whole, resumed)
    assert same(whole, measure_pair(*pair, name="pico"))


def same(a: Measurement, b: Measurement) -> bool:
    return summarize(a) == summarize(b) and [t.sparsity for t in a.tensors] == [t.sparsity for t in b.tensors]


@pytest.mark.slow
def test_the_ledger_of_another_measurement_is_not_used(tmp_path: Path, sides: tuple[Weights, Weights]) -> None:
    source, trained = sides
    first = measure_pair(*checkpoints(tmp_path / "a", source, trained), name="x", ledger=tmp_path / "ledger")
    other = moved(source, scale=0.1)
    second = measure_pair(*checkpoints(tmp_path / "b", source, other), name="x", ledger=tmp_path / "ledger")
    assert summarize(first)["rel_norm"] != summarize(second)["rel_norm"]
    assert same(second, measure_pair(*checkpoints(tmp_path / "b", source, other), name="x"))
    stored = measure_pair(
        *checkpoints(tmp_path / "a", source, trained), name="x", view="stored", ledger=tmp_path / "ledger"
    )
    assert same(stored, measure_pair(*checkpoints(tmp_path / "a", source, trained), name="x", view="stored"))


def measure_slowly(source: Path, trained: Path, out: Path) -> None:
    """Measure in this process, which is forked for it, with a pause before each matrix."""

    def pausing(function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *arguments: time.sleep(0.1) or function(*arguments)

    opdlib.measurement.sparsity.GROUP = 500
    opdlib.measurement.sparsity.delta_of = pausing(opdlib.measurement.sparsity.delta_of)
    opdlib.measurement.geometry.view_of = pausing(opdlib.measurement.geometry.view_of)
    measure_into(out, open_checkpoint(str(source)), open_checkpoint(str(trained)), name="pico")


@pytest.mark.kill
@pytest.mark.parametrize("stage", ["sparsity", "geometry"])
def test_a_killed_run_goes_on_and_ends_equal_to_an_uninterrupted_one(
    tmp_path: Path, pico_pair: tuple[Path, Path], stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opdlib.measurement.sparsity, "GROUP", 500)
    pair = [open_checkpoint(str(path)) for path in pico_pair]
    measure_into(tmp_path / "whole", *pair, name="pico")
    processes = multiprocessing.get_context("forkserver")  # one that has torch loaded, and forks
    processes.set_forkserver_preload([__name__])
    killed = processes.Process(target=measure_slowly, args=(*pico_pair, tmp_path / "killed"))
    killed.start()
    deadline = time.monotonic() + 120
    ledger = tmp_path / ".killed.ledger"
    while len(list(ledger.glob(f"{stage}-*.npz"))) < 2:
        assert killed.is_alive(), "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    killed.kill()
    killed.join()
    assert killed.exitcode == -signal.SIGKILL
    assert not (tmp_path / "killed").exists()
    assert list(ledger.glob(f"{stage}-*.npz"))
    measure_into(tmp_path / "killed", *pair, name="pico")
    assert tables(tmp_path / "killed") == tables(tmp_path / "whole")
    assert not list(tmp_path.glob(".*")), "nothing stays of the killed one"


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("side", [0, 1])
def test_nan_and_inf_are_refused_with_their_place(tmp_path: Path, value: float, side: int) -> None:
    weights = [pico_weights(), pico_weights()]
    weights[side]["model.layers.1.mlp.up_proj.weight"][5, 3] = value
    name = ("source", "trained")[side]
    with pytest.raises(MeasureError, match=rf"{name}: model\.layers\.1\.mlp\.up_proj\.weight holds 1 .* at \[5, 3\]"):
        measure_pair(*checkpoints(tmp_path, *weights), name="bad")


@pytest.mark.parametrize("options", [{"view": "fp32"}, {"workers": 0}])
def test_bad_options(pico_pair: tuple[Path, Path], options: dict[str, object]) -> None:
    with pytest.raises(ParameterError, match="wanted"):
        measure_pair(*(open_checkpoint(str(p)) for p in pico_pair), name="x", **options)  # type: ignore[arg-type]
