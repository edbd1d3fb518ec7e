"""The committed notebooks: fit to publish, and the whole interface for models they have never seen."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import papermill as pm
import pytest
import torch
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook

import opdlib
from opdlib import notebook
from opdlib.notebook.cleaning import PICTURES
from opdlib.registry.study import study
from tests.conftest import moved, pico_weights, write_checkpoint

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "notebooks").glob("*.ipynb"))
REPOSITORY = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf8"))["project"]["urls"]["Repository"]

STUDY = ("03_optimizers", "06_subnetwork", "07_matched", "09_surgery", "10_trajectory")
"""Pages that compare the arms of a study and take its scale; the others show a pair."""
DIFFERENT = {
    "01_sparsity": "rel_norm",
    "02_layers": "mlp_rel_norm",
    "04_rank": "stable_rank",
    "05_subspace": "joint_projection",
    "08_nulls": "null_changed",
}
"""Notebook about a pair -> one of its values for other pages, a number that no two pairs share."""

each = pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
each_of_pairs = pytest.mark.parametrize("path", [f for f in FILES if f.stem not in STUDY], ids=lambda p: p.stem)
each_of_the_study = pytest.mark.parametrize("path", [f for f in FILES if f.stem in STUDY], ids=lambda p: p.stem)


def cells(path: Path, kind: str = "code") -> list[Any]:
    return [c for c in nbformat.read(path, as_version=4).cells if c.cell_type == kind]


def tags(cell: Any) -> list[str]:
    return list(cell.metadata.get("tags", []))


def tagged(path: Path, tag: str, kind: str = "code") -> Any:
    (found,) = (c for c in cells(path, kind) if tag in tags(c))
    return found


def glued(path: Path) -> dict[str, Any]:
    """Everything a notebook stores for other pages: name -> data."""
    outputs = [o for c in cells(path) for o in c.outputs if "scrapbook" in o.get("metadata", {})]
    return {o.metadata["scrapbook"]["name"]: o.data for o in outputs}


def number(data: dict[str, str]) -> float:
    return float(ast.literal_eval(data["application/papermill.record/text/plain"]))


# As they are committed.


@each
def test_committed_notebook_is_fit_to_publish(path: Path) -> None:
    found = cells(path)
    assert sum("parameters" in tags(c) for c in found) == 1, "exactly one cell must be tagged 'parameters'"
    assert not any("injected-parameters" in tags(c) for c in found), "run with defaults before committing"
    assert all(c.execution_count for c in found), "an unexecuted cell is never compared by nbval"
    assert [c.execution_count for c in found] == list(range(1, len(found) + 1)), "restart and run all"
    for cell in found:
        for output in cell.outputs:
            assert output.output_type in ("display_data", "execute_result"), f"{cell.id}: {output.output_type}"


@each
def test_it_is_clean(path: Path, tmp_path: Path) -> None:
    """Times, versions and paths of the machine that ran it are nowhere."""
    copy = tmp_path / path.name
    shutil.copy(path, copy)
    notebook.clean(copy)
    assert copy.read_bytes() == path.read_bytes(), "run: python -m opdlib.notebook clean notebooks/*.ipynb"
    text = path.read_text(encoding="utf8")
    assert str(Path.home()) not in text
    assert not re.search(r"/(tmp|home|work|root|Users)/", text)
    assert not re.search(r"(?<![A-Za-z0-9+/])0x[0-9a-f]{6,}", text), "outside of pictures, whose letters are any"


@each
def test_its_parameters_are_those_that_it_checks(path: Path) -> None:
    known = pm.inspect_notebook(str(path))
    for name, parameter in known.items():
        assert parameter["help"], f"{name} has no help in its trailing comment"
    found = cells(path)
    after = found[next(i for i, c in enumerate(found) if "parameters" in tags(c)) + 1]
    call = re.search(r"notebook\.check\(globals\(\), (.*)\)", after.source)
    assert call, "the check comes right after the parameters"
    assert list(known) == list(ast.literal_eval(f"[{call[1]}]"))


@each
def test_no_cell_overwrites_a_parameter(path: Path) -> None:
    """So that a reader can run any cell again."""
    found = cells(path)
    start = next(i for i, c in enumerate(found) if "parameters" in tags(c)) + 1
    for cell in found[start:]:
        stored = {
            n.id for n in ast.walk(ast.parse(cell.source)) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
        }
        assert not stored & set(pm.inspect_notebook(str(path)))


@each
def test_every_picture_has_an_alt_text(path: Path) -> None:
    for cell in cells(path):
        for output in cell.outputs:
            for kind in {*PICTURES} & {*output.data}:
                alt = output.metadata[kind]["alt"]
                assert len(alt) > 20
                assert cell.metadata["mystnb"]["image"]["alt"] == alt
                assert cell.metadata["mystnb"]["figure"]["caption"]


@each
def test_the_way_to_colab(path: Path) -> None:
    address = REPOSITORY.replace("https://github.com/", "https://colab.research.google.com/github/")
    assert f"({address}/blob/main/notebooks/{path.name})" in tagged(path, "remove-cell", "markdown").source
    bootstrap = cells(path)[0]
    assert "remove-cell" in tags(bootstrap)
    assert f'"opdlib @ git+{REPOSITORY}@v{opdlib.__version__}"' in bootstrap.source
    names = [
        n.id for n in ast.walk(ast.parse(bootstrap.source)) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
    ]
    assert all(n.startswith("_") for n in names), "a plain name would be taken for a misspelled parameter"


@each
def test_it_is_thin(path: Path) -> None:
    for cell in cells(path):
        tree = ast.parse(cell.source)
        assert not [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.While)], cell.id
        assert not re.search(r"rcParams|plt\.", cell.source), cell.id


WRITTEN = ("paper", "here", "control", "sure")
"""Arguments of `notebook.finding` that are sentences."""


def sentences(path: Path) -> Iterator[str]:
    """The templates that a notebook fills: what `say` and `finding` are given, and what is kept for them in names."""
    for cell in [c for c in cells(path) if "remove-cell" not in tags(c)]:
        for node in ast.walk(ast.parse(cell.source)):
            found: list[ast.AST] = []
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("notebook.say", "notebook.finding"):
                found = [*node.args, *(word.value for word in node.keywords if word.arg in WRITTEN)]
            elif isinstance(node, ast.Assign):
                found = [node.value] if "notebook." not in ast.unparse(node.value) else []
            texts = [n.value for part in found for n in ast.walk(part) if isinstance(n, ast.Constant)]
            yield from (text for text in texts if isinstance(text, str) and " " in text.strip() and "==" not in text)


@each
def test_sentences_have_their_numbers_and_names_filled_in(path: Path) -> None:
    """Digits stand in names like bf16 alone; arms and scales are values, so that other runs show theirs."""
    names = {name for scale in study().values() for name in (scale.name, *(a for a in scale.arms if "-" in a))}
    for text in sentences(path):
        written = re.sub(r"\{[^{}]*\}", "", text)
        assert not re.search(r"\b\d", written), text
        assert not [name for name in names if re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", written)], text


@each
def test_prose_names_no_scale(path: Path) -> None:
    """Which runs a page shows is said once, in its parameters."""
    for cell in cells(path, "markdown"):
        assert not [name for name in study() if f"`{name}`" in cell.source], cell.id


@each
def test_a_page_is_short(path: Path) -> None:
    prose = [c.source for c in cells(path, "markdown") if "remove-cell" not in tags(c)]
    assert sum(len(text.split()) for text in prose) <= 1500
    shown = [o for c in cells(path) for o in c.outputs if 'class="dataframe' in o.get("data", {}).get("text/html", "")]
    assert len(shown) <= 8
    assert not [c.id for c in cells(path) if len(c.source.splitlines()) > 15]


def test_values_for_other_pages() -> None:
    sparsity, layers = (glued(ROOT / f"notebooks/{name}.ipynb") for name in ("01_sparsity", "02_layers"))
    shares = {"sparsity_1e_5", "exact_zero", "exact_zero_null", "exact_zero_stored", "rel_norm", "top1_energy"}
    shares |= {"changed_smallest", "changed_largest"}
    assert set(sparsity) == shares | {"parameters", "fig_pairs", "fig_threshold_curve", "fig_magnitude"}
    assert set(layers) == {"mlp_energy_share", "mlp_rel_norm", "attention_rel_norm", "fig_layer_module", "fig_blocks"}
    rank, subspace = (glued(ROOT / f"notebooks/{name}.ipynb") for name in ("04_rank", "05_subspace"))
    assert set(rank) == {
        *("top16_energy", "top16_energy_null", "top16_energy_stored", "stable_rank", "rank_share"),
        *("fig_spectrum", "fig_rank_pairs"),
    }
    assert set(subspace) == {
        *("joint_projection", "joint_expected", "principal_coverage", "low_coverage", "low_ceiling"),
        *("fig_projection_pairs", "fig_projection", "fig_coverage", "fig_coverage_pairs"),
        "fig_changed_by_size",
    }
    assert all(0 <= number(sparsity[name]) <= 1 for name in shares)


# Run on models that they have never seen.


class Kernel:
    """Runs notebooks one after another in one process, each with an empty namespace, folder and cache: what they would
    do alone, but for importing the same libraries again, which costs most of their time. nbval starts each alone."""

    def __init__(self, **environment: str):
        self.client = NotebookClient(nbformat.v4.new_notebook(), kernel_name="python3", timeout=300)
        self.environment = os.environ | {"HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"} | environment

    def run(self, path: Path, folder: Path, /, **parameters: object) -> Path:
        """Run a copy of the notebook in an empty folder, as papermill does with these parameters."""
        folder.mkdir()
        fresh = [
            "import os",
            f"os.chdir({str(folder)!r}); os.environ['OPDLIB_CACHE'] = {str(folder / 'cache')!r}",
            "get_ipython().reset()",
            "import gc; gc.freeze(); del gc  # the next reset looks for garbage, but not among what stays",
        ]
        self._execute(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("\n".join(fresh))]))
        given = load_notebook_node(str(path))
        self._execute(parameterize_notebook(given, parameters) if parameters else given)
        nbformat.write(self.client.nb, folder / "out.ipynb")
        return folder / "out.ipynb"

    def _execute(self, given: Any) -> None:
        self.client.nb = given
        self.client.execute(env=self.environment, cleanup_kc=False)

    def close(self) -> None:
        with self.client.setup_kernel(cleanup_kc=True):
            pass


@pytest.fixture(scope="module")
def kernel() -> Iterator[Kernel]:
    """A kernel with the library of this tree."""
    started = Kernel()
    yield started
    started.close()


def papermill(folder: Path, source: Path, *options: str) -> tuple[subprocess.CompletedProcess[str], Path]:
    """Run a copy of the notebook alone in an empty folder, by the plain command."""
    folder.mkdir()
    shutil.copy(source, folder)
    out = folder / "out.ipynb"
    quiet = ["--no-progress-bar", "--log-level", "ERROR"]
    done = subprocess.run(
        [sys.executable, "-m", "papermill", source.name, out.name, *quiet, *options],
        cwd=folder,
        env=os.environ | {"OPDLIB_CACHE": str(folder / "cache"), "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return done, out


def text_of(path: Path) -> str:
    """All that the notebook shows, as text."""
    outputs = [o for c in cells(path) for o in c.outputs]
    assert not [o for o in outputs if o.output_type in ("stream", "error")], "a clean run prints nothing"
    return "\n".join(str(o.data.get("text/plain", "")) for o in outputs)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A sharded bf16 source with a tied head, and a float32 trained side, as parameters."""
    source, folder = pico_weights(), tmp_path_factory.mktemp("pair")
    tied = {"tie_word_embeddings": True}
    before = write_checkpoint(folder / "before", source, shards=3, config=tied)
    after = write_checkpoint(folder / "after", moved(source, dtype=torch.float32), config=tied)
    return {"source": str(before), "trained": str(after)}


@pytest.mark.notebook
@each_of_pairs
def test_checkpoints_never_seen_before(path: Path, kernel: Kernel, pair: dict[str, str], tmp_path: Path) -> None:
    """The first page by the plain command."""
    if path == FILES[0]:
        words = (word for name, value in pair.items() for word in ("-p", name, value))
        done, out = papermill(tmp_path / "run", path, *words)
        assert done.returncode == 0, done.stderr
    else:
        out = kernel.run(path, tmp_path / "run", **pair)
    shown = text_of(out)
    assert "here, stored" in shown or path.stem != "01_sparsity"
    assert "SmolLM2" not in shown
    mine, published = glued(out), glued(path)
    assert set(mine) == set(published)
    name = DIFFERENT[path.stem]
    assert number(mine[name]) != number(published[name])


@pytest.mark.notebook
@each_of_pairs
def test_a_pair_in_which_nothing_changed(path: Path, kernel: Kernel, tmp_path: Path) -> None:
    same = str(write_checkpoint(tmp_path / "same", {"model.layers.0.mlp.up_proj.weight": torch.ones(4, 4).bfloat16()}))
    out = kernel.run(path, tmp_path / "run", source=same, trained=same)
    assert "nothing changed between the two checkpoints" in text_of(out)
    assert "nan" not in text_of(out).replace("%", " ").split()


@pytest.mark.notebook
@each_of_the_study
def test_the_other_scale(path: Path, kernel: Kernel, tmp_path: Path) -> None:
    """A page of the study shows whatever runs a scale has, none included, and refuses a scale that there is not."""
    out = kernel.run(path, tmp_path / "run", scale="pico")
    assert "nan" not in text_of(out).split()
    assert set(glued(out)) == set(glued(path))
    with pytest.raises(
        CellExecutionError, match=re.escape("no scale 'nano' in study.yaml; choose one of: pico, smollm2")
    ):
        kernel.run(path, tmp_path / "wrong", scale="nano")


@pytest.mark.notebook
@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"atol": 3e-6}, "threshold 3e-06 was not measured; there are 1e-08, 1e-07, 1e-06, 1e-05, 0.0001"),
        (
            {"pair": "smollm2-odp"},
            "no pair 'smollm2-odp', neither in pairs.yaml nor in study.yaml. Did you mean smollm2-opd",
        ),
    ],
)
def test_a_wrong_value_fails(parameters: dict[str, object], message: str, kernel: Kernel, tmp_path: Path) -> None:
    with pytest.raises(CellExecutionError, match=re.escape(message)):
        kernel.run(FILES[0], tmp_path / "run", **parameters)


@pytest.mark.notebook
def test_a_misspelled_parameter_fails_under_the_plain_command(tmp_path: Path) -> None:
    """Papermill itself only warns."""
    done, _ = papermill(tmp_path / "run", FILES[0], "-p", "atoll", "1e-6")
    assert done.returncode != 0
    assert "unknown parameter 'atoll'; did you mean 'atol'? This notebook takes: pair, source" in done.stderr


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    """A kernel that finds the library in the built wheel, and of what that needs only what `binder/` installs."""
    site = tmp_path_factory.mktemp("site")
    install = ["-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(site), str(wheel)]
    subprocess.run([sys.executable, *install], check=True, capture_output=True)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf8"))["project"]
    needed = {re.split("[<>=]", name)[0] for name in project["dependencies"]}
    absent = needed - set((ROOT / "binder" / "requirements.txt").read_text(encoding="utf8").split())
    assert "torch" in absent
    for name in absent:
        (site / f"{name}.py").write_text(f"raise ImportError('this machine has no {name}')\n")
    started = Kernel(PYTHONPATH=str(site))
    yield started
    started.close()


@pytest.mark.notebook
@each
def test_alone_with_the_built_wheel(path: Path, installed: Kernel, tmp_path: Path) -> None:
    """With defaults: the published numbers, from what the wheel carries, as on Binder: no torch, patch or model."""
    out = installed.run(path, tmp_path / "run")
    notebook.clean(out)
    assert json.loads(out.read_text()) == json.loads(path.read_text())
