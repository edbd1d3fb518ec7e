"""Pairs whose updates are known: what the nulls say of them, in words and in numbers."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from opdlib.checkpoints import open_checkpoint
from opdlib.measurement.parts import Job
from opdlib.measurement.schedule import EVERYTHING, METRICS, measure_all, measure_pair
from opdlib.metrics import nulls
from opdlib.quantities import find, flat
from opdlib.results.measure import files_of, scales_of
from opdlib.results.summarize import summarize
from tests.conftest import Weights, write_checkpoint
from tests.metrics import geometry_reference as reference

LAYERS, SHAPE, SPREAD, SCALE = 12, (128, 96), 0.05, 1.5e-4
NAMES = [f"model.layers.{i}.{what}_proj.weight" for i in range(LAYERS) for what in ("mlp.up", "self_attn.q")]
Update = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def noise(w: torch.Tensor, z: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
    return SCALE * z


def principal(w: torch.Tensor, z: torch.Tensor, more: torch.Tensor) -> torch.Tensor:
    """A tenth of the energy inside the leading subspaces, on both sides."""
    u, _, vh = torch.linalg.svd(w, full_matrices=False)
    inside = u[:, :9] @ more[:9, :9] @ vh[:9]
    return SCALE * (0.9**0.5 * z + 0.1**0.5 * inside * (w.numel() / 81) ** 0.5)


def small(w: torch.Tensor, z: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
    """Weights below the median magnitude move twice as far."""
    return SCALE * torch.where(w.abs() < w.abs().median(), 1.26, 0.63) * z


def directions(w: torch.Tensor, z: torch.Tensor, more: torch.Tensor) -> torch.Tensor:
    """A fifth of the energy in four directions."""
    four = more[:, :4] @ more[:4].flip(1)
    return SCALE * (0.8**0.5 * z + 0.2**0.5 * four / four.square().mean().sqrt())


def pair(update: Update) -> tuple[Weights, Weights]:
    """A bf16 source and the float32 weights after an update."""
    generator = torch.Generator().manual_seed(7)
    source, trained = {}, {}
    for name in NAMES:
        w, z, more = (torch.randn(SHAPE, generator=generator, dtype=torch.float64) for _ in range(3))
        source[name] = (SPREAD * w).bfloat16()
        trained[name] = (source[name].double() + update(source[name].double(), z, more)).float()
    return source, trained


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Update, bool], dict[str, Any]]:
    """The summary of a pair, with masters or of two bf16 checkpoints; each is measured once."""
    known: dict[tuple[Update, bool], dict[str, Any]] = {}

    def summary(update: Update, masters: bool) -> dict[str, Any]:
        if (update, masters) not in known:
            folder = tmp_path_factory.mktemp("pair")
            source, trained = pair(update)
            stored = trained if masters else {n: t.bfloat16() for n, t in trained.items()}
            sides = [open_checkpoint(str(write_checkpoint(folder / n, w))) for n, w in (("a", source), ("b", stored))]
            metrics = METRICS if update is small else EVERYTHING
            known[update, masters] = summarize(measure_pair(*sides, name="pair", metrics=metrics))
        return known[update, masters]

    return summary


both = pytest.mark.parametrize("masters", [False, True])
CHANGED, LOW, PRINCIPAL = "changed", "coverage.low.0.1", "coverage.principal.0.1"
JOINT, TOP, STABLE = "projection.joint.0.1", "svd_energy.16", "stable_rank"


@pytest.mark.slow
@both
def test_noise_is_explained(measured: Callable[..., dict[str, Any]], masters: bool) -> None:
    summary = measured(noise, masters)
    assert summary["nulls_scale"] == ("fp32" if masters else "rounded norm")
    found = summary["explained"]["visibility"]
    assert {k: found[k]["verdict"] for k in (CHANGED, LOW, PRINCIPAL, TOP, STABLE)} == dict.fromkeys(
        (CHANGED, LOW, PRINCIPAL, TOP, STABLE), "explained"
    ), found
    assert summary["kappa"] == pytest.approx(1, abs=0.05)
    assert not {CHANGED, LOW} & set(summary["explained"]["permutation"]), "identities"
    json.dumps(summary, allow_nan=False)


@pytest.mark.slow
@both
def test_planted_structure_is_seen(measured: Callable[..., dict[str, Any]], masters: bool) -> None:
    def said(update: Update, null: str = "visibility") -> dict[str, str]:
        return {key: r["verdict"] for key, r in measured(update, masters)["explained"][null].items()}

    assert said(principal)[JOINT] == said(principal, "permutation")[JOINT] == "above"
    assert said(small)[LOW] == "above"
    four = said(directions)
    assert (four[TOP], four[STABLE]) == ("above", "below")
    assert (four[CHANGED], four[LOW]) == ("explained", "explained")
    if masters:
        assert said(directions, "spectrum")[TOP] == "explained"
        assert said(principal, "spectrum")[JOINT] == "above"


@pytest.mark.slow
@both
def test_what_the_nulls_expect_is_what_slow_draws_give(measured: Callable[..., dict[str, Any]], masters: bool) -> None:
    """Draws from the definition at the scale that the noise was made with, at the median over the matrices."""
    expected = measured(noise, masters)["nulls"]["visibility"]
    source, _ = pair(noise)
    rng, rows = np.random.default_rng(3), []
    for name in NAMES:
        w = source[name]
        wide = w.double().numpy()
        large = reference.membership(reference.rebuilt(wide, 0.1), 0.1, largest=True)
        least = reference.membership(np.abs(wide), 0.1, largest=False)
        deltas = [nulls.visible(w, SCALE, rng).double().numpy() - wide for _ in range(8)]
        updated = np.mean([d != 0 for d in deltas], axis=0)
        sigma = reference.singular_values(deltas[0]) ** 2
        rows.append(
            [
                1 - updated.mean(),
                np.mean([abs(d) <= 1e-4 for d in deltas]),
                (updated * least).sum() / updated.sum(),
                (updated * large).sum() / updated.sum(),
                sigma[:16].sum() / sigma.sum(),
                sigma.sum() / sigma[0],
                reference.projections(wide, deltas[0], 0.1)[0],
            ]
        )
    unchanged, within = np.mean(rows, axis=0)[:2]
    low, high, top, stable, joint = np.median(rows, axis=0)[2:]
    assert expected["exact_zero"] == pytest.approx(unchanged, abs=0.002)
    assert expected["sparsity"]["1e-04"] == pytest.approx(within, abs=0.002)
    assert expected["blocks"]["mlp"]["exact_zero"] == pytest.approx(unchanged, abs=0.003)
    assert expected["coverage"]["low"]["0.1"] == pytest.approx(low, rel=0.01)
    assert expected["coverage"]["principal"]["0.1"] == pytest.approx(high, rel=0.02)
    assert expected["svd_energy"]["16"] == pytest.approx(top, rel=0.01)
    assert expected["stable_rank"] == pytest.approx(stable, rel=0.03)
    assert expected["projection"]["joint"]["0.1"] == pytest.approx(joint, rel=0.15)


@pytest.mark.slow
def test_every_number_has_a_record(measured: Callable[..., dict[str, Any]]) -> None:
    assert [key for key, _ in flat(measured(noise, True)) if find(key) is None] == []


@pytest.mark.slow
def test_no_number_depends_on_the_workers_or_on_what_else_is_measured(tmp_path: Path) -> None:
    source, trained = pair(noise)
    few = {name: source[name] for name in NAMES[:3]}
    a = open_checkpoint(str(write_checkpoint(tmp_path / "a", few)))
    b, c = (
        open_checkpoint(str(write_checkpoint(tmp_path / to, {n: trained[n] for n in names})))
        for to, names in (("b", NAMES[:3]), ("c", NAMES[:3]))
    )
    one, two = (measure_pair(a, other, name="x", metrics=EVERYTHING, workers=w) for other, w in ((b, 1), (c, 3)))
    assert files_of(one) == files_of(two) | {"provenance.json": files_of(one)["provenance.json"]}
    alone = measure_pair(a, b, name="x", metrics=EVERYTHING, skip=NAMES[:2])
    (own,) = alone.matrices or ()
    assert own in (one.matrices or ())
    without = summarize(measure_pair(a, b, name="x", metrics=METRICS[:2]))
    with_nulls = summarize(one)
    assert {k: with_nulls[k] for k in without} == without
    assert set(with_nulls) - set(without) == {"nulls", "nulls_scale", "explained"}


def test_a_source_off_the_grid_is_refused_by_name(tmp_path: Path) -> None:
    source, trained = pair(noise)
    few = {name: source[name].float() for name in NAMES[:2]}
    few[NAMES[1]] = few[NAMES[1]] * 1.001
    a = open_checkpoint(str(write_checkpoint(tmp_path / "a", few)))
    b = open_checkpoint(str(write_checkpoint(tmp_path / "b", {n: trained[n] for n in few})))
    files = files_of(measure_pair(a, b, name="x"))
    summary = json.loads(files["summary.json"])
    assert "nulls_scale" not in summary
    assert summary["nulls"]["visibility"]["exact_zero"] is None
    assert NAMES[1] in json.loads(files["provenance.json"])["undefined"]["nulls.visibility"]
    rows = [r for r in csv.DictReader(io.StringIO(files["nulls.csv"])) if r["null"] == "visibility"]
    assert {row["tensor"] for row in rows} == {NAMES[0]}


def test_view_stored_has_no_visibility(tmp_path: Path) -> None:
    source, trained = pair(noise)
    a, b = (
        open_checkpoint(str(write_checkpoint(tmp_path / to, {n: w[n] for n in NAMES[:2]})))
        for to, w in (("a", source), ("b", trained))
    )
    stored = measure_pair(a, b, name="x", view="stored", metrics=EVERYTHING)
    summary = summarize(stored)
    assert "nulls_scale" not in summary
    assert set(summary["nulls"]) == {"permutation", "spectrum"}
    assert set(summary["explained"]) == {"permutation"}


def test_the_scale_is_taken_from_results_of_the_masters(tmp_path: Path) -> None:
    source, trained = pair(noise)
    few = NAMES[:2]
    a, b, masters = (
        open_checkpoint(str(write_checkpoint(tmp_path / to, w)))
        for to, w in (
            ("a", {n: source[n] for n in few}),
            ("b", {n: trained[n].bfloat16() for n in few}),
            ("c", {n: trained[n] for n in few}),
        )
    )
    stored = files_of(measure_pair(a, masters, name="x", view="stored", metrics=("sparsity",)))
    for name, text in stored.items():
        (tmp_path / name).write_text(text)
    scales = scales_of(tmp_path)
    assert scales[few[0]] == pytest.approx(
        float((trained[few[0]].double() - source[few[0]].double()).square().mean().sqrt())
    )
    assert scales_of(tmp_path / "nowhere") == {}
    known = summarize(measure_all(a, [Job("x", b, scales=scales)])[0])
    direct = summarize(measure_pair(a, masters, name="x"))
    assert known["nulls_scale"] == "fp32"
    assert known["nulls"]["visibility"]["exact_zero"] == pytest.approx(
        direct["nulls"]["visibility"]["exact_zero"], rel=1e-9
    )
