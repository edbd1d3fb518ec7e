"""Where a run was computed: code, versions and machine, without names of hosts, users or folders."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from opdlib import __version__

PACKAGES = (
    "accelerate",
    "datasets",
    "numpy",
    "safetensors",
    "tokenizers",
    "torch",
    "transformers",
    "trl",
)


def environment() -> dict[str, Any]:
    """JSON-ready: git (None outside a clone), python, packages, platform, device, threads."""
    cuda = torch.cuda.is_available()
    return {
        "git": _git(Path(__file__).parents[2]),
        "python": platform.python_version(),
        "packages": {"opdlib": __version__} | {name: version(name) for name in PACKAGES},
        "platform": f"{platform.system()} {platform.machine()}",
        "device": torch.cuda.get_device_name()
        if cuda
        else f"cpu {torch.backends.cpu.get_cpu_capability()}",
        "threads": torch.get_num_threads(),
    }


def _git(root: Path) -> dict[str, Any] | None:
    """Commit and whether tracked files differ from it; None if `root` is no clone, as in an installed wheel."""
    if not (root / ".git").exists():
        return None
    try:
        commit = _ask(root, "rev-parse", "HEAD")
        return {
            "commit": commit,
            "dirty": _ask(root, "status", "--porcelain", "--untracked-files=no") != "",
        }
    except (OSError, subprocess.CalledProcessError):
        return None


def _ask(root: Path, *command: str) -> str:
    return subprocess.run(
        ["git", "-C", root, *command], capture_output=True, text=True, check=True
    ).stdout.strip()
