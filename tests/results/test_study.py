"""The committed tables of the study: summaries as they were measured, and what is told where there are none."""

import hashlib
import json
import subprocess
import sys

import pytest

from opdlib.cli.main import main
from opdlib.errors import RegistryError
from opdlib.registry.pairs import find_pair
from opdlib.registry.study import Scale, study
from opdlib.results import flat
from opdlib.results.layout import State, results_folder, state_of, summary_of
from opdlib.results.study import KEYS, open_study

GOLDEN = {
    ("pico-bf16-rlvr-s3", "bf16", None): "6c22ac9a0ef160af",
    ("pico-bf16-rlvr-s3", "stored", None): "4bc6a3f87ef8036f",
    ("pico-bf16-rlvr-s3", "bf16", 100): "9eab00dda0ef3ee7",
    ("pico-bf16-adam-zero-s1", "bf16", 50): "f00e329e6271d65b",
    ("smollm2-bf16-opd-s2", "stored", None): "2cb1a3f907d0d864",
}
"""Run, view and step -> the beginning of the SHA-256 of the summary.json that was measured, under its first name."""


@pytest.mark.parametrize(("run", "digest"), GOLDEN.items(), ids=lambda value: str(value))
def test_a_summary_is_what_was_measured(run: tuple[str, str, int | None], digest: str) -> None:
    found = summary_of(*run)
    text = json.dumps(found | {"pair": found["pair"].replace("-bf16", "")}, indent=1) + "\n"
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == digest


def test_rows_and_complete_results_of_one_run_agree() -> None:
    for view in ("bf16", "stored"):
        rows = open_study("smollm2").summary("opd", 0, view)
        assert json.dumps(rows) == json.dumps(summary_of("smollm2-opd", view))


@pytest.mark.slow
@pytest.mark.parametrize("scale", study().values(), ids=lambda scale: scale.name)
def test_every_planned_run_is_there_in_order_and_once(scale: Scale) -> None:
    found = open_study(scale.name)
    wanted = [
        (arm.name, seed, view) for arm in scale.arms.values() for seed in arm.seeds for view in ("bf16", "stored")
    ]
    there = [*found.runs[["arm", "seed", "view"]].itertuples(index=False, name=None)]
    assert there == (wanted if scale.apart else [run for run in wanted if run in there])
    for name, key in KEYS.items():
        table = getattr(found, name)
        assert not table.duplicated([*key]).any(), name


def test_keys_are_nested_as_they_were_flattened() -> None:
    summary = summary_of("pico-bf16-opd-s0")
    assert flat.nest(flat.headline(summary)) == {
        key: value for key, value in summary.items() if key not in ("pair", "view", "layers")
    }
    assert flat.nest({"a.b.0.1": 1, "a.b.1e-05": 2, "a_1e-05.c.16": 3}) == {
        "a": {"b": {"0.1": 1, "1e-05": 2}},
        "a_1e-05": {"c": {"16": 3}},
    }
    assert [key for key in flat.ORDER if key in summary] == [*summary]


def test_a_pair_has_a_state() -> None:
    states = [state_of(find_pair(name)) for name in ("smollm2-opd", "pico-bf16-rlvr-s3", "deepscaler-rlvr")]
    assert states == [State.COMPLETE, State.ROWS, State.ABSENT]
    assert state_of(find_pair("pico-bf16-rlvr-s3"), "stored") is State.ROWS


def test_tables_of_rows_only_are_refused_in_one_line() -> None:
    with pytest.raises(RegistryError) as caught:
        results_folder("smollm2-bf16-rlvr-s0")
    assert str(caught.value) == (
        "pair 'smollm2-bf16-rlvr-s0': only its rows of the study are here (opd summary smollm2-bf16-rlvr-s0 --view "
        "bf16), no tables of tensors and matrices; "
        "to make them run: opd study smollm2-bf16 --arms rlvr --seeds 0"
    )
    with pytest.raises(RegistryError, match=r"no committed results in view bf16; run: opd measure deepscaler-rlvr"):
        results_folder("deepscaler-rlvr")


def test_the_command_answers_from_rows(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["summary", "pico-bf16-rlvr-s3", "--json", "--step", "100"]) == 0
    assert capsys.readouterr().out == json.dumps(summary_of("pico-bf16-rlvr-s3", step=100), indent=1) + "\n"
    assert main(["summary", "pico-bf16-rlvr-s3", "--step", "7"]) == 2
    assert "pico-bf16-rlvr-s3: no row of view bf16 after step 7" in capsys.readouterr().err
    assert main(["summary", "deepscaler-rlvr", "--step", "7"]) == 2
    assert "only runs of the study were measured on the way" in capsys.readouterr().err


@pytest.mark.slow
def test_needs_no_torch() -> None:
    answer = "from opdlib.results.layout import summary_of; summary_of('pico-bf16-opd-s1')"
    code = f"import sys; {answer}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]
