"""Which instructions compute: chosen before torch is loaded, refused afterwards, and recorded."""

import json
import os
import subprocess
import sys

import pytest

from opdlib.errors import RecipeError
from opdlib.train.arithmetic import KERNELS, VARIABLES, choose, chosen


@pytest.fixture
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("kernels", KERNELS)
def test_the_environment_is_set_before_torch_is_loaded(
    monkeypatch: pytest.MonkeyPatch, nothing_set: None, kernels: str
) -> None:
    monkeypatch.delitem(sys.modules, "torch")
    choose("any-x86")
    choose(kernels)
    assert {name: value for name, value in chosen().items() if value} == KERNELS[kernels]
    for name in VARIABLES:  # what was set here is not monkeypatch's to forget
        os.environ.pop(name, None)


def test_afterwards_another_choice_is_refused(monkeypatch: pytest.MonkeyPatch, nothing_set: None) -> None:
    choose("native")
    with pytest.raises(RecipeError, match="MKL_CBWR=AVX2") as error:
        choose("intel-avx2")
    assert "\n" not in str(error.value)
    for name, value in KERNELS["intel-avx2"].items():
        monkeypatch.setenv(name, value)
    choose("intel-avx2")
    with pytest.raises(RecipeError, match="none of them"):
        choose("native")


def test_what_computes_is_recorded(nothing_set: None) -> None:
    code = (
        "from opdlib.train.arithmetic import choose; choose('any-x86'); import json\n"
        "from opdlib.train.environment import environment; print(json.dumps(environment()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    made = json.loads(done.stdout)
    assert made["kernels"] == KERNELS["any-x86"]
    assert "AVX512" not in made["device"]
    assert made["cpu"]["model"]
