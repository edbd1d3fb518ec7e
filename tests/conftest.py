"""Pico checkpoints, made on the fly: a two-layer transformer's names and shapes with random weights."""

from __future__ import annotations

import gc
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

# Before torch is loaded, here and in every process of a test: pico models are too small for more than one thread.
os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}

import pytest
import torch
from safetensors.torch import save_file

from opdlib.checkpoints import open_checkpoint
from opdlib.checkpoints.patch import make
from opdlib.results.layout import PROVENANCE, sealed

if TYPE_CHECKING:
    from playwright.sync_api import Browser

ROOT = Path(__file__).parents[1]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

Weights = dict[str, torch.Tensor]

HIDDEN, INNER, VOCABULARY = 16, 24, 40


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Checks of a GPU, and of pages in a browser, are deselected where there is none."""
    here = {"gpu": torch.cuda.is_available(), "browser": CHROMIUM is not None}
    for marker in (marker for marker, found in here.items() if not found):
        without = [item for item in items if item.get_closest_marker(marker)]
        config.hook.pytest_deselected(items=without)
        items[:] = [item for item in items if item not in without]


def pytest_collection_finish() -> None:
    """What is loaded by now stays to the end, so garbage is no longer looked for among its million objects, as every
    training does before its first step."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium without a window; for tests marked `browser`. It ends with the module, and its event loop with it."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def without_a_screen() -> Iterator[None]:
    """Figures are drawn into memory, and closed after the test."""
    import matplotlib as mpl
    from matplotlib import pyplot as plt

    before = mpl.get_backend()
    plt.switch_backend("agg")
    yield
    plt.close("all")
    plt.switch_backend(before)


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of this run of the tests, one for all its workers."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("*.whl")
    return built


def pico_weights(layers: int = 2, seed: int = 0, dtype: torch.dtype = torch.bfloat16) -> Weights:
    """Random weights under the names of a Llama-like model with q_norm and biases; the head is tied, so not stored."""
    generator = torch.Generator().manual_seed(seed)
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (VOCABULARY, HIDDEN)}
    for layer in range(layers):
        at = f"model.layers.{layer}"
        shapes |= {f"{at}.self_attn.{m}_proj.weight": (HIDDEN, HIDDEN) for m in "qkvo"}
        shapes |= {f"{at}.self_attn.q_proj.bias": (HIDDEN,), f"{at}.self_attn.q_norm.weight": (HIDDEN // 2,)}
        shapes |= {f"{at}.mlp.{m}_proj.weight": (INNER, HIDDEN) for m in ("gate", "up")}
        shapes |= {f"{at}.mlp.down_proj.weight": (HIDDEN, INNER), f"{at}.input_layernorm.weight": (HIDDEN,)}
    shapes["model.norm.weight"] = (HIDDEN,)
    return {name: (torch.randn(shape, generator=generator) * 0.05).to(dtype) for name, shape in shapes.items()}


def moved(weights: Weights, scale: float = 2e-4, seed: int = 1, dtype: torch.dtype | None = None) -> Weights:
    """The weights after a small dense update, in their own dtype or another."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: (w.float() + scale * torch.randn(w.shape, generator=generator)).to(dtype or w.dtype)
        for name, w in weights.items()
    }


def write_checkpoint(
    folder: Path, weights: Mapping[str, torch.Tensor], shards: int = 1, config: Mapping[str, object] | None = None
) -> Path:
    """Save weights as one file, or as shards with an index."""
    folder.mkdir(parents=True, exist_ok=True)
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    if shards == 1:
        save_file(dict(weights), folder / "model.safetensors", metadata={"format": "pt"})
        return folder
    weight_map: dict[str, str] = {}
    names = list(weights)
    for number in range(shards):
        file = f"model-{number + 1:05d}-of-{shards:05d}.safetensors"
        own = names[number::shards]
        save_file({n: weights[n] for n in own}, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(own, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return folder


@pytest.fixture
def pico_pair(tmp_path: Path) -> tuple[Path, Path]:
    """A bf16 source and a bf16 checkpoint that was moved a little, as folders."""
    source = pico_weights()
    tied = {"tie_word_embeddings": True}
    return (
        write_checkpoint(tmp_path / "source", source, config=tied),
        write_checkpoint(tmp_path / "trained", moved(source), config=tied),
    )


ODD = "model.layers.1.mlp.up_proj.weight"
"""The tensor of `weights_with_oddities` that holds bit patterns which are no numbers."""


def weights_with_oddities() -> tuple[Weights, Weights]:
    """A pico pair with a scalar, an empty, a 3-D and an unchanged tensor, and bit patterns that are no numbers."""
    source = pico_weights() | {
        "scalar": torch.tensor(2.5, dtype=torch.bfloat16),
        "none": torch.zeros(0, 4, dtype=torch.bfloat16),
        "experts": torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(2)).bfloat16(),
    }
    trained = moved(source) | {"model.norm.weight": source["model.norm.weight"]}
    trained[ODD].view(torch.int16).view(-1)[:5] = torch.tensor([0x7FC1, -1, 0x7F80, -32768, 1], dtype=torch.int16)
    source[ODD].view(torch.int16).view(-1)[:3] = torch.tensor([0x7FC2, 5, -32768], dtype=torch.int16)
    return source, trained


@pytest.fixture
def patched(tmp_path: Path) -> tuple[Path, Path, Path]:
    """Folders of source and trained, and the patch between them."""
    source, trained = weights_with_oddities()
    a = write_checkpoint(tmp_path / "source", source, config={"model_type": "llama"})
    b = write_checkpoint(tmp_path / "trained", trained)
    make(open_checkpoint(str(a)), open_checkpoint(str(b)), tmp_path / "x.safetensors")
    return a, b, tmp_path / "x.safetensors"


def reseal(folder: Path, **changed: object) -> None:
    """Change what the provenance of results says, and have it know every file beside it as it is now."""
    known = json.loads((folder / PROVENANCE).read_text(encoding="utf8")) | changed
    (folder / PROVENANCE).write_text(
        sealed(known, {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}), encoding="utf8"
    )


Command = Callable[..., subprocess.CompletedProcess[str]]
"""Takes the words of a command line, and environment variables by name."""


def alone(folder: Path) -> dict[str, str]:
    """The environment of a command in a test: a cache of its own, and no network that answers."""
    return {"OPDLIB_CACHE": str(folder / "cache"), "HF_HUB_OFFLINE": "1"}


@pytest.fixture
def opd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run a command in this process, in an empty folder: all of `opd` but its start, which costs seconds."""
    from opdlib.cli.main import main

    def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        words = list(map(str, arguments))
        capsys.readouterr()
        with monkeypatch.context() as here:
            here.chdir(tmp_path)
            for name, value in (alone(tmp_path) | environment).items():
                here.setenv(name, value)
            code = main(words)
        return subprocess.CompletedProcess(words, code, *capsys.readouterr())

    return run


@pytest.fixture
def opd_process(tmp_path: Path) -> Command:
    """Run the real command in its own process, in an empty folder."""

    def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "opdlib", *map(str, arguments)],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=os.environ | alone(tmp_path) | environment,
            timeout=300,
        )

    return run
