"""Where a run was computed: code, versions and machine, but no names of hosts, users or folders."""

import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from opdlib import __version__
from opdlib.train.arithmetic import chosen

INSTRUCTION_SETS = ("sse", "avx", "fma", "f16c", "amx")
"""How the flags begin that say with what a CPU computes."""

PACKAGES = ("accelerate", "datasets", "numpy", "safetensors", "tokenizers", "torch", "transformers", "trl")


def environment() -> dict[str, Any]:
    """JSON-ready: git (None outside a clone), python, packages, platform, device, cpu, kernels, threads."""
    processor = f"cpu {torch.backends.cpu.get_cpu_capability()}"
    return {
        "git": _git(Path(__file__).parents[2]),
        "python": platform.python_version(),
        "packages": {"opdlib": __version__} | {name: version(name) for name in PACKAGES},
        "platform": f"{platform.system()} {platform.machine()}",
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else processor,
        "cpu": _cpu(),
        "kernels": {name: value for name, value in chosen().items() if value is not None},
        "threads": torch.get_num_threads(),
    }


def _cpu(file: Path = Path("/proc/cpuinfo")) -> dict[str, Any]:
    """Model and instruction sets of the CPU, as Linux names them; elsewhere the model alone."""
    if not file.is_file():
        return {"model": platform.processor() or platform.machine()}
    lines = (line.partition(":") for line in file.read_text(encoding="utf8").splitlines())
    said = {key.strip(): value.strip() for key, _, value in lines}
    sets = [flag for flag in said.get("flags", "").split() if flag.startswith(INSTRUCTION_SETS)]
    return {"model": said.get("model name", platform.machine()), "instruction_sets": sorted(sets)}


def _git(root: Path) -> dict[str, Any] | None:
    """Commit, and whether tracked files differ from it; None where `root` is no clone."""
    if not (root / ".git").exists():
        return None
    try:
        commit = _ask(root, "rev-parse", "HEAD")
        changes = _ask(root, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.CalledProcessError):
        return None
    return {"commit": commit, "dirty": changes != ""}


def _ask(root: Path, *command: str) -> str:
    done = subprocess.run(["git", "-C", root, *command], capture_output=True, text=True, check=True)
    return done.stdout.strip()
