"""Where opdlib's own data lies: beside the package in a wheel, beside the repository's root in a checkout."""

from __future__ import annotations

from pathlib import Path

from opdlib.errors import RegistryError

PACKAGE = Path(__file__).resolve().parent


def data_root() -> Path:
    """The folder that holds pairs.yaml, paper/, recipes/ and results/. Raises RegistryError if it is not there."""
    for folder in (PACKAGE / "data", PACKAGE.parent / "data"):
        if (folder / "pairs.yaml").is_file():
            return folder
    raise RegistryError(f"{PACKAGE / 'data'}: no pairs.yaml; the installation is incomplete, install opdlib again")


def find(path: Path) -> Path:
    """`path` itself if it exists or is absolute; else the file of that name in the checkout, if there is one.

    So `data/patches/x.safetensors`, as the registry writes it, is found from every working directory.
    """
    if path.is_absolute() or path.exists():
        return path
    own = data_root().parent / path
    return own if own.exists() else path
