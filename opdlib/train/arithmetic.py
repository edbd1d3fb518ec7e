"""Which instructions a training computes with: fewer of them, and more machines give the same bits.

A sum of floating-point numbers depends on its order, and libraries order sums by the widest instructions that they
find. A recipe's `kernels` takes that choice from them, in float32:

| kernels | the same bits on | how |
| --- | --- | --- |
| `any-x86` | every x86-64 CPU with AVX2 and FMA | ATen capped at AVX2, MKL on its slow path for all vendors |
| `intel-avx2` | every such CPU of Intel | ATen capped at AVX2, MKL on its AVX2 path |
| `native` | the kind of CPU that the run was made on | nothing is capped |

That is what these settings are for; two steps of a small model have been compared on emulated CPUs, whole runs on one
kind of CPU only. bf16 autocast is another arithmetic on every kind of CPU, whatever is capped. The last bits depend on
the recipe's `threads` as well.
"""

import os
import sys
from collections.abc import Mapping

from opdlib.errors import RecipeError

_CAPPED = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_DYNAMIC": "FALSE"}
KERNELS: Mapping[str, Mapping[str, str]] = {
    "any-x86": _CAPPED | {"MKL_CBWR": "COMPATIBLE"},
    "intel-avx2": _CAPPED | {"MKL_CBWR": "AVX2"},
    "native": {},
}
"""The environment variables that each choice sets; those that only another sets are removed."""

VARIABLES = tuple(sorted({name for variables in KERNELS.values() for name in variables}))


def choose(kernels: str) -> None:
    """Set the environment for `kernels`, a key of `KERNELS`. Libraries read it once, as they are loaded. Raises
    RecipeError where torch is loaded already and was not told the same."""
    if computes_with(kernels):
        return
    wanted = _variables(kernels)
    if "torch" in sys.modules:
        set_as = " ".join(f"{name}={value}" for name, value in wanted.items() if value) or "none of them"
        raise RecipeError(
            f"kernels {kernels}: torch is loaded, and reads {', '.join(VARIABLES)} only then; run `opd train`, or "
            f"set before Python starts: {set_as}"
        )
    for name, value in wanted.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def computes_with(kernels: str) -> bool:
    """Is the environment that of `kernels`, and nothing else?"""
    return chosen() == _variables(kernels)


def _variables(kernels: str) -> dict[str, str | None]:
    return {name: KERNELS[kernels].get(name) for name in VARIABLES}


def chosen() -> dict[str, str | None]:
    """The variables as they are set now; None: not set."""
    return {name: os.environ.get(name) for name in VARIABLES}
