"""Where a run was computed: code, versions and machine, but no names of hosts, users or folders."""

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
    processor = f"cpu {torch.backends.cpu.get_cpu_capability()}"
    return {
        "git": _git(Path(__file__).parents[2]),
        "python": platform.python_version(),
        "packages": {"opdlib": __version__} | {name: version(name) for name in PACKAGES},
        "platform": f"{platform.system()} {platform.machine()}",
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else processor,
        "threads": torch.get_num_threads(),
    }


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
