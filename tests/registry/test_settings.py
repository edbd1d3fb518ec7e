"""Parameters of a notebook: what passes, and what is said of the rest."""

import math
from types import ModuleType
from typing import Any

import pytest

from opdlib import notebook
from opdlib.errors import ParameterError, RegistryError

NAMES = ("pair", "source", "trained", "skip", "atol", "thresholds", "shares")


def namespace(**changes: Any) -> dict[str, Any]:
    """The globals of a notebook after its parameters cell."""
    hidden = {"In": [], "Out": {}, "_i1": "x", "__name__": "__main__", "notebook": ModuleType("notebook")}
    defaults = {"pair": "smollm2-opd", "source": None, "trained": None, "skip": [], "atol": 1e-5}
    return hidden | defaults | {"thresholds": [1e-5], "shares": [0.01]} | changes


def test_defaults_pass() -> None:
    settings = notebook.check(namespace(), *NAMES)
    assert settings == notebook.Settings(atol=1e-5, thresholds=(1e-5,), shares=(0.01,))
    assert settings.pair == "smollm2-opd"
    assert settings.compared == {"pair": "smollm2-opd", "source": None, "trained": None, "skip": ()}
    assert list(settings.table().index) == ["pair", "atol", "thresholds", "shares"]


def test_a_misspelled_parameter_is_named_with_the_right_ones() -> None:
    with pytest.raises(ParameterError) as error:
        notebook.check(namespace(atoll=1e-6), *NAMES)
    assert str(error.value) == (
        "unknown parameter 'atoll'; did you mean 'atol'? "
        "This notebook takes: pair, source, trained, skip, atol, thresholds, shares"
    )
    with pytest.raises(ParameterError, match=r"unknown parameter 'zzz'\. This notebook takes: pair"):
        notebook.check(namespace(zzz=None), *NAMES)


def test_parameters_of_the_pages_on_geometry() -> None:
    variables = {"tops": "[1, 16]", "tolerances": ["1e-5"]}
    settings = notebook.check(dict(variables), "tops", "tolerances")
    assert (settings.tops, settings.tolerances) == ((1, 16), (1e-5,))
    assert list(settings.table().index) == ["pair", "tops", "tolerances"]
    with pytest.raises(ParameterError, match=r"parameter tops: \[1.5\]; wanted whole numbers from 1 up"):
        notebook.check({"tops": [1.5]}, "tops")


def test_the_scale_of_a_study() -> None:
    settings = notebook.check({"scale": "pico"}, "scale")
    assert settings.scale == "pico"
    assert list(settings.table().index) == ["scale"]
    with pytest.raises(RegistryError, match=r"no scale 'nano' in study.yaml; choose one of: pico, smollm2"):
        notebook.check({"scale": "nano"}, "scale")


def test_running_the_cell_again_is_no_mistake() -> None:
    variables = namespace()
    notebook.check(variables, *NAMES)
    later = variables | {"columns": ("a", "b"), "atol": 1e-4}
    assert notebook.check(later, *NAMES).atol == 1e-4


@pytest.mark.parametrize(
    ("given", "name", "value"),
    [
        ({"atol": "1e-5"}, "atol", 1e-5),
        ({"thresholds": ["1e-4", 1e-6]}, "thresholds", (1e-4, 1e-6)),
        ({"thresholds": "[1e-4, 1.0e-6]"}, "thresholds", (1e-4, 1e-6)),
        ({"shares": 0.05}, "shares", (0.05,)),
        ({"skip": "model.norm.weight"}, "skip", ("model.norm.weight",)),
        ({"skip": "[a, b]"}, "skip", ("a", "b")),
        ({"skip": None}, "skip", ()),
        ({"source": "a", "trained": "b"}, "trained", "b"),
        ({"source": "", "trained": ""}, "source", None),
    ],
)
def test_values_that_papermill_hands_over_as_text(given: dict[str, Any], name: str, value: object) -> None:
    assert getattr(notebook.check(namespace(**given), *NAMES), name) == value


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"atol": -1}, "parameter atol: -1; wanted a positive number"),
        ({"atol": "much"}, "parameter atol: 'much'; wanted a positive number"),
        ({"atol": True}, "parameter atol: True"),
        ({"atol": math.nan}, "parameter atol: nan"),
        ({"shares": [5]}, "wanted shares from 0 to 1"),
        ({"pair": 3}, "parameter pair: 3; wanted a name"),
        ({"skip": [3]}, "parameter skip: 3; wanted a name"),
        ({"thresholds": [1e-5, "x"]}, "parameter thresholds: 'x'; wanted a positive number"),
        ({"shares": "[0.1, 5]"}, r"parameter shares: '\[0.1, 5\]'; wanted shares"),
        ({"atol": None}, "parameter atol: None; wanted a positive number"),
        ({"source": "a"}, "source and trained go together"),
    ],
)
def test_values_that_make_no_sense(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        notebook.check(namespace(**given), *NAMES)


def test_a_pair_that_does_not_exist() -> None:
    with pytest.raises(RegistryError, match=r"no pair 'smollm2-odp', .*Did you mean smollm2-opd"):
        notebook.check(namespace(pair="smollm2-odp"), *NAMES)
