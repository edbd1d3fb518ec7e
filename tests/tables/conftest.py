"""Results of a two-layer model, which every module of tables is tested on unless it makes its own."""

import pytest

from opdlib.tables import Results
from tests.conftest import Weights, pico_weights
from tests.tables.results_of import deep_pair, results_of


@pytest.fixture(scope="module")
def weights() -> tuple[Weights, Weights]:
    return deep_pair(2)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, weights: tuple[Weights, Weights]) -> Results:
    return results_of(tmp_path_factory.mktemp("bf16"), *weights)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory, weights: tuple[Weights, Weights]) -> Results:
    return results_of(tmp_path_factory.mktemp("stored"), *weights, view="stored")


@pytest.fixture(scope="module")
def unchanged(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return results_of(tmp_path_factory.mktemp("same"), pico_weights(), pico_weights())
